"""Llamas with random weights, in a folder of the hub's layout: the shape of a model costs what the model costs.

The tokenizer is byte-level BPE, trained on the running Python's own standard library, so that nothing is fetched. It uses
the first ids of a vocabulary that is as large as the shape says.
"""

from __future__ import annotations

from pathlib import Path

import torch
from speed.workloads import Shape
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from pegbox.samples import software

END = "<|end|>"
LEARNT = 8192  # tokens of the tokenizer, at most


def write(shape: Shape, folder: Path) -> None:
    """A model of the shape and its tokenizer, always the same ones."""
    tokenizer = _tokenizer(min(shape.vocab_size, LEARNT))
    config = LlamaConfig(
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads,
        vocab_size=shape.vocab_size,
        tie_word_embeddings=shape.tied,
        initializer_range=shape.spread,
        max_position_embeddings=8192,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype=shape.dtype,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).to(shape.dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    texts = [module.source for module in software.standard_library()[::10]]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=letters, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END, pad_token=END)
