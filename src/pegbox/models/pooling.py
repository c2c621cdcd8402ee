"""From the hidden states of a text's tokens to the text's one vector: mean, first token (`cls`) or last.

In a batch the tokens that are pooled are its `places`, and `targets` says of which text each is. So padding, packing and a
shared beginning make no difference, and a mean divides by the tokens that are there.

On disk: sentence-transformers' layout (`modules.json` and what it names), by which that library loads the folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from pegbox.data.records import Example
from pegbox.models.batch import Batch, at_least_float32
from pegbox.models.outputs import hidden_states

PLACES = {"cls": 0, "last": -1}  # where one token alone is pooled
IN_LAYOUT = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}
MODULES = "sentence_transformers.models"


def separate(example: Example) -> list[Example]:
    """The texts of an example, each by itself."""
    ends = list(accumulate(example.lengths))
    spans = [slice(end - length, end) for end, length in zip(ends, example.lengths, strict=True)]
    return [Example(example.where, example.input_ids[s], token_type_ids=example.token_type_ids[s]) for s in spans]


def marked(texts: Sequence[Example], pooling: str) -> list[Example]:
    """The texts, each with a weight on the tokens that are pooled, and on every token its own number among the texts."""
    found = []
    for number, text in enumerate(texts):
        weights = [float(pooling == "mean")] * len(text)
        if pooling in PLACES:
            weights[PLACES[pooling]] = 1.0
        found.append(replace(text, loss_weights=tuple(weights), token_labels=(number,) * len(text)))
    return found


def keys(texts: Sequence[Example]) -> torch.Tensor:
    """int64 [t]: a number for each text that only equal texts share (by a hash of 64 bits), the same on every rank."""
    digests = (hashlib.blake2b(" ".join(map(str, text.input_ids)).encode(), digest_size=8).digest() for text in texts)
    return torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests])


def vectors(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The vectors [t, D], in at least float32, of the texts of a batch that was made of `marked` ones and has their `keys`."""
    assert batch.keys is not None
    tokens = at_least_float32(hidden_states(model, batch)[batch.places])
    counts = torch.bincount(batch.targets, minlength=len(batch.keys))
    summed = tokens.new_zeros(len(batch.keys), tokens.shape[1]).index_add(0, batch.targets, tokens)
    return summed / counts[:, None]


def save_layout(folder: Path, *, pooling: str, width: int, max_length: int | None) -> None:
    """Write what sentence-transformers reads beside a model: how it is pooled, and that cosines are compared.

    `width`: of a vector; `max_length`: the most tokens of a text that are read (None: the model's limit).
    """
    modes: dict[str, Any] = {f"pooling_mode_{mode}": name == pooling for name, mode in IN_LAYOUT.items()}
    told: dict[str, Any] = {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": f"{MODULES}.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{MODULES}.Pooling"},
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": width} | modes,
        "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "__version__": {},
            "prompts": {},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    }
    for name, content in told.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
