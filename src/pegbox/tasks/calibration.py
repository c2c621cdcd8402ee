"""What is set after training, on validation rows alone: the temperature of a classifier, the thresholds of label sets.

Temperature (Guo et al. 2017, "On calibration of modern neural networks", arXiv 1706.04599):

    p = softmax(z / T),   T = argmin of the mean of -log p_y over validation

It changes no answer. With b = 1 / T the loss is convex in b, its derivative being the sum of E_p[z] - z_y, so its root
is found by bisection, in float64. Where every row is right the loss only falls with b, and where there are no rows it
says nothing: T is 1 then. Else T lies within the bounds below, which a model reaches whose outputs say next to nothing.

Thresholds. A label is told where its probability is at least its threshold, the one of the greatest F1 of that label on
validation (an F1 is greatest below 0.5, Lipton et al. 2014, arXiv 1402.1892). Candidates are 0.5 and the middles
between neighbouring probabilities; of equals the nearest to 0.5, then the greater. A label with few positive rows would
follow their noise: it gets the threshold of the greatest F1 over all labels' cells together, or 0.5 where even these
have few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pegbox.metrics import FloatArray

COLDEST, HOTTEST = 0.05, 20.0
BISECTIONS = 60  # of the logarithm of T, to the last digits of a float64
FEW = 5  # positive rows, below which a label gets no threshold of its own
HALF = 0.5


def softmax(logits: FloatArray, temperature: float = 1.0) -> FloatArray:
    """Probabilities [n, K] from logits [n, K]; one of -infinity has probability 0."""
    exponents = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
    shares: FloatArray = exponents / exponents.sum(axis=1, keepdims=True)
    return shares


def sigmoid(logits: FloatArray) -> FloatArray:
    """Probabilities [n, K] from logits [n, K], each by itself."""
    small = np.exp(-np.abs(logits))  # cannot overflow
    return np.where(logits >= 0, 1.0, small) / (1.0 + small)


def tempered(probabilities: FloatArray, temperature: float) -> FloatArray:
    """What probabilities [n, K] become at a temperature: p^(1 / T), of sum one. 1 / T undoes T."""
    return softmax(logarithm(probabilities), temperature)


def logarithm(probabilities: FloatArray) -> FloatArray:
    """Logits that have these probabilities; -infinity where they are 0."""
    with np.errstate(divide="ignore"):
        return np.log(probabilities)


def find_temperature(logits: FloatArray, classes: NDArray[np.int64]) -> float:
    """T from logits [n, K] and the right classes [n]. A row whose class is none of them (-1), or impossible, is left out."""
    known = (classes >= 0) & np.isfinite(logits[np.arange(len(logits)), classes])
    shifted = logits[known] - logits[known].max(axis=1, keepdims=True)
    right = shifted[np.arange(len(shifted)), classes[known]]
    if not (right < 0).any():
        return 1.0
    values = np.where(np.isfinite(shifted), shifted, 0.0)  # of what has no probability at any temperature

    def slope(temperature: float) -> float:
        return float(((softmax(shifted, temperature) * values).sum(axis=1) - right).sum())

    low, high = np.log(COLDEST), np.log(HOTTEST)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(float(np.exp(middle))) > 0 else (low, middle)
    return float(np.exp((low + high) / 2))


def find_thresholds(probabilities: FloatArray, truth: NDArray[np.int64]) -> FloatArray:
    """One threshold a label, within (0, 1], from probabilities [n, K] and what is there, 1 or 0 [n, K]."""
    pooled = best_threshold(probabilities.ravel(), truth.ravel()) if truth.sum() >= FEW else HALF
    pairs = zip(probabilities.T, truth.T, strict=True)
    return np.array([best_threshold(p, y) if y.sum() >= FEW else pooled for p, y in pairs])


def best_threshold(probabilities: FloatArray, truth: NDArray[np.int64]) -> float:
    """The threshold of the greatest F1 = 2 tp / (told + there), from probabilities [n] and what is there, 1 or 0 [n]."""
    values = np.unique(probabilities)
    between = (values + np.concatenate([[0.0], values[:-1]])) / 2
    candidates = np.append(between[between > 0], HALF)
    order = np.argsort(probabilities)
    behind = np.concatenate([np.cumsum(truth[order][::-1])[::-1], [0]])  # how many are there from a place on
    places = np.searchsorted(probabilities[order], candidates)
    f1 = 2 * behind[places] / (len(truth) - places + truth.sum())
    best = candidates[f1 == f1.max()]
    return float(min(best, key=lambda threshold: (abs(threshold - HALF), -threshold)))


def by_label(labels: Sequence[str], probabilities: FloatArray) -> tuple[Mapping[str, float], ...]:
    """{label: probability} of each row [n, K], to six significant digits."""
    return tuple({label: float(f"{p:.6g}") for label, p in zip(labels, row, strict=True)} for row in probabilities)
