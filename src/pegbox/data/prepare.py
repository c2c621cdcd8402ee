"""Step 1 of the five: from the recipe's sources to split, encoded, trusted rows, and the list of what is wrong.

What is prepared lies in a folder of the cache under a name made of all that decides what stands in it (`fingerprint`):
the next run with the same rows finds it there, and two that begin at once do not disturb each other.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pegbox.cache import built_once, cache_root
from pegbox.data.doctor.findings import Finding
from pegbox.data.fingerprint import fingerprint
from pegbox.data.formats import refuse_idle_roles
from pegbox.data.preparing import EXAMPLES, FOUND, RECORDS, ROWS, SIZES, Encoder, Preparation
from pegbox.data.records import Example
from pegbox.data.splits import SPLITS, Splits
from pegbox.data.store import Stored, load_example, load_record
from pegbox.recipe import Recipe

PREFIX = "rows-"
KEPT, HOUR = 16, 3600.0  # older folders are forgotten, but none that was used within the hour


@dataclass(frozen=True)
class Prepared:
    """Rows ready to be learnt and asked. The records and examples of a split stand in the same order.

    Train holds the rows that an epoch learns: those of a source of weight 2 twice. `shape`: what the rows look like.
    """

    splits: Splits
    train: Sequence[Example]
    validation: Sequence[Example]
    findings: tuple[Finding, ...]
    shape: Mapping[str, Any] = field(default_factory=dict)


def prepare(
    recipe: Recipe, task: Encoder, max_length: int, vocabulary: int | None = None, max_written: int | None = None
) -> Prepared:
    """Read, check, split and encode, or find it done. Nothing is trained on before the findings have been seen.

    `max_length` in tokens; `vocabulary`: how many token ids the model knows; `max_written`: the most tokens of a target
    that is written by another part than reads (None: not checked). Raises DataError with every error among the findings
    that the recipe does not allow.
    """
    refuse_idle_roles(recipe.task.kind, recipe.data.columns, recipe.data.format)
    preparation = Preparation(recipe, task, max_length, vocabulary, max_written)
    limits = {"max_length": max_length, "vocabulary": vocabulary, "max_written": max_written}
    name = fingerprint(recipe, encoder=task.fingerprint, **limits)
    folder = built_once(PREFIX + name, preparation.build)
    os.utime(folder)
    _forget_old()
    return _opened(folder, None if preparation.observed else task)


def _opened(folder: Path, unaware: Encoder | None) -> Prepared:
    """What a preparation left; `unaware`: a task that has not seen the records yet."""
    records = Stored.open(folder / RECORDS, load_record)
    with np.load(folder / SIZES, allow_pickle=False) as sizes:
        examples = Stored.open(folder / EXAMPLES, load_example, dict(sizes))
    found = json.loads((folder / FOUND).read_bytes())
    if unaware is not None:
        unaware.observe(records[: found["read"]])
    with np.load(folder / ROWS, allow_pickle=False) as rows:
        kept = records.take(rows["kept"])
        sides = {name: kept.take(rows[name]) for name in (*SPLITS, "left_out")}
        train, validation = examples.take(rows["train"]), examples.take(rows["validation"])
    findings = tuple(Finding.from_json(finding) for finding in found["findings"])
    return Prepared(Splits(**sides), train, validation, findings, found["shape"])


def _forget_old() -> None:
    """Delete the prepared rows that were not used for the longest time. Files that are open stay readable."""
    used = {path: _last_used(path) for path in cache_root().glob(f"{PREFIX}*")}
    for path in sorted(used, key=used.__getitem__, reverse=True)[KEPT:]:
        if used[path] < time.time() - HOUR:
            shutil.rmtree(path, ignore_errors=True)


def _last_used(path: Path) -> float:
    """When; now for a folder that another process has just deleted."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
