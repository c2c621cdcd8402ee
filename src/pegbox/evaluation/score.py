"""From answers to `evaluation.json`: every metric of every system with its interval, and the verdict on the primary."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pegbox.data.records import Record
from pegbox.errors import RecipeError
from pegbox.evaluation.verdict import TUNED, interval_of, judge, to_json
from pegbox.metrics import FloatArray, Metric, line_statistics, lookup, own_metrics
from pegbox.tasks import Predictions, Task


def score(
    task: str,
    lines: Sequence[Mapping[str, Any]],
    *,
    primary: str,
    metrics: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """The contents of `evaluation.json`, from the lines of `predictions.jsonl`.

    Raises RecipeError where `tuned` has no rival or a metric is unknown or does not fit the task.
    """
    metric, units = lookup(primary, where="evaluate.primary"), np.array([line["unit"] for line in lines])
    refuse_undecided(metric)
    statistics = {name: rows for name, rows in line_statistics(metric, lines).items() if _has(metric, name, rows)}
    if len(statistics) < 2 or TUNED not in statistics:
        raise RecipeError("a verdict needs the tuned model and a rival", where="evaluate")
    verdict = judge(metric, statistics, units, seed=seed)
    own, signatures = own_metrics((primary, *metrics)), _signatures((primary, *metrics))
    result = {"task": task, **verdict.to_json(), **({"own_metrics": own} if own else {})}
    result |= {"signatures": signatures} if signatures else {}
    for name in metrics:
        if name != primary:
            other = lookup(name, where="evaluate.metrics")
            for system, found in line_statistics(other, lines, list(statistics)).items():
                result["systems"][system][other.name] = to_json(interval_of(other, found, units, seed=seed))
    return result


def refuse_undecided(metric: Metric) -> None:
    """Raise RecipeError for a metric by which nothing is better or worse."""
    if metric.describes:
        what = f"{metric.name} says what answers are like, and not how good they are: no verdict can be about it"
        raise RecipeError(what, where="evaluate.primary", cure="name it under evaluate.metrics")


def refuse_undefined(metric: Metric, task: Task, test: Sequence[Record]) -> None:
    """Raise RecipeError where the metric has no value, whatever is answered: no order of numbers that are all the same is right."""
    if metric.additive or metric.reads != "answers" or not test:
        return
    right = [task.reference(row) for row in test]
    if math.isnan(metric(right, right)):
        what = f"the right answers of the test rows are all the same: there is no {metric.name}"
        raise RecipeError(what, where="data.test", cure="give test rows that differ, or another evaluate.primary")


def value_of(metric: Metric, task: Task, rows: Sequence[Record], given: Predictions) -> float:
    """The value of a metric over the answers that a model gave to some rows."""
    sure = given.probabilities or ({},) * len(rows)
    lines = [
        {
            "reference": task.reference(row),
            **task.beside(row),
            "answers": {TUNED: answer},
            "probabilities": {TUNED: chances},
        }
        for row, answer, chances in zip(rows, given.answers, sure, strict=True)
    ]
    return metric.of(line_statistics(metric, lines)[TUNED])


def _signatures(metrics: Sequence[str]) -> dict[str, str]:
    """How each number was computed whose name does not say it all."""
    found = (lookup(name, where="evaluate.metrics") for name in metrics)
    return {metric.name: metric.signature for metric in found if metric.signature}


def _has(metric: Metric, system: str, statistics: FloatArray) -> bool:
    """Whether a system has the metric at all: answers that are all the same have no correlation with anything."""
    return system == TUNED or not math.isnan(metric.of(statistics))
