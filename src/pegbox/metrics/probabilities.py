"""Metrics of the probabilities that a system gave to labels: auroc, calibration_error.

    auroc             = mean over labels of the area under the ROC curve, this label against all others (see `ranks`)
    calibration_error = sum over bins of |sum of confidences - number of right ones| / n, a row's confidence being the
                        probability of its likeliest label, in 15 bins ((m - 1) / 15, m / 15]  (Guo et al. 2017, eq. 3)

A row has one label or a set of them. AUROC's values are those of scikit-learn's `roc_auc_score`: of two single labels that
of the one that is last in the alphabet (the other's is the same), of more than two the macro average one-vs-rest, of label
sets the macro average. Labels that do not have both positive and negative rows in a (re)sample have no curve and are left
out; scikit-learn refuses such samples. Guo's error is of single labels. Its bins hold differences that cancel, so it is no
mean over rows.

A row for which a system gave no probabilities counts against it as far as can be: its right labels rank below every
other row, its wrong ones above; in the calibration it is a bin of its own, being sure of a wrong label. So does a row in
which a probability is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pegbox.metrics.base import FloatArray, Kind, Metric, divide
from pegbox.metrics.labels import LABEL, LABELS, in_order, label_set
from pegbox.metrics.ranks import auc

BINS = 15
_EDGES = np.arange(1, BINS) / BINS

OF_LABELS = Kind(
    "probabilities of labels",
    lambda given, reference: isinstance(given, Mapping) and LABELS.fits(reference, reference),
)
OF_A_LABEL = Kind(
    "probabilities of single labels",
    lambda given, reference: isinstance(given, Mapping) and LABEL.fits(reference, reference),
)


def _known(given: Mapping[str, float] | None) -> Mapping[str, float] | None:
    """The probabilities of a row; None where there are none."""
    return None if not given or any(math.isnan(p) for p in given.values()) else given


def _ranked(given: Sequence[Mapping[str, float] | None], references: Sequence[Any]) -> FloatArray:
    """Statistics [n, 2 L]: the scores of L labels, then whether each is right (1 or 0)."""
    right, rows = [label_set(reference) for reference in references], [_known(row) for row in given]
    labels = in_order(frozenset().union(*right, *(row for row in rows if row is not None)))
    if len(labels) == 2 and not any(isinstance(reference, list | tuple) for reference in references):
        labels = labels[1:]
    positive = np.array([[label in wanted for label in labels] for wanted in right], dtype=np.float64)
    scores = np.where(positive.reshape(len(rows), len(labels)) == 1, -np.inf, np.inf)
    for index, row in enumerate(rows):
        if row is not None:
            scores[index] = [row.get(label, 0.0) for label in labels]
    return np.concatenate([scores, positive.reshape(scores.shape)], axis=1)


def _auroc(statistics: FloatArray, weights: FloatArray) -> FloatArray:
    scores, positive = np.split(statistics, 2, axis=1)
    total, curves = np.zeros(len(weights)), np.zeros(len(weights))
    for of_label, right in zip(scores.T, positive.T, strict=True):
        area = auc(of_label, right, weights)
        total += np.nan_to_num(area)
        curves += ~np.isnan(area)
    return divide(total, curves, empty=np.nan)


def _binned(given: Sequence[Mapping[str, float] | None], references: Sequence[Any]) -> FloatArray:
    """Statistics [n, 17]: confidence less rightness in each of 15 bins and in that of rows without probabilities; 1."""
    statistics = np.zeros((len(references), BINS + 2))
    statistics[:, -1] = 1
    for index, (row, reference) in enumerate(zip(map(_known, given), references, strict=True)):
        if row is None:
            statistics[index, BINS] = 1
            continue
        label = max(row, key=row.__getitem__)
        place = np.searchsorted(_EDGES, row[label], side="left")
        statistics[index, place] = row[label] - (label == reference)
    return statistics


def _calibration_error(sums: FloatArray) -> FloatArray:
    return divide(np.abs(sums[..., :-1]).sum(axis=-1), sums[..., -1], empty=np.nan)


AUROC = Metric("auroc", _ranked, greater_is_better=True, reads="probabilities", kind=OF_LABELS, weighted=_auroc)
CALIBRATION_ERROR = Metric(
    "calibration_error", _binned, _calibration_error, greater_is_better=False, reads="probabilities", kind=OF_A_LABEL
)
