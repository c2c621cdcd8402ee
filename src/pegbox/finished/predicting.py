"""Batch predictions: a file of rows in, a file of answers out."""

from __future__ import annotations

from pathlib import Path

from pegbox.data.sources import read_all
from pegbox.errors import RecipeError
from pegbox.finished.run import Run
from pegbox.runs.folder import RunFolder


def predict(run_dir: str | Path, data: str, out: Path) -> int:
    """Answer the rows of a file with the tuned model, into a new JSONL file; returns their number.

    Raises DataError for rows that cannot be read, RecipeError where `out` exists already.
    """
    if out.exists():
        raise RecipeError("the file exists already", where=str(out), cure="give a new name with --out")
    run = Run(run_dir)
    records = [run.task_record(row) for row in read_all([data])]
    answers = run.answers(records).answers
    lines = [
        {"id": record.where, "input": run.task.shown(record), "answer": answer}
        for record, answer in zip(records, answers, strict=True)
    ]
    RunFolder(out.parent).write_lines(out.name, lines)
    return len(lines)
