"""What a metric is: statistics per row, and the value of rows of which each counts so many times.

    value = value(sum over rows of weight * statistics(row))     a metric of sums
    value = weighted(statistics, weights)                        a metric of ranks

The first form serves metrics that are means over rows (exact match) and those of a whole corpus (BLEU, F1, perplexity),
which may never be averaged over rows or batches. What hangs on the order of the rows' scores (AUROC, Spearman), or on their
distance from a mean that is itself the rows' (Pearson), is no function of such sums: it takes all rows at once. Both are
functions of weights, and a bootstrap resample is nothing else; so no answer is scored twice, whatever the metric.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pegbox.errors import RecipeError

FloatArray = NDArray[np.float64]
Statistics = Callable[[Sequence[Any], Sequence[Any]], FloatArray]
Fits = Callable[[Any, Any], bool]


@dataclass(frozen=True)
class Kind:
    """What a metric is computed of: its name in messages, and whether a pair (answer, reference) is of this kind."""

    name: str
    fits: Fits


ANYTHING = Kind("answers", lambda answer, reference: True)
TEXTS = Kind("texts", lambda answer, reference: isinstance(answer, str) and isinstance(reference, str))


@dataclass(frozen=True)
class Metric:
    """One metric, as a row of the table `METRICS`. Called with answers and references, it gives its value.

    `statistics(answers, references)`: n answers (None: missing, hence wrong) and n references -> float64 [n, k], without
    NaN; what is infinite is so upwards, where it is to be added up. What k means may depend on all rows of the call (a label metric has columns for each class that occurs), so only
    rows of the same call may be added up or compared: see `paired_statistics`.
    `value(sums)`: summed statistics [..., k] -> [...], on the scale of the library whose metric it is; NaN where it is
    undefined. None for a metric of ranks, which has `weighted(statistics [n, k], weights [B, n]) -> [B]` instead.
    `signature`: how the number was computed, to be stored with it (sacreBLEU's); empty where the name says all.
    `reads`: what of a system it is computed of: its answers, or the probabilities {label: p} that it gave.
    `against`: by what key of a line each is judged; the right answer, but where what stands around an answer decides.
    `kind`: what these must be. `describes`: it says what answers are like, and not how good: it decides nothing.
    """

    name: str
    statistics: Statistics
    value: Callable[[FloatArray], FloatArray] | None = None
    _: KW_ONLY
    greater_is_better: bool
    signature: str = ""
    reads: Literal["answers", "probabilities"] = "answers"
    against: Literal["reference", "around"] = "reference"
    kind: Kind = ANYTHING
    weighted: Callable[[FloatArray, FloatArray], FloatArray] | None = None
    describes: bool = False

    def __post_init__(self) -> None:
        assert (self.value is None) != (self.weighted is None), f"{self.name}: of sums, or of ranks"

    @property
    def additive(self) -> bool:
        """Whether it is a metric of sums, so that rows may be added up before they are weighted."""
        return self.value is not None

    def values(self, statistics: FloatArray, weights: FloatArray) -> FloatArray:
        """The value [B] of the rows [n, k], or of sums of rows where it is additive, with each of the weights [B, n]."""
        if self.value is not None:
            return self.value(weighted_sums(weights, statistics))
        assert self.weighted is not None
        return self.weighted(statistics, weights)

    def of(self, statistics: FloatArray) -> float:
        """The value of some rows [n, k]."""
        return float(self.values(statistics, np.ones((1, len(statistics))))[0])

    def by_row(self, statistics: FloatArray) -> FloatArray:
        """The value [n] of each row by itself; of ranks there is none."""
        assert self.value is not None, f"{self.name} is not defined for a single row"
        return self.value(statistics)

    def __call__(self, answers: Sequence[Any], references: Sequence[Any]) -> float:
        return self.of(self.statistics(answers, references))


def weighted_sums(weights: FloatArray, statistics: FloatArray) -> FloatArray:
    """`weights @ statistics`, where a weight of zero leaves out an infinite entry, too."""
    infinite = np.isinf(statistics)
    if not infinite.any():
        return weights @ statistics
    totals = weights @ np.where(infinite, 0.0, statistics)
    totals[weights @ infinite.astype(np.float64) > 0] = np.inf
    return totals


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


def line_statistics(
    metric: Metric, lines: Sequence[Mapping[str, Any]], systems: Sequence[str] | None = None
) -> dict[str, FloatArray]:
    """Statistics [n, k] of each system, by default of all, from the n lines of `predictions.jsonl`.

    A system that gave nothing of what the metric reads is left out. Raises RecipeError where answers are not of the
    metric's kind: there is no RMSE of texts.
    """
    names = dict.fromkeys(name for line in lines for name in line.get(metric.reads, ()))
    found = {
        name: [line.get(metric.reads, {}).get(name) for line in lines]
        for name in names
        if systems is None or name in systems
    }
    references = [line.get(metric.against) for line in lines]
    for given in found.values():
        _refuse_misfit(metric, given, references)
    return paired_statistics(metric, found, references)


def _refuse_misfit(metric: Metric, answers: Sequence[Any], references: Sequence[Any]) -> None:
    for answer, reference in zip(answers, references, strict=True):
        if answer is not None and not metric.kind.fits(answer, reference):
            shown = str(answer if metric.reads == "answers" else reference)[:40]
            what = f"{metric.name} is computed of {metric.kind.name}; {shown!r} and the like are none"
            raise RecipeError(what, where="metric", cure="choose a metric of the task")


def divide(numerator: FloatArray, denominator: FloatArray, *, empty: float) -> FloatArray:
    """`numerator / denominator`, and `empty` where the denominator is zero."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    quotient = np.full(numerator.shape, empty, dtype=np.float64)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient


def with_count(scores: Sequence[float] | FloatArray) -> FloatArray:
    """Statistics [n, 2] of a metric that is a mean over rows: the row's score, and 1."""
    return np.stack([np.asarray(scores, dtype=np.float64), np.ones(len(scores))], axis=1)


def mean(sums: FloatArray) -> FloatArray:
    """The value that belongs to `with_count`: total score / number of rows; NaN for no rows."""
    return divide(sums[..., 0], sums[..., 1], empty=np.nan)
