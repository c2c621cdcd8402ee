"""A tiny random model with a real tokenizer in a folder of the hub's layout, and files of rows, for whole runs in seconds."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from small_tokenizers import tokenizer
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM


def causal_folder(folder: Path, *, dtype: torch.dtype = torch.float32, dropout: float = 0.0) -> Path:
    """A two-layer Llama with a ChatML template."""
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
        eos_token_id=made.eos_token_id,
        pad_token_id=made.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def encoder_folder(folder: Path) -> Path:
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
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertForSequenceClassification(config).bert.save_pretrained(folder)
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
