"""`pegbox demo`: a spoken command -> one JSON object, learnt by a 135M model in minutes on two CPU cores."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pegbox import pipeline
from pegbox.demo.house import INSTRUCTION, SPLITS, HouseRow, sample_rows
from pegbox.finished import Run
from pegbox.metrics import lookup
from pegbox.runs.folder import RunFolder

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
ROWS = {"train": 1500, "validation": 40, "test": 128}


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
        "train": {"num_train_epochs": 1, "learning_rate": 2e-3, "batch_size": 8, "eval_steps": 47},
        "evaluate": {"primary": "exact_match"},
    }


def run_demo(language: str = "en", run_dir: Path | None = None) -> Run:
    """Sample the rows, train, evaluate, judge. Raises RecipeError for a language that cannot be sampled."""
    path = unused(run_dir)
    sample = sample_rows(language, ROWS)
    folder = RunFolder.create(path / "rows")
    for split in SPLITS:
        folder.write_lines(f"{split}.jsonl", [row_of(row) for row in sample.split(split)])
    return pipeline.train(recipe(folder.path, language), run_dir=path / "run")


def unused(run_dir: Path | None) -> Path:
    """The demo's folder, by default one named by the time. Raises RecipeError where it holds something."""
    path = run_dir or Path(f"runs/demo-{time.strftime('%Y%m%d-%H%M%S')}")
    RunFolder.refuse_used(path)
    return path


def row_of(row: HouseRow) -> dict[str, Any]:
    """A row as it stands in the demo's files."""
    return {
        "command": row.command,
        "answer": row.answer,
        "template": row.template,
        "unseen_names": row.unseen_names,
    }


@dataclass(frozen=True)
class Asked:
    """One test command: its line of `predictions.jsonl`, whether tuned was right, whether it has a name never trained."""

    line: dict[str, Any]
    right: bool
    unseen_names: bool


def asked(run: Run) -> list[Asked]:
    """All test commands of a finished demo, in the order of the file."""
    lines = list(run.folder.read_lines("predictions.jsonl"))
    rows = {row["command"]: row for row in RunFolder(run.path.parent / "rows").read_lines("test.jsonl")}
    answers = [line["answers"]["tuned"] for line in lines]
    hits = lookup("exact_match").statistics(answers, [line["reference"] for line in lines])[:, 0]
    return [Asked(line, bool(hit), rows[line["input"]]["unseen_names"]) for line, hit in zip(lines, hits, strict=True)]
