"""Scoring a run: the answers of every system to the same rows, and what they are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pegbox import runtime
from pegbox.data.records import Record
from pegbox.data.splits import Splits
from pegbox.errors import RecipeError
from pegbox.evaluation import systems
from pegbox.evaluation.details import details
from pegbox.evaluation.score import score
from pegbox.finished.run import Run
from pegbox.models import load as models
from pegbox.tasks import Predictions


def answer_all(run: Run, known: Splits, rows: Sequence[Record]) -> dict[str, Predictions]:
    """The answers of every system to the same rows, tuned last; one model is in memory at a time."""
    return ask_untouched(run, known, rows) | ask_tuned(run, rows)


def ask_untouched(run: Run, known: Splits, rows: Sequence[Record]) -> dict[str, Predictions]:
    """The answers of every system that does not need the tuned model.

    Of the splits that are `known`, rivals learn from train, and set what they choose on validation.
    """
    task, recipe = run.task, run.recipe
    tokens = recipe.evaluate.max_new_tokens
    assert tokens is not None
    k = recipe.evaluate.few_shot if task.zero_shot and task.few_shot else 0
    wanted = systems.choose_shots(task, known.train, rows, k, recipe.seed)
    room = models.max_length(run.base_folder) - tokens
    shots = systems.fitting_shots(task, wanted, rows, room)
    base = run.load_base(task.base_head)
    with runtime.autocast(base.device, runtime.use_bf16(base.device, recipe.train.bf16)):
        return systems.ask_base(task, base, known, rows, shots=shots, max_new_tokens=tokens)


def ask_tuned(run: Run, rows: Sequence[Record]) -> dict[str, Predictions]:
    """The tuned model's answers, and the same dealt out at random where that can be."""
    tuned = run.answers(rows)
    return {"tuned": tuned} | ({"permuted": systems.permuted(tuned, run.recipe.seed)} if run.task.permutes else {})


def predictions(run: Run, rows: Sequence[Record], answers: Mapping[str, Predictions]) -> list[dict[str, Any]]:
    """The lines of `predictions.jsonl`; `unit` says which rows were resampled as one, `group` whom a row is about."""
    units = systems.units(rows, run.recipe).tolist()
    sure = {name: given.probabilities for name, given in answers.items() if given.probabilities}
    return [
        {
            "id": row.where,
            "input": run.task.shown(row),
            "reference": run.task.reference(row),
            **run.task.beside(row),
            "unit": unit,
            "group": row.group if row.sensitive is None else row.sensitive,
            "answers": {name: given.answers[index] for name, given in answers.items()},
            **({"probabilities": {name: given[index] for name, given in sure.items()}} if sure else {}),
        }
        for index, (row, unit) in enumerate(zip(rows, units, strict=True))
    ]


def score_run(run: Run, lines: Sequence[Mapping[str, Any]] | None = None, metric: str | None = None) -> dict[str, Any]:
    """`evaluation.json` from saved predictions (the run's own, or other `lines`); `metric` replaces the primary."""
    given = list(lines if lines is not None else run.folder.read_lines("predictions.jsonl"))
    if not given:
        cure = f"finish the run with `pegbox train --resume {run.path}`"
        raise RecipeError("the run has no predictions", where=str(run.path), cure=cure)
    settings = run.recipe.evaluate
    assert settings.primary is not None and settings.metrics is not None
    task, seed, primary = run.recipe.task.kind, run.recipe.seed, metric or settings.primary
    found = score(task, given, primary=primary, metrics=settings.metrics, seed=seed)
    state = run.receipt["task"]
    return found | details(given, task=task, primary=primary, metrics=settings.metrics, state=state, seed=seed)
