"""A tiny random model with a real tokenizer in a folder of the hub's layout, and files of rows, for whole runs in seconds."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from small_tokenizers import tokenizer
from tokenizers import processors
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    MarianConfig,
    MarianMTModel,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)


def causal_folder(
    folder: Path, *, dtype: torch.dtype = torch.float32, dropout: float = 0.0, spread: float = 0.02
) -> Path:
    """A two-layer Llama with a ChatML template; `spread`: the standard deviation of its random matrices."""
    made = tokenizer("byte_level", "default_system")
    config = LlamaConfig(
        vocab_size=len(made),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        attention_dropout=dropout,
        classifier_dropout=dropout,  # of a head on tokens, which has 0.1 without
        initializer_range=spread,
        eos_token_id=made.eos_token_id,
        pad_token_id=made.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def encoder_folder(folder: Path, *, spread: float = 0.02) -> Path:
    """A two-layer BERT with a word-piece tokenizer; its classification head is not saved with it."""
    made = tokenizer("wordpiece")
    config = BertConfig(
        vocab_size=len(made),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=spread,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertForSequenceClassification(config).bert.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def encoder_decoder_folder(folder: Path, kind: str = "t5", *, tied: bool = True, spread: float = 0.1) -> Path:
    """A T5, BART or Marian of two layers each side, saved whole; its tokenizer ends each text with its end-of-text token.

    `tied`: the head is the embeddings, too; else it is one of deviation 1, by which logits can be large though it is frozen.
    `spread`: the deviation of BART's and Marian's random matrices.
    """
    made = tokenizer("metaspace_first", "mistral")
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[(made.eos_token, made.eos_token_id)]
    )
    sizes = {"vocab_size": len(made), "d_model": 32}
    ids = {"pad_token_id": made.pad_token_id, "eos_token_id": made.eos_token_id}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whole: PreTrainedModel
        if kind == "t5":
            sizes |= {"d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
            whole = T5ForConditionalGeneration(T5Config(**sizes, **ids, dropout_rate=0.0, tie_word_embeddings=tied))
        else:
            sizes |= {f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
            sizes |= {f"{side}_ffn_dim": 64 for side in ("encoder", "decoder")} | {"max_position_embeddings": 64}
            ids |= {"bos_token_id": made.bos_token_id, "decoder_start_token_id": made.eos_token_id}
            made_of = {"dropout": 0.0, "init_std": spread, "tie_word_embeddings": tied}
            if kind == "bart":
                whole = BartForConditionalGeneration(BartConfig(**sizes, **ids, **made_of))
            else:
                ids["decoder_start_token_id"] = made.pad_token_id
                whole = MarianMTModel(MarianConfig(**sizes, **ids, **made_of, forced_eos_token_id=None))
        if not tied:
            torch.nn.init.normal_(whole.get_output_embeddings().weight)
        whole.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def sums(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Prompts that differ, with answers of ragged length."""
    draw = random.Random(seed)
    pairs = draw.sample([(a, b) for a in range(60) for b in range(60)], count)
    return [{"prompt": f"{a} and {b}", "completion": " ".join([str(b)] * (1 + a % 4))} for a, b in pairs]


def chat_home(folder: Path, count: int = 60) -> Path:
    """The folder with a model (`model`) and rows (`rows.jsonl`) for a run of `chat_recipe`."""
    causal_folder(folder / "model", spread=0.2)
    write_rows(folder / "rows.jsonl", sums(count))
    return folder


def chat_recipe(model: Path, rows: Path, **changes: Any) -> dict[str, Any]:
    """A run of seconds; `changes` replace whole parts."""
    return {
        "model": str(model),
        "task": "chat",
        "data": {"train": str(rows), "validation": 0.2, "test": 0.3},
        "method": {"kind": "lora", "r": 4},
        "train": {"num_train_epochs": 2, "batch_size": 8, "learning_rate": 1e-2},
        "evaluate": {"max_new_tokens": 6, "few_shot": 2},
        **changes,
    }
