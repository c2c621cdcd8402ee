"""What a metric is: sufficient statistics per row, and a value computed from their sum.

    value(metric) = value(sum over rows of statistics(row))

One form serves metrics that are means over rows (exact match) and those of a whole corpus (BLEU, F1, perplexity), which
may never be averaged over rows or batches. A bootstrap resample is then a weighted sum, and no answer is scored twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """One metric, as a row of the table `METRICS`.

    `statistics(answers, references)`: n answers (None: missing, hence wrong) and n references -> float64 [n, k], without
    NaN. What k means may depend on all rows of the call (a label metric has columns for each class that occurs), so only
    rows of the same call may be added up or compared: see `paired_statistics`.
    `value(sums)`: summed statistics [..., k] -> [...], on the scale of the library whose metric it is; NaN where it is
    undefined.
    `signature`: how the number was computed, to be stored with it (sacreBLEU's); empty where the name says all.
    """

    name: str
    statistics: Callable[[Sequence[Any], Sequence[Any]], FloatArray]
    value: Callable[[FloatArray], FloatArray]
    greater_is_better: bool
    signature: str = ""


def paired_statistics(
    metric: Metric, answers: Mapping[str, Sequence[Any]], references: Sequence[Any]
) -> dict[str, FloatArray]:
    """Statistics [n, k] of several systems' answers to the same n references, with the same meaning of k for all.

    All systems go through one call, so that a class that a single system predicts is a column for every system.
    """
    for system, given in answers.items():
        assert len(given) == len(references), f"{system}: {len(given)} answers to {len(references)} rows"
    together = [answer for given in answers.values() for answer in given]
    statistics = metric.statistics(together, list(references) * len(answers))
    return dict(zip(answers, np.split(statistics, len(answers)), strict=True)) if answers else {}


def divide(numerator: FloatArray, denominator: FloatArray, *, empty: float) -> FloatArray:
    """`numerator / denominator`, and `empty` where the denominator is zero."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    quotient = np.full(numerator.shape, empty, dtype=np.float64)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient


def with_count(scores: Sequence[float]) -> FloatArray:
    """Statistics [n, 2] of a metric that is a mean over rows: the row's score, and 1."""
    return np.stack([np.asarray(scores, dtype=np.float64), np.ones(len(scores))], axis=1)


def mean(sums: FloatArray) -> FloatArray:
    """The value that belongs to `with_count`: total score / number of rows; NaN for no rows."""
    return divide(sums[..., 0], sums[..., 1], empty=np.nan)
