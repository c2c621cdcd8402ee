"""What rests on the order of values, for rows of which each counts so many times: mid-ranks, AUC, correlation.

With weights w [B, n] over n values, equal values are one step of the order. A step of total weight g behind steps of total
weight b stands at the ranks b + 1 .. b + g: its mid-rank is

    b + (g + 1) / 2

The area under the ROC curve is the share of pairs (positive, negative) that are in the right order, ties counting half
(Mann & Whitney 1947; Hanley & McNeil 1982):

    sum over steps of positives(step) * (negatives below + negatives(step) / 2)  /  (positives * negatives)

For whole weights all sums are exact, so the value is that of the rows written out as often as they count.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pegbox.metrics.base import FloatArray, divide


class Steps:
    """The order of values [n], which may be infinite: each one's step, and the weight of every step."""

    def __init__(self, values: FloatArray) -> None:
        self.order = np.argsort(values, kind="stable")
        ordered = values[self.order]
        begins = np.concatenate([np.ones(min(1, len(values)), dtype=bool), ordered[1:] != ordered[:-1]])
        self.starts: NDArray[np.intp] = np.flatnonzero(begins)
        self.of_row = np.empty(len(values), dtype=np.intp)
        self.of_row[self.order] = np.cumsum(begins) - 1

    def weigh(self, weights: FloatArray) -> FloatArray:
        """The weight [B, steps] of each step, from those of the rows [B, n]."""
        return np.add.reduceat(weights[:, self.order], self.starts, axis=1) if len(self.starts) else weights


def below(weights: FloatArray) -> FloatArray:
    """Of steps' weights [B, steps]: what lies below the middle of each."""
    return np.cumsum(weights, axis=1) - weights / 2


def mid_ranks(values: FloatArray, weights: FloatArray) -> FloatArray:
    """The mid-rank [B, n] of each of the values [n], which count `weights` [B, n] times."""
    steps = Steps(values)
    ranks: FloatArray = (below(steps.weigh(weights)) + 0.5)[:, steps.of_row]
    return ranks


def auc(scores: FloatArray, positive: NDArray[Any], weights: FloatArray) -> FloatArray:
    """The area under the ROC curve [B] of scores [n], higher for what is `positive` [n] (1 or 0); NaN without both kinds."""
    steps = Steps(scores)
    positives, negatives = steps.weigh(weights * positive), steps.weigh(weights * (1 - positive))
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    return divide((positives * below(negatives)).sum(axis=1), pairs, empty=np.nan)


def is_constant(values: FloatArray, weights: FloatArray) -> NDArray[np.bool_]:
    """Whether all values [n] that count at all are equal, [B]; of no values, true."""
    counts = weights > 0
    highest = np.where(counts, values, -np.inf).max(axis=1, initial=-np.inf)
    lowest = np.where(counts, values, np.inf).min(axis=1, initial=np.inf)
    equal: NDArray[np.bool_] = highest <= lowest
    return equal


def correlation(left: FloatArray, right: FloatArray, weights: FloatArray) -> FloatArray:
    """Pearson's correlation [B] of values [n] or [B, n], from their distances to their own weighted means."""
    total = weights.sum(axis=1, keepdims=True)
    left = left - divide((weights * left).sum(axis=1, keepdims=True), total, empty=0.0)
    right = right - divide((weights * right).sum(axis=1, keepdims=True), total, empty=0.0)
    common, of_left, of_right = (
        np.einsum("bn,bn,bn->b", weights, one, other) for one, other in ((left, right), (left, left), (right, right))
    )
    return np.clip(divide(common, np.sqrt(of_left * of_right), empty=np.nan), -1.0, 1.0)
