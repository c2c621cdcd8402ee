"""Rows for every kind of task that a tiny model learns by heart, and runs on them, for tests over all tasks at once.

What is right follows from the words of a text, so that a row that is given another's answer cannot be learnt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from tiny_folder import causal_folder, encoder_decoder_folder, encoder_folder, write_rows
from tiny_masked import masked_folder

Rows = list[dict[str, Any]]

VALUES = {
    "light": 3.0,
    "timer": -2.0,
    "fox": 1.0,
    "user": -0.5,
    "kitchen": 1.5,
    "dog": -1.0,
    "world": 0.5,
    "system": -2,
}
AREAS, THINGS = ("kitchen", "dog", "world", "system"), ("light", "timer", "fox", "user")
BEFORE = ("", "hello ", "set ", "turn ", "two ", "brown ", "lazy ", "quick ", "over ", "answer ")
SPREAD = 0.5  # of a tiny model's matrices: with a frozen tied embedding of the usual 0.02 no logit could be large

# a kind of model -> what writes its folder
MODELS: Mapping[str, Callable[[Path], Path]] = {
    "bert": lambda folder: encoder_folder(folder, spread=SPREAD),
    "masked bert": lambda folder: masked_folder(folder, spread=SPREAD),
    "masked bert with its head": lambda folder: masked_folder(folder, head=True, spread=SPREAD),
    "llama": lambda folder: causal_folder(folder, spread=SPREAD),
    "t5": encoder_decoder_folder,
    "bart": lambda folder: encoder_decoder_folder(folder, "bart"),
    "t5 that writes": lambda folder: encoder_decoder_folder(folder, tied=False),
    "bart that writes": lambda folder: encoder_decoder_folder(folder, "bart", tied=False),
}


def asked(count: int) -> list[tuple[str, str, str]]:
    """Different texts, each with its thing and its area."""
    found = []
    for before, other, (thing, area) in product(BEFORE, (False, True), product(THINGS, AREAS)):
        long = (len(found) % len(THINGS) ** 2 % 3 > 0) != other
        found.append((f"{before}the {thing} in the {area}" if long else f"{before}{area} {thing}", thing, area))
    return found[:count]


def tagged(text: str) -> dict[str, Any]:
    kinds = dict.fromkeys(THINGS, "B-thing") | dict.fromkeys(AREAS, "B-area")
    return {"tokens": text.split(), "tags": [kinds.get(word, "O") for word in text.split()]}


def labels_of(thing: str, area: str) -> list[str]:
    return [name for name in ("light", "timer", "dog", "kitchen") if name in (thing, area)]


def repeated(words: Sequence[str], count: int, shortest: int) -> Rows:
    """Texts of one word each, so that any of its words tells all others."""
    return [{"text": " ".join([words[n % len(words)]] * (shortest + n // len(words)))} for n in range(count)]


def spelt(count: int) -> Rows:
    """Texts of which (as far as the letters reach) the first character tells all that follows, and how long they are."""
    return [{"text": " ".join([f"{chr(ord('A') + n % 26)}{n // 26 or ''}"] * (2 + n % 4))} for n in range(count)]


# a form of rows -> the task that learns it, the roles that hold the answer, and `count` rows
FORMS: Mapping[str, tuple[str, tuple[str, ...], Callable[[int], Rows]]] = {
    "classification": (
        "classification",
        ("label",),
        lambda count: [{"text": text, "label": thing} for text, thing, _ in asked(count)],
    ),
    "multilabel": (
        "multilabel",
        ("labels",),
        lambda count: [{"text": text, "labels": labels_of(thing, area)} for text, thing, area in asked(count)],
    ),
    "regression": (
        "regression",
        ("score",),
        lambda count: [{"text": text, "score": VALUES[thing] + VALUES[area]} for text, thing, area in asked(count)],
    ),
    "token_classification": (
        "token_classification",
        ("tags",),
        lambda count: [tagged(text) for text, _, _ in asked(count)],
    ),
    "pairs": (
        "embedding",
        ("text_pair",),
        lambda count: [
            {"text": text, "text_pair": f"{area} {thing} {n}"} for n, (text, thing, area) in enumerate(asked(count))
        ],
    ),
    "scored pairs": (
        "embedding",
        ("score",),
        lambda count: [
            {"text": text, "text_pair": f"{area} {n}", "score": VALUES[thing]}
            for n, (text, thing, area) in enumerate(asked(count))
        ],
    ),
    "masked_lm": ("masked_lm", (), lambda count: repeated(("the", "fox", "dog", "to"), count, 4)),
    "chat": (
        "chat",
        ("completion",),
        lambda count: [{"prompt": text, "completion": thing} for text, thing, _ in asked(count)],
    ),
    "completion": (
        "completion",
        ("completion",),
        lambda count: [{"prompt": text, "completion": f" {thing}"} for text, thing, _ in asked(count)],
    ),
    "plain text": ("completion", (), spelt),
    "seq2seq": (
        "seq2seq",
        ("target",),
        lambda count: [{"source": text, "target": f"{area} {thing}"} for text, thing, area in asked(count)],
    ),
}


# forms in which the loss and the answer of a row hang on the rows beside it
JOINT = ("pairs",)
ALONE = tuple(form for form in FORMS if form not in JOINT)


def questions(form: str, rows: Rows) -> Rows:
    """The rows without their answers."""
    return [{role: value for role, value in row.items() if role not in FORMS[form][1]} for row in rows]


def by_heart(form: str, model: Path, method: str, folder: Path, **train: Any) -> dict[str, Any]:
    """A recipe that learns 16 rows and is judged by the same: train, validation and test are one file in `folder`."""
    kind, _, rows = FORMS[form]
    file = str(write_rows(folder / f"{form.replace(' ', '-')}.jsonl", rows(16)))
    return {
        "model": str(model),
        "task": kind,
        "data": {"train": file, "validation": file, "test": file, "allow": ["leak"]},
        "method": {"kind": "lora", "r": 8} if method == "lora" else "full",
        "train": {"batch_size": 16, "report_to": [], **train},
        "evaluate": {"few_shot": 0},
    }


def same(one: Any, other: Any) -> bool:
    """Equal, numbers to five digits."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-6)
    return bool(one == other)
