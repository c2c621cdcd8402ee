"""From answers to `evaluation.json`: every metric of every system with its interval, and the verdict on the primary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pegbox.errors import RecipeError
from pegbox.evaluation.verdict import interval_of, judge, to_json
from pegbox.metrics import lookup, paired_statistics


def score(
    task: str,
    answers: Mapping[str, Sequence[Any]],
    references: Sequence[Any],
    units: np.ndarray,
    *,
    primary: str,
    metrics: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """The contents of `evaluation.json`. `answers`: n per system; `units`: int [n], equal for rows that belong together.

    Raises RecipeError where `tuned` has no rival or a metric is unknown or does not fit the task.
    """
    if len(answers) < 2 or "tuned" not in answers:
        raise RecipeError("a verdict needs the tuned model and a rival", where="evaluate")
    metric = lookup(primary, where="evaluate.primary")
    verdict = judge(metric, paired_statistics(metric, answers, references), units, seed=seed)
    result = {"task": task, **verdict.to_json()}
    for name in metrics:
        if name != primary:
            other = lookup(name, where="evaluate.metrics")
            for system, statistics in paired_statistics(other, answers, references).items():
                interval = interval_of(other, statistics, units, seed=seed)
                result["systems"][system][name] = to_json(interval)
    return result
