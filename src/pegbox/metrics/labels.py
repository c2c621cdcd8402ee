"""Metrics of the labels of a row, from counts per class. A row has one label, or a set of them, which may be empty.

With, per class c, tp_c (predicted and true), p_c (predicted), t_c (true):

    accuracy             = rows whose labels are exactly the right ones / n
    balanced_accuracy    = mean of tp_c / t_c            over the classes with t_c > 0
    f1_macro             = mean of 2 tp_c / (p_c + t_c)  over the classes with p_c + t_c > 0
    f1_weighted          = the same, weighted by t_c
    matthews_correlation = (n sum tp - p.t) / sqrt((n^2 - p.p)(n^2 - t.t))

Values are scikit-learn's with its defaults and `zero_division=0`; the correlation is Gorodkin's (2004) for K classes, 0
where a factor under the root is 0. Balanced accuracy and the correlation are of single labels. Which classes count is
decided by the sums, not by the columns: a class that is absent from a resample does not count there, as when scikit-learn
scores the resampled rows. (For label sets scikit-learn averages over all columns of the matrix that it is given: these
are the classes that occur.) A set has no order, and names no label twice.

A missing answer (None) is a wrong one: not even the empty set is right. It is no class: scikit-learn, given a word for it,
would average one more F1 of zero into f1_macro, and that would say how many words for "missing" there are. In the
correlation it has to be counted as a class of predictions (p_0 = n - sum p), for otherwise leaving out an answer would not
lower the value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pegbox.metrics.base import FloatArray, Kind, Metric, divide, mean, with_count

_TRUE_POSITIVES, _PREDICTED, _TRUE = 0, 1, 2


def _is_label(value: Any) -> bool:
    return isinstance(value, str | int)


def is_label_set(value: Any) -> bool:
    """Whether it is a list of labels."""
    return isinstance(value, list | tuple) and all(map(_is_label, value))


LABEL = Kind("single labels", lambda answer, reference: _is_label(answer) and _is_label(reference))
LABELS = Kind(
    "labels",
    lambda answer, reference: all(_is_label(given) or is_label_set(given) for given in (answer, reference)),
)


def label_set(value: Any) -> frozenset[Any]:
    """The labels of a row: those of a list, or the single one."""
    return frozenset(value) if isinstance(value, list | tuple) else frozenset([value])


def in_order(labels: Iterable[Any]) -> list[Any]:
    """The labels sorted, also where they are not of one type."""
    return sorted(labels, key=lambda label: (str(label), type(label).__name__))


def _checked(references: Sequence[Any]) -> Sequence[Any]:
    assert None not in references, "a row without a reference cannot be scored"
    return references


def class_counts(answers: Sequence[Any], references: Sequence[Any]) -> FloatArray:
    """Statistics [n, 3 C]: per class (tp, predicted, true), classes being the sorted union of all labels in the call."""
    wanted = [label_set(reference) for reference in _checked(references)]
    given = [frozenset() if answer is None else label_set(answer) for answer in answers]
    column = {label: index for index, label in enumerate(in_order(frozenset().union(*wanted, *given)))}
    counts = np.zeros((len(references), len(column), 3))
    for row, (predicted, true) in enumerate(zip(given, wanted, strict=True)):
        for kind, labels in ((_TRUE_POSITIVES, predicted & true), (_PREDICTED, predicted), (_TRUE, true)):
            counts[row, [column[label] for label in labels], kind] = 1
    return counts.reshape(len(references), 3 * len(column))


def _by_class(sums: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Summed `class_counts` [..., 3 C] -> tp, predicted, true, each [..., C]."""
    counts = sums.reshape(*sums.shape[:-1], -1, 3)
    return counts[..., _TRUE_POSITIVES], counts[..., _PREDICTED], counts[..., _TRUE]


def _correct(answers: Sequence[Any], references: Sequence[Any]) -> FloatArray:
    pairs = zip(answers, _checked(references), strict=True)
    return with_count([float(answer is not None and label_set(answer) == label_set(right)) for answer, right in pairs])


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
    nothing = np.where(predicted.sum(axis=-1) > 0, 0.0, np.nan)  # of what was right, while something was predicted
    wanted = true.sum(axis=-1)
    return np.where(wanted > 0, divide((f1 * true).sum(axis=-1), wanted, empty=0.0), nothing)


def _matthews_correlation(sums: FloatArray) -> FloatArray:
    tp, predicted, true = _by_class(sums)
    rows = true.sum(axis=-1)
    missing = rows - predicted.sum(axis=-1)
    covariance = rows * tp.sum(axis=-1) - (predicted * true).sum(axis=-1)
    spread_predicted = rows**2 - (predicted**2).sum(axis=-1) - missing**2
    spread_true = rows**2 - (true**2).sum(axis=-1)
    return divide(covariance, np.sqrt(spread_predicted * spread_true), empty=0.0)


ACCURACY = Metric("accuracy", _correct, mean, greater_is_better=True, kind=LABELS)
BALANCED_ACCURACY = Metric("balanced_accuracy", class_counts, _balanced_accuracy, greater_is_better=True, kind=LABEL)
F1_MACRO = Metric("f1_macro", class_counts, _f1_macro, greater_is_better=True, kind=LABELS)
F1_WEIGHTED = Metric("f1_weighted", class_counts, _f1_weighted, greater_is_better=True, kind=LABELS)
MATTHEWS_CORRELATION = Metric(
    "matthews_correlation", class_counts, _matthews_correlation, greater_is_better=True, kind=LABEL
)
