"""MiniLM tuned on real rows, beside all its rivals: one run a set, whatever comes out.

Writes `results/tables.json` (runs of sets that are not named stay as they are) and, from it, `tables.md`. The settings
are one for all sets: the learning rate and batch size of `pegbox demo --task classification`, chosen on rows of `films`
that stand in no table (those after the first 4,000). Rows and epochs of a set are what three minutes allow on two cores.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import real_rows
import torch

import pegbox
from pegbox.runs.folder import RunFolder

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "tables.json"
PAGE = HERE / "tables.md"
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
KEPT = ("primary", "rows", "systems", "comparison", "verdict", "reason")  # of an evaluation
COLUMNS = {
    "classification": {"text": "text", "label": "label"},
    "regression": {"text": "text", "score": "score"},
    "token_classification": {"tokens": "tokens", "tags": "tags"},
}


@dataclass(frozen=True)
class Table:
    """How much of a set is used: its first `rows` (all of them, shuffled, where it has fewer), and for how long."""

    task: str
    rows: int
    epochs: int


TABLES: Mapping[str, Table] = MappingProxyType(
    {
        "films": Table("classification", 4000, 2),
        "titles": Table("classification", 4000, 3),
        "clauses": Table("classification", 3000, 2),
        "intents": Table("classification", 3000, 3),
        "tweets": Table("regression", 4200, 2),
        "slots": Table("token_classification", 3000, 3),
    }
)


def recipe(name: str, rows: Path, grouped: bool) -> dict[str, Any]:
    """A third of the rows is for the verdict, a tenth for validation; groups are never divided."""
    table = TABLES[name]
    columns = COLUMNS[table.task] | ({"group": "group"} if grouped else {})
    return {
        "model": ENCODER,
        "task": table.task,
        "data": {"train": str(rows), "validation": 0.1, "test": 0.33, "columns": columns},
        "method": "full",
        "train": {"num_train_epochs": table.epochs, "learning_rate": 3e-4, "batch_size": 32, "eval_steps": 40},
    }


def measure(name: str) -> dict[str, Any]:
    """Train and judge on one set; all systems with their intervals, and how long it took."""
    rows = real_rows.SETS[name]()[: TABLES[name].rows]
    with tempfile.TemporaryDirectory() as work:
        folder = RunFolder.create(Path(work) / "rows")
        folder.write_lines("rows.jsonl", rows)
        began = time.perf_counter()
        run = pegbox.train(recipe(name, folder.path / "rows.jsonl", "group" in rows[0]), run_dir=Path(work) / "run")
        seconds = time.perf_counter() - began
        splits = Counter(line["split"] for line in run.folder.read_lines("splits.jsonl"))
        found = run.evaluation
    return {
        **circumstances(),
        "seconds": round(seconds),
        "task": TABLES[name].task,
        "epochs": TABLES[name].epochs,
        "splits": dict(splits),
        **{key: found[key] for key in KEPT},
    }


def circumstances() -> dict[str, str]:
    """When, on what and by which command something is measured."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} CPU cores, shared; torch on {torch.get_num_threads()}",
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
    }


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The results in Markdown."""
    lines = ["# Tuned beside its rivals, on real rows", ""]
    lines += [
        f"Made by `benchmarks/tables.py` from `results/tables.json`. Model: {ENCODER}, all weights tuned, seed 42."
    ]
    lines += ["95 % intervals in brackets; where the rows come from, and under which licence: `real_rows.py`.", ""]
    for name in TABLES:
        if name in results:
            lines += [*_section(name, results[name]), ""]
    return "\n".join(lines)


def _section(name: str, found: Mapping[str, Any]) -> list[str]:
    first = found["primary"]
    metrics = list(dict.fromkeys([first, *found["systems"]["tuned"]]))
    told = " ".join(((getattr(real_rows, name).__doc__ or "").split("\n")[0]).split())
    least, splits = found["comparison"], found["splits"]
    counts = ", ".join(f"{splits[split]:,} {split}" for split in ("train", "validation", "test"))
    lines = [f"## `{name}`: {found['task']}", "", f"{told} {counts} rows, {found['epochs']} epochs.", ""]
    lines += [f"| system | {' | '.join(metrics)} |", f"|---|{'---|' * len(metrics)}"]
    for system in sorted(found["systems"], key=lambda name: name == "tuned"):
        scores = found["systems"][system]
        lines.append(f"| {system} | {' | '.join(cell(scores.get(metric)) for metric in metrics)} |")
    lines += ["", f"**{found['verdict']}**: tuned - {least['against']} (least favourable), {first}: {cell(least)}."]
    lines += ["", f"{found['date']}, {found['seconds']} s on {found['machine']}: `{found['command']}`"]
    return lines


def cell(score: Mapping[str, Any] | None) -> str:
    """A value, or a difference, with its interval where it has one."""
    value = None if score is None else score.get("value", score.get("difference"))
    if score is None or value is None:
        return ""
    low, high = score.get("low"), score.get("high")
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} ({low:.3f} .. {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", default=list(TABLES), help=f"of {', '.join(TABLES)}; default: all")
    names = parser.parse_args().sets
    if unknown := set(names) - set(TABLES):
        parser.error(f"no such set: {', '.join(sorted(unknown))}")
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in names:
        results[name] = measure(name)
        RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        PAGE.write_text(page(results), encoding="utf-8")
        print(f"{name}: {results[name]['verdict']}, {results[name]['seconds']} s")


if __name__ == "__main__":
    main()
