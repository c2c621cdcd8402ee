"""Does reading on in a field help the task that comes after? MiniLM, the titles of diseases, and their chapters.

The titles of one part of the three-character categories are read (`masked_lm`); those of the rest are the task, a title's
chapter, learnt twice from the same rows by the same seed: from MiniLM as it is, and from what reading made of it. Nothing
of the task's titles was read. The two runs are compared as `pegbox compare` does, by category. Reading leaves MiniLM
without its pooler, which then is drawn anew; that is part of what is measured.

Writes `results/continued_pretraining.json`, whatever it says. Rows: `real_rows`. `--small` is a trial of a minute.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from real_rows import Row, titles

import pegbox
from pegbox.finished import Run
from pegbox.finished.comparing import compare
from pegbox.runs.folder import RunFolder

RESULTS = Path(__file__).parent / "results" / "continued_pretraining.json"
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
READ = 0.6  # share of the categories whose titles are read


@dataclass(frozen=True)
class Size:
    """How many titles are read, how often, and how many rows the task has, 40 % of them for the verdict."""

    read: int
    epochs: float
    rows: int


FULL, SMALL = Size(read=5000, epochs=2, rows=1500), Size(read=150, epochs=1, rows=150)


def divided(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The rows of the categories that are read, and those of the task, by a hash of the category."""
    first = [int(hashlib.sha256(row["group"].encode()).hexdigest()[:8], 16) < READ * 16**8 for row in rows]
    read, task = ([row for row, is_read in zip(rows, first, strict=True) if is_read == side] for side in (True, False))
    return read, task


def reading(rows: Path, size: Size) -> dict[str, Any]:
    """A rate and length usual for reading on (Gururangan et al. 2020 take 1e-4 and more), for a head that is new."""
    return {
        "model": ENCODER,
        "task": "masked_lm",
        "data": {"train": str(rows), "validation": 0.05, "test": 0.05, "columns": {"text": "text", "group": "group"}},
        "method": "full",
        "train": {"num_train_epochs": size.epochs, "learning_rate": 2e-4, "batch_size": 64, "eval_steps": 200},
    }


def task(model: str, rows: Path) -> dict[str, Any]:
    """The chapter of a title; the settings of `tables.py`."""
    return {
        "model": model,
        "task": "classification",
        "data": {"train": str(rows), "validation": 0.1, "test": 0.4, "columns": {"text": "text", "group": "group"}},
        "method": "full",
        "train": {"num_train_epochs": 3, "learning_rate": 2e-4, "batch_size": 32, "eval_steps": 40},
    }


def timed(recipe: dict[str, Any], folder: Path) -> tuple[Run, int]:
    """The run, and the seconds that it took."""
    began = time.perf_counter()
    return pegbox.train(recipe, run_dir=folder), round(time.perf_counter() - began)


def measure(size: Size, work: Path) -> dict[str, Any]:
    """Read, learn the task twice, compare."""
    read, rows = divided(titles())
    folder = RunFolder.create(work / "rows")
    folder.write_lines("read.jsonl", read[: size.read])
    folder.write_lines("task.jsonl", rows[: size.rows])
    reader, seconds = timed(reading(folder.path / "read.jsonl", size), work / "reading")
    made = {
        name: timed(task(model, folder.path / "task.jsonl"), work / name)
        for name, model in (("as it is", ENCODER), ("read on", str(reader.path)))
    }
    found = compare([run.path for run, _ in made.values()])
    return {
        "reading": {"seconds": seconds, "rows": reader.receipt["rows"], **facts(reader)},
        "task": {
            name: {"seconds": took, "rows": run.receipt["rows"], **facts(run)} for name, (run, took) in made.items()
        },
        "compared": {key: found[key] for key in ("primary", "rows", "units", "best", "differences", "reason")},
    }


def facts(run: Run) -> dict[str, Any]:
    """What the run says of itself."""
    return {key: run.evaluation[key] for key in ("primary", "systems", "comparison", "verdict")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a trial; prints and writes nothing")
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        found = measure(SMALL if settings.small else FULL, Path(work))
    about = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} CPU cores, shared; {torch.get_num_threads()} threads",
        "command": shlex.join(["python", "benchmarks/continued_pretraining.py", *sys.argv[1:]]),
    }
    text = json.dumps(about | found, indent=2, ensure_ascii=False) + "\n"
    print(text)
    if not settings.small:
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
