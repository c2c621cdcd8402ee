"""Tiny random models of many kinds, for tests: two layers, 64 tokens of vocabulary, drawn anew in milliseconds.

Their matrices are three times as large as Transformers draws them: with the usual 0.02 a tiny model is close to linear,
attention is close to uniform, and a wrong mask would hardly show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BloomConfig,
    DistilBertConfig,
    Gemma2Config,
    GPT2Config,
    GptOssConfig,
    Lfm2Config,
    Llama4TextConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MPNetConfig,
    OPTConfig,
    PhimoeConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    RobertaConfig,
)

from pegbox.data.records import Example

VOCABULARY, POSITIONS = 64, 96
WINDOW = 5  # of the models with a sliding window: shorter than the rows of the tests

_size = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_decoder = {**_size, **_ids, "intermediate_size": 48, "max_position_embeddings": POSITIONS, "num_key_value_heads": 2}
_quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_encoder = {**_size, "intermediate_size": 48, "max_position_embeddings": POSITIONS, **_quiet}

CONFIGS: Mapping[str, Callable[..., PreTrainedConfig]] = {
    "llama": lambda **o: LlamaConfig(**{**_decoder, **o}),
    "qwen2": lambda **o: Qwen2Config(**{**_decoder, **o}),
    "mistral": lambda **o: MistralConfig(**{**_decoder, "sliding_window": WINDOW, **o}),
    "gemma2": lambda **o: Gemma2Config(**{**_decoder, "head_dim": 8, "sliding_window": WINDOW, **o}),
    "gpt_oss": lambda **o: GptOssConfig(**{**_decoder, "head_dim": 8, "num_local_experts": 4, **o}),
    "llama4": lambda **o: Llama4TextConfig(
        **{
            **_decoder,
            "head_dim": 8,
            "intermediate_size_mlp": 48,
            "num_local_experts": 2,
            "attention_chunk_size": 5,
            **o,
        }
    ),
    "phimoe": lambda **o: PhimoeConfig(**{**_decoder, "sliding_window": WINDOW, "num_local_experts": 2, **o}),
    "lfm2": lambda **o: Lfm2Config(**{**_decoder, "layer_types": ["conv", "full_attention"], **o}),
    "gpt2": lambda **o: GPT2Config(
        **{**_ids, "vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS, **o}
    ),
    "opt": lambda **o: OPTConfig(
        **{**_size, **_ids, "ffn_dim": 48, "max_position_embeddings": POSITIONS, "word_embed_proj_dim": 32, **o}
    ),
    "bloom": lambda **o: BloomConfig(
        **{**_ids, "vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4, **o}
    ),
    "mamba": lambda **o: MambaConfig(
        **{**_ids, "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, **o}
    ),
    "bert": lambda **o: BertConfig(**{**_encoder, **o}),
    "roberta": lambda **o: RobertaConfig(**{**_encoder, **o}),
    "mpnet": lambda **o: MPNetConfig(**{**_encoder, **o}),
    "distilbert": lambda **o: DistilBertConfig(
        **{"vocab_size": VOCABULARY, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4, "dropout": 0.0, **o},
        **{"attention_dropout": 0.0, "seq_classif_dropout": 0.0, "max_position_embeddings": POSITIONS},
    ),
}


def tiny(
    name: str, *, head: Any = AutoModelForCausalLM, seed: int = 0, dtype: torch.dtype = torch.float32, **options: Any
) -> Any:
    """The tiny model of this kind, in eval mode; `options` change its config.

    In float64 it is that throughout: Llama's kind of norm, which computes in float32 whatever it is given, is replaced.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = head.from_config(CONFIGS[name](**options))
    assert isinstance(model, PreTrainedModel)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    if dtype == torch.float64:
        make_double(model)
    return model.to(dtype).eval()


def make_double(model: Any) -> None:
    """Make the model compute in float64 throughout."""
    for module in model.modules():
        if type(module).__name__ in ("LlamaRMSNorm", "Qwen2RMSNorm", "MistralRMSNorm", "T5LayerNorm"):
            module.forward = partial(_norm, module)
    model.double()


def _norm(module: Any, x: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = module.weight * x * (x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon).rsqrt()
    return out


def tiny_classifier(name: str, **options: Any) -> Any:
    """The tiny model of this kind with a classification head."""
    return tiny(name, head=AutoModelForSequenceClassification, **options)


def save_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """A tokenizer of words `w3`, `w4`, ... (padding, BOS, EOS: 0, 1, 2) in the folder."""
    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{index}": index for index in range(3, VOCABULARY)}
    made = Tokenizer(WordLevel(words, unk_token="w3"))
    made.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    tokenizer.save_pretrained(folder)
    return tokenizer


def rows(lengths: Sequence[int], *, prefix: int = 0, seed: int = 0) -> list[tuple[int, ...]]:
    """Random token ids: one row a length, behind `prefix` tokens that all rows begin with."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCABULARY, (count,), generator=generator).tolist())

    shared = draw(prefix)
    return [shared + draw(length) for length in lengths]


def examples(lengths: Sequence[int], *, prefix: int = 0, seed: int = 0, untrained: int = 0) -> list[Example]:
    """Examples of such rows. All but the first `untrained` tokens are trained, with weights 1, 0.5, 1, 0.5, ..."""
    return [
        Example(f"row {index}", ids, tuple(0.0 if t < untrained else (1.0, 0.5)[t % 2] for t in range(len(ids))))
        for index, ids in enumerate(rows(lengths, prefix=prefix, seed=seed))
    ]
