"""Metrics of numbers: mse, rmse, mae, r2, pearson, spearman. A row has one number, or a list of them (several targets).

With the error e = answer - reference of one target:

    mse      = mean of e^2             mae = mean of |e|             rmse = sqrt(mse)
    r2       = 1 - sum of e^2 / sum of (reference - mean of references)^2
    pearson  = correlation of answers and references
    spearman = correlation of their mid-ranks

Of several targets each is the plain mean of the targets' values: scikit-learn's `multioutput="uniform_average"`, hence a
mean of the targets' roots for rmse. Values are scikit-learn's and scipy's. r2 of constant references is 1 where nothing is
wrong and 0 elsewhere, and NaN of fewer than two rows, as in scikit-learn; a correlation is NaN where one side is constant.

The references' variance is a difference of sums, in which digits would be lost far from zero, so r2 counts from the
references' median; references whose squared spread is below 1e-12 of their squared distance from it count as constant. The
correlations take the distances from each sample's own means, which are no sums.

A missing answer (None, or one that is not finite) is as wrong as can be: its error is infinite, so mse, rmse and mae are
infinite and r2 is -infinity; and a correlation over rows of which one is missing is -1. Less would make leaving out a hard
row pay. As one such row decides the value, it has to be mended rather than averaged away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pegbox.metrics.base import FloatArray, Kind, Metric, divide, mean, with_count
from pegbox.metrics.ranks import correlation, is_constant, mid_ranks

_CONSTANT = 1e-12


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_numbers(value: Any) -> bool:
    return _is_number(value) or (
        isinstance(value, list | tuple) and all(entry is None or _is_number(entry) for entry in value)
    )


NUMBERS = Kind("numbers", lambda answer, reference: _are_numbers(answer) and _are_numbers(reference))


def _targets(value: Any, count: int) -> list[float]:
    """The numbers of one row; NaN is missing."""
    numbers = [None] * count if value is None else list(value) if isinstance(value, list | tuple) else [value]
    assert len(numbers) == count, f"{len(numbers)} numbers where there are {count} targets"
    return [math.nan if number is None or not math.isfinite(number) else float(number) for number in numbers]


def _columns(answers: Sequence[Any], references: Sequence[Any]) -> tuple[FloatArray, FloatArray]:
    """Answers [n, K], NaN where they are missing, and references [n, K]."""
    assert len(answers) == len(references), f"{len(answers)} answers to {len(references)} rows"
    first = references[0] if references else 0.0
    count = len(first) if isinstance(first, list | tuple) else 1
    given, right = (
        np.array([_targets(value, count) for value in values], dtype=np.float64).reshape(-1, count)
        for values in (answers, references)
    )
    assert not np.isnan(right).any(), "a row without a reference cannot be scored"
    return given, right


def _errors(answers: Sequence[Any], references: Sequence[Any]) -> FloatArray:
    """The sizes of the errors [n, K]."""
    given, right = _columns(answers, references)
    with np.errstate(over="ignore"):
        return np.where(np.isnan(given), np.inf, np.abs(given - right))


def _squares(answers: Sequence[Any], references: Sequence[Any]) -> FloatArray:
    errors = _errors(answers, references)
    with np.errstate(over="ignore"):
        return errors * errors


def _mean_of(
    errors: Callable[[Sequence[Any], Sequence[Any]], FloatArray],
) -> Callable[[Sequence[Any], Sequence[Any]], FloatArray]:
    """Statistics [n, 2] of the mean over rows and targets."""
    return lambda answers, references: with_count(errors(answers, references).mean(axis=1))


def _squares_and_count(answers: Sequence[Any], references: Sequence[Any]) -> FloatArray:
    """Statistics [n, K + 1]: the squared error of each target; 1."""
    return np.column_stack([_squares(answers, references), np.ones(len(references))])


def _rmse(sums: FloatArray) -> FloatArray:
    mean_of_roots: FloatArray = np.sqrt(divide(sums[..., :-1], sums[..., -1:], empty=np.nan)).mean(axis=-1)
    return mean_of_roots


def _spreads(answers: Sequence[Any], references: Sequence[Any]) -> FloatArray:
    """Statistics [n, 3 K + 1]: squared errors, references as distances from their median, those squared; 1."""
    _, right = _columns(answers, references)
    distances = right - np.median(right, axis=0) if len(right) else right
    return np.column_stack([_squares(answers, references), distances, distances**2, np.ones(len(right))])


def _r2(sums: FloatArray) -> FloatArray:
    rows = sums[..., -1:]
    unexplained, distances, squares = np.split(sums[..., :-1], 3, axis=-1)
    spread = squares - divide(distances**2, rows, empty=np.nan)
    spread = np.where(spread > _CONSTANT * squares, spread, 0.0)
    share = divide(unexplained, spread, empty=1.0)
    share = np.where((spread == 0) & (unexplained == 0), 0.0, share)
    share = np.where(np.isinf(unexplained), np.inf, share)
    return np.where(rows[..., 0] < 2, np.nan, 1.0 - share.mean(axis=-1))


def _answers_and_references(answers: Sequence[Any], references: Sequence[Any]) -> FloatArray:
    """Statistics [n, 2 K]: answers, infinite where they are missing, then references."""
    given, right = _columns(answers, references)
    return np.concatenate([np.where(np.isnan(given), np.inf, given), right], axis=1)


Correlation = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]


def _by_target(of_target: Correlation) -> Callable[[FloatArray, FloatArray], FloatArray]:
    """The mean over targets of a correlation."""

    def weighted(statistics: FloatArray, weights: FloatArray) -> FloatArray:
        given, right = np.split(statistics, 2, axis=1)
        targets = [_or_worst(of_target, *columns, weights) for columns in zip(given.T, right.T, strict=True)]
        mean_of_targets: FloatArray = np.stack(targets).mean(axis=0)
        return mean_of_targets

    return weighted


def _or_worst(of_target: Correlation, given: FloatArray, right: FloatArray, weights: FloatArray) -> FloatArray:
    """The correlation [B] of one target, -1 where an answer is missing and NaN where there is none."""
    missing = np.isinf(given)
    known = np.where(missing, 0.0, given)
    found = np.where(
        is_constant(known, weights) | is_constant(right, weights), np.nan, of_target(known, right, weights)
    )
    return np.where((weights * missing).sum(axis=1) > 0, -1.0, found)


def _pearson(given: FloatArray, right: FloatArray, weights: FloatArray) -> FloatArray:
    return correlation(_scaled(given), _scaled(right), weights)


def _scaled(values: FloatArray) -> FloatArray:
    """The values from their median on, and so that no square overflows or vanishes: a correlation does not mind."""
    if not len(values):
        return values
    centred = values - np.median(values)
    return centred / (np.abs(centred).max() or 1.0)


def _spearman(given: FloatArray, right: FloatArray, weights: FloatArray) -> FloatArray:
    return correlation(mid_ranks(given, weights), mid_ranks(right, weights), weights)


MSE = Metric("mse", _mean_of(_squares), mean, greater_is_better=False, kind=NUMBERS)
RMSE = Metric("rmse", _squares_and_count, _rmse, greater_is_better=False, kind=NUMBERS)
MAE = Metric("mae", _mean_of(_errors), mean, greater_is_better=False, kind=NUMBERS)
R2 = Metric("r2", _spreads, _r2, greater_is_better=True, kind=NUMBERS)
PEARSON = Metric(
    "pearson", _answers_and_references, greater_is_better=True, kind=NUMBERS, weighted=_by_target(_pearson)
)
SPEARMAN = Metric(
    "spearman", _answers_and_references, greater_is_better=True, kind=NUMBERS, weighted=_by_target(_spearman)
)
