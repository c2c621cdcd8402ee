"""`pegbox demo`: a spoken command -> one JSON object, learnt by a 135M model in minutes on two CPU cores."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pegbox import pipeline
from pegbox.demo.house import INSTRUCTION, SPLITS, HouseRow, sample_rows
from pegbox.finished import Run
from pegbox.runs.folder import RunFolder

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
ROWS = {"train": 1200, "validation": 40, "test": 160}
SHOWN = 12


def recipe(rows: Path, language: str) -> dict[str, Any]:
    """The demo's recipe; the rows are already split by sentence template, which is their group."""
    return {
        "model": MODEL,
        "task": "chat",
        "data": {
            **{split: str(rows / f"{split}.jsonl") for split in SPLITS},
            "columns": {"prompt": "command", "completion": "answer", "group": "template"},
            "instruction": INSTRUCTION.get(language, INSTRUCTION["en"]),
        },
        "method": {"kind": "lora", "r": 16},
        "train": {"num_train_epochs": 1, "learning_rate": 3e-3, "batch_size": 8, "eval_steps": 30},
        "evaluate": {"primary": "exact_match"},
    }


def run_demo(language: str = "en", run_dir: Path | None = None) -> Run:
    """Sample the rows, train, evaluate, judge. Raises RecipeError for a language that cannot be sampled."""
    path = run_dir or Path(f"runs/demo-{time.strftime('%Y%m%d-%H%M%S')}")
    RunFolder.refuse_used(path)
    sample = sample_rows(language, ROWS)
    folder = RunFolder.create(path / "rows")
    for split in SPLITS:
        folder.write_lines(f"{split}.jsonl", [_row(row) for row in sample.split(split)])
    return pipeline.train(recipe(folder.path, language), run_dir=path / "run")


def _row(row: HouseRow) -> dict[str, Any]:
    return {
        "command": row.command,
        "answer": row.answer,
        "template": row.template,
        "unseen_names": row.unseen_names,
    }


def exact_by_names(run: Run) -> dict[str, tuple[int, int]]:
    """Exact answers and rows of the test commands, for names that training had and names it never had."""
    from pegbox.metrics import lookup

    lines = list(run.folder.read_lines("predictions.jsonl"))
    test = [json.loads(line) for line in Path(run.recipe.data.test[0]).read_text(encoding="utf-8").splitlines()]  # type: ignore[index]
    unseen = {row["command"]: row["unseen_names"] for row in test}
    right = lookup("exact_match").statistics([r["answers"]["tuned"] for r in lines], [r["reference"] for r in lines])
    counts = {"names seen in training": (0, 0), "names never seen": (0, 0)}
    for line, (hit, _) in zip(lines, right, strict=True):
        key = "names never seen" if unseen[line["input"]] else "names seen in training"
        counts[key] = (counts[key][0] + int(hit), counts[key][1] + 1)
    return counts


def dozen(run: Run) -> Sequence[dict[str, Any]]:
    """Twelve test rows, evenly spaced through the file: not chosen by score."""
    lines = list(run.folder.read_lines("predictions.jsonl"))
    return lines[:: max(1, len(lines) // SHOWN)][:SHOWN]
