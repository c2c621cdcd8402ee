"""Tiny masked language models of many kinds, and folders of them with a tokenizer that has a mask token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from small_tokenizers import tokenizer
from transformers import (
    AlbertConfig,
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    DebertaV2Config,
    ElectraConfig,
    EsmConfig,
    ModernBertConfig,
)

from tiny_models import CONFIGS, POSITIONS, VOCABULARY

SIZES = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"intermediate_size": 48, "max_position_embeddings": POSITIONS, "pad_token_id": 0}
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
MASKED: dict[str, Callable[..., Any]] = {name: CONFIGS[name] for name in ("bert", "roberta", "mpnet", "distilbert")} | {
    "modernbert": lambda **o: ModernBertConfig(**SIZES, **ENDS, **o),
    "albert": lambda **o: AlbertConfig(**SIZES, embedding_size=16, **o),
    "electra": lambda **o: ElectraConfig(**SIZES, embedding_size=16, **o),
    "deberta": lambda **o: DebertaV2Config(**SIZES, **o),
    "newer deberta": lambda **o: DebertaV2Config(**SIZES, legacy=False, **o),  # its head looks up the embeddings
    "esm": lambda **o: EsmConfig(**SIZES, mask_token_id=5, **o),
}


def masked(name: str, **options: Any) -> Any:
    """The tiny model of this kind with its head, in float64; large matrices show what small ones would not."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForMaskedLM.from_config(MASKED[name](**options)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return model


def masked_folder(folder: Path, *, head: bool = False, spread: float = 0.02) -> Path:
    """A two-layer BERT with a word-piece tokenizer that has a mask token; with its head or without.

    `spread`: the standard deviation of its random matrices.
    """
    made = tokenizer("wordpiece")
    made.add_special_tokens({"mask_token": "[MASK]"})
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(
        **{**SIZES, "vocab_size": len(made), "max_position_embeddings": 64}, **quiet, initializer_range=spread
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForMaskedLM(config)
    (model if head else model.bert).save_pretrained(folder)
    made.save_pretrained(folder)
    return folder
