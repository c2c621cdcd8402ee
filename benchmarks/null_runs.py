"""Whole runs in which there is nothing to learn: how often is "better" said?

`labels`: MiniLM learns the intent of a house command from shuffled labels, one run a seed. `demo`: the demo itself with
the answers of its training and validation rows shuffled. Both print JSON. `tasks`: every task with tiny models on the rows
of `null_rows`, one run a task and seed, in one process; writes `results/null_tasks.json` after each run, and with
`--resume` goes on from there.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import null_rows
import torch

import pegbox
from pegbox.demo.house import SPLITS, sample_rows
from pegbox.demo.run import ROWS, recipe, row_of
from pegbox.runs.folder import RunFolder

INTENTS = ("HassGetState", "HassIncreaseTimer", "HassTurnOff", "HassTurnOn")
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
RESULTS = Path(__file__).parent / "results" / "null_tasks.json"
PARTS = {"train": 200, "validation": 50, "test": 150}


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


def one_task(task: str, folder: Path, seed: int) -> dict[str, Any]:
    """One run of a task on rows with nothing to learn; its verdict, and how far tuned is ahead of its nearest rival."""
    model, rows_of = null_rows.TASKS[task]
    rows, files = rows_of(sum(PARTS.values()), random.Random(f"{task} {seed}")), {}
    given = RunFolder.create(folder / "rows")
    for split, count in PARTS.items():
        given.write_lines(f"{split}.jsonl", rows[:count])
        files[split], rows = str(given.path / f"{split}.jsonl"), rows[count:]
    run = pegbox.train(
        {
            "model": str(model(folder / "model", seed)),
            "task": task,
            "data": files,
            "method": "full",
            "train": {"num_train_epochs": 10, "learning_rate": 3e-3, "batch_size": 16, "report_to": []},
            "seed": seed,
        },
        run_dir=folder / "run",
    )
    nearest = run.evaluation["comparison"]
    told = {key: nearest[key] for key in ("against", "metric", "difference", "low", "high")}
    return {"seed": seed, "verdict": run.verdict, **told}


def tasks(names: Sequence[str], seeds: int, done: dict[str, Any]) -> dict[str, Any]:
    """All runs that are not `done`, each shown and written as it ends."""
    before, began = done.get("seconds", 0), time.perf_counter()
    runs: dict[str, list[dict[str, Any]]] = done.get("runs", {})
    for task in names:
        known = runs.setdefault(task, [])
        for seed in sorted(set(range(seeds)) - {run["seed"] for run in known}):
            with tempfile.TemporaryDirectory() as folder:
                known.append(one_task(task, Path(folder), seed))
            print(json.dumps({"task": task, **known[-1]}), flush=True)
            done = _tasks_so_far(runs, before + time.perf_counter() - began)
            RESULTS.write_text(_lines(done), encoding="utf-8")
    return done


def _tasks_so_far(runs: Mapping[str, list[dict[str, Any]]], seconds: float) -> dict[str, Any]:
    verdicts = {task: dict(Counter(run["verdict"] for run in found)) for task, found in runs.items()}
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": f"{os.cpu_count()} CPU cores, shared; torch on {torch.get_num_threads()}",
        "command": shlex.join(["python", "benchmarks/null_runs.py", *sys.argv[1:]]),
        "seconds": round(seconds),
        "rows": PARTS,
        "verdicts": verdicts,
        "all": dict(sum(map(Counter, verdicts.values()), Counter[str]())),
        "runs": runs,
    }


def _lines(found: Mapping[str, Any]) -> str:
    """As JSON with one line a run."""
    parts = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in found.items() if key != "runs"]
    runs = [
        f"  {json.dumps(task)}: [\n   " + ",\n   ".join(map(json.dumps, given)) + "\n  ]"
        for task, given in found["runs"].items()
    ]
    return "{\n" + ",\n".join([*parts, ' "runs": {\n' + ",\n".join(runs) + "\n }"]) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["labels", "demo", "tasks"])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--task", nargs="*", default=list(null_rows.TASKS), choices=list(null_rows.TASKS))
    parser.add_argument("--resume", action="store_true", help="of `tasks`: keep the runs that stand in the results")
    settings = parser.parse_args()
    if settings.what == "tasks":
        done = json.loads(RESULTS.read_text(encoding="utf-8")) if settings.resume and RESULTS.exists() else {}
        found = tasks(settings.task, settings.seeds, done)
        print(json.dumps({key: found[key] for key in ("verdicts", "all", "seconds")}))
        return
    with tempfile.TemporaryDirectory() as folder:
        if settings.what == "demo":
            print(json.dumps(demo(Path(folder))))
        else:
            verdicts = Counter(labels(Path(folder) / str(seed), seed) for seed in range(settings.seeds))
            print(json.dumps({"runs": settings.seeds, "verdicts": verdicts}))


if __name__ == "__main__":
    main()
