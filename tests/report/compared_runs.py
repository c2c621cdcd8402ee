"""Finished runs for a comparison, written by hand: rows, the tuned model's answers, who belongs together, who learnt what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from made_run import make_run, recipe_of

FILE, DIGEST = "/rows/rows.jsonl", "1840ff8e" * 8


def line(
    number: int, answer: Any, *, unit: int | None = None, reference: Any = None, file: str = FILE
) -> dict[str, Any]:
    """One test row of `predictions.jsonl`, the `number`-th line of the file; by default "right" is right."""
    return {
        "id": f"{file}:{number}",
        "input": f"question {number}",
        "reference": "right" if reference is None else reference,
        "unit": number if unit is None else unit,
        "answers": {"trivial": "none", "tuned": answer},
    }


def lines(right: Sequence[bool] | np.ndarray, **more: Any) -> list[dict[str, Any]]:
    """Rows 1 to n, answered rightly where `right` says so."""
    return [line(number, "right" if ok else "wrong", **more) for number, ok in enumerate(right, start=1)]


def run(
    path: Path,
    given: Sequence[Mapping[str, Any]],
    *,
    task: str = "chat",
    primary: str = "exact_match",
    metrics: Sequence[str] = (),
    train: Sequence[str] = (),
    groups: Mapping[str, str] | None = None,
    data: Mapping[str, str] | None = None,
    recipe: Mapping[str, Any] | None = None,
    **receipt: Any,
) -> Path:
    """A run folder. `train`: ids of training rows; `groups`: by id; `data`: files and their hashes, the first being train's."""
    files = dict(data or {FILE: DIGEST})
    made = recipe_of(task, primary, *metrics, **({"data": {"train": next(iter(files))}} | dict(recipe or {})))
    folder = make_run(path, made, given, {"verdict": "better"}, data=files, **receipt)
    sides = [*((row, "train") for row in train), *((row["id"], "test") for row in given)]
    folder.write_lines(
        "splits.jsonl", [{"id": row, "split": side, "group": (groups or {}).get(row)} for row, side in sides]
    )
    return path


def skilled(rng: np.random.Generator, rows: int, share: float) -> np.ndarray:
    """Which rows a model of that skill answers rightly."""
    return rng.random(rows) < share
