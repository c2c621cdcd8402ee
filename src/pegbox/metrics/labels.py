"""Metrics of one label per row, from counts per class.

With, per class c, tp_c (predicted and true), p_c (predicted), t_c (true):

    accuracy             = sum tp / n
    balanced_accuracy    = mean of tp_c / t_c            over the classes with t_c > 0
    f1_macro             = mean of 2 tp_c / (p_c + t_c)  over the classes with p_c + t_c > 0
    f1_weighted          = the same, weighted by t_c
    matthews_correlation = (n sum tp - p.t) / sqrt((n^2 - p.p)(n^2 - t.t))

Values are scikit-learn's with its defaults and `zero_division=0`; the correlation is Gorodkin's (2004) for K classes, 0
where a factor under the root is 0. Which classes count is decided by the sums, not by the columns: a class that is
absent from a resample does not count there, as when scikit-learn scores the resampled rows.

A missing answer (None) is a wrong one. It is no class: scikit-learn, given a word for it, would average one more F1 of
zero into f1_macro, and that would say how many words for "missing" there are. In the correlation it has to be counted
as a class of predictions (p_0 = n - sum p), for otherwise leaving out an answer would not lower the value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pegbox.metrics.base import FloatArray, Metric, divide, mean, with_count

_TRUE_POSITIVES, _PREDICTED, _TRUE = 0, 1, 2


def _checked(references: Sequence[Any]) -> Sequence[Any]:
    assert None not in references, "a row without a reference cannot be scored"
    return references


def class_counts(answers: Sequence[Any], references: Sequence[Any]) -> FloatArray:
    """Statistics [n, 3 C]: per class (tp, predicted, true), classes being the sorted union of all labels in the call."""
    labels = dict.fromkeys([*_checked(references), *(answer for answer in answers if answer is not None)])
    column = {label: index for index, label in enumerate(sorted(labels, key=str))}
    counts = np.zeros((len(references), len(column), 3))
    for row, (answer, reference) in enumerate(zip(answers, references, strict=True)):
        counts[row, column[reference], _TRUE] = 1
        if answer is not None:
            counts[row, column[answer], _PREDICTED] = 1
            counts[row, column[answer], _TRUE_POSITIVES] = answer == reference
    return counts.reshape(len(references), -1)


def _by_class(sums: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Summed `class_counts` [..., 3 C] -> tp, predicted, true, each [..., C]."""
    counts = sums.reshape(*sums.shape[:-1], -1, 3)
    return counts[..., _TRUE_POSITIVES], counts[..., _PREDICTED], counts[..., _TRUE]


def _correct(answers: Sequence[Any], references: Sequence[Any]) -> FloatArray:
    return with_count(
        [float(answer == reference) for answer, reference in zip(answers, _checked(references), strict=True)]
    )


def _balanced_accuracy(sums: FloatArray) -> FloatArray:
    tp, _, true = _by_class(sums)
    return divide(divide(tp, true, empty=0.0).sum(axis=-1), (true > 0).sum(axis=-1), empty=np.nan)


def _f1_macro(sums: FloatArray) -> FloatArray:
    tp, predicted, true = _by_class(sums)
    f1 = divide(2 * tp, predicted + true, empty=0.0)
    return divide(f1.sum(axis=-1), (predicted + true > 0).sum(axis=-1), empty=np.nan)


def _f1_weighted(sums: FloatArray) -> FloatArray:
    tp, predicted, true = _by_class(sums)
    f1 = divide(2 * tp, predicted + true, empty=0.0)
    return divide((f1 * true).sum(axis=-1), true.sum(axis=-1), empty=np.nan)


def _matthews_correlation(sums: FloatArray) -> FloatArray:
    tp, predicted, true = _by_class(sums)
    rows = true.sum(axis=-1)
    missing = rows - predicted.sum(axis=-1)
    covariance = rows * tp.sum(axis=-1) - (predicted * true).sum(axis=-1)
    spread_predicted = rows**2 - (predicted**2).sum(axis=-1) - missing**2
    spread_true = rows**2 - (true**2).sum(axis=-1)
    return divide(covariance, np.sqrt(spread_predicted * spread_true), empty=0.0)


ACCURACY = Metric("accuracy", _correct, mean, greater_is_better=True)
BALANCED_ACCURACY = Metric("balanced_accuracy", class_counts, _balanced_accuracy, greater_is_better=True)
F1_MACRO = Metric("f1_macro", class_counts, _f1_macro, greater_is_better=True)
F1_WEIGHTED = Metric("f1_weighted", class_counts, _f1_weighted, greater_is_better=True)
MATTHEWS_CORRELATION = Metric("matthews_correlation", class_counts, _matthews_correlation, greater_is_better=True)
