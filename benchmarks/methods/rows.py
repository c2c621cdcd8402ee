"""The rows of the study: tweets with three labels (`pegbox.demo.opinions`), in four files that no near twin joins.

    train       what every run learns from
    validation  what it chooses its best checkpoint by
    choice      what a method's learning rate is chosen by
    test        what the table is about

pegbox's own splits are taken, twice: they keep twins together and leave out what stands between two sides.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from designs import ENCODER

from pegbox import pipeline
from pegbox.demo.opinions import opinion
from pegbox.demo.ratings import rated
from pegbox.recipe import load as load_recipe
from pegbox.runs.checkpoint import sha256
from pegbox.runs.folder import RunFolder

CHOICE, TEST, VALIDATION = 0.16, 0.36, 0.2  # of all rows, of all rows, of what these leave
FILES = ("train", "validation", "choice", "test")


def write(path: Path, count: int) -> dict[str, Any]:
    """Write the four files of the first `count` rows; how many rows each has, and its SHA-256."""
    path.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(path)
    drawn = [{"text": one.text, "label": opinion(one)} for one in rated("tweets")]
    random.Random(42).shuffle(drawn)
    rest, choice, test = _split(folder, drawn[:count], 1, validation=CHOICE, test=TEST)
    folder.write_lines("test.jsonl", test)
    folder.write_lines("choice.jsonl", choice)
    train, validation, _ = _split(folder, rest, 2, validation=VALIDATION, test=str(path / "test.jsonl"))
    folder.write_lines("train.jsonl", train)
    folder.write_lines("validation.jsonl", validation)
    counts = dict(zip(FILES, map(len, (train, validation, choice, test)), strict=True))
    return {name: {"rows": counts[name], "sha256": sha256(path / f"{name}.jsonl")} for name in FILES}


def _split(folder: RunFolder, rows: list[dict[str, Any]], seed: int, **sides: Any) -> list[list[dict[str, Any]]]:
    """The rows of train, validation and test as pegbox divides them; by the same seed twice they would all fall alike."""
    file = folder.write_lines("undivided.jsonl", rows)
    asked = {"model": ENCODER, "task": "classification", "data": {"train": str(file), **sides}, "seed": seed}
    found = pipeline.read_rows(load_recipe(asked))[2].splits
    file.unlink()
    return [
        [rows[int(record.where.rpartition(":")[2]) - 1] for record in side if record.where.startswith(str(file))]
        for side in (found.train, found.validation, found.test)
    ]
