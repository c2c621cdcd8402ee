"""Whole runs in which there is nothing to learn, on real models and real rows: how often is "better" said?

`labels`: MiniLM learns the intent of a house command from shuffled labels, one run a seed. `demo`: the demo itself with
the answers of its training and validation rows shuffled. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pegbox
from pegbox.demo.house import SPLITS, sample_rows
from pegbox.demo.run import ROWS, recipe, row_of
from pegbox.runs.folder import RunFolder

INTENTS = ("HassGetState", "HassIncreaseTimer", "HassTurnOff", "HassTurnOn")
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"


def shuffled(rows: Sequence[Mapping[str, Any]], key: str, seed: int) -> list[dict[str, Any]]:
    values = [row[key] for row in rows]
    random.Random(seed).shuffle(values)
    return [{**row, key: value} for row, value in zip(rows, values, strict=True)]


def labels(folder: Path, seed: int) -> str:
    """One run of MiniLM on 240 rows whose labels are shuffled, 80 of them for the verdict."""
    drawn = sample_rows("en", {"train": 700}, seed=seed).split("train")
    rows = [{"text": row.command, "label": row.intent} for row in drawn if row.intent in INTENTS][:240]
    RunFolder.create(folder / "rows").write_lines("rows.jsonl", shuffled(rows, "label", seed))
    run = pegbox.train(
        {
            "model": ENCODER,
            "task": "classification",
            "data": {"train": str(folder / "rows" / "rows.jsonl"), "validation": 0.15, "test": 0.35},
            "method": "full",
            "train": {"num_train_epochs": 2, "learning_rate": 5e-5, "batch_size": 16},
            "seed": seed,
        },
        run_dir=folder / "run",
    )
    return run.verdict


def demo(folder: Path) -> dict[str, Any]:
    """The demo on shuffled answers; the test rows stay as they are."""
    sample = sample_rows("en", ROWS)
    rows = RunFolder.create(folder / "rows")
    for split in SPLITS:
        lines = [row_of(row) for row in sample.split(split)]
        rows.write_lines(f"{split}.jsonl", lines if split == "test" else shuffled(lines, "answer", 1))
    run = pegbox.train(recipe(rows.path, "en"), run_dir=folder / "run")
    return {"verdict": run.verdict, "comparison": run.evaluation["comparison"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["labels", "demo"])
    parser.add_argument("--seeds", type=int, default=20)
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if settings.what == "demo":
            print(json.dumps(demo(Path(folder))))
        else:
            verdicts = Counter(labels(Path(folder) / str(seed), seed) for seed in range(settings.seeds))
            print(json.dumps({"runs": settings.seeds, "verdicts": verdicts}))


if __name__ == "__main__":
    main()
