"""Simulated test sets in which the truth is known: the tuned model is exactly as good as its rivals, or better by so much.

A kind of case draws a scene (how hard each row is) and gives a function that draws one system's statistics on it. Rivals
and tuned call it alike, so that they are equal in distribution and correlated by row, as answers to the same rows are; in
the kinds named `skewed_*` and `*_unlike` tuned has a pattern of its own that is worth exactly as much. Here every row is a
unit of its own; `verdict_cases` has groups.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from pegbox.metrics import METRICS, FloatArray, Metric

System = Callable[[], FloatArray]


@dataclass(frozen=True)
class Scene:
    """`rival()` and `tuned()` draw statistics [rows, k]; `units` int [rows]."""

    metric: Metric
    rival: System
    tuned: System
    units: np.ndarray


def _span_f1(sums: FloatArray) -> FloatArray:
    return 2 * sums[..., 0] / np.maximum(sums[..., 1] + sums[..., 2], 1.0)


MEAN, PERPLEXITY, BLEU, CHRF, F1_MACRO = (
    METRICS[name] for name in ("exact_match", "perplexity", "bleu", "chrf", "f1_macro")
)
SPAN_F1 = Metric("f1", lambda answers, references: np.zeros((0, 3)), _span_f1, greater_is_better=True)


def scored(scores: np.ndarray) -> FloatArray:
    return np.stack([scores, np.ones(len(scores))], axis=1).astype(np.float64)


def alike(metric: Metric, system: System, units: np.ndarray) -> Scene:
    return Scene(metric, system, system, units)


def binary(rng: Generator, n: int) -> Scene:
    """Right or wrong, rows of unequal difficulty, from nearly all wrong to nearly all right."""
    mean, spread = rng.uniform(0.05, 0.95), rng.choice([0.6, 2.0, 6.0])
    chance = rng.beta(spread * mean, spread * (1 - mean), n)
    return alike(MEAN, lambda: scored(rng.random(n) < chance), np.arange(n))


def rarely_right(rng: Generator, n: int) -> Scene:
    """One to eight right answers in all: few rows on which two systems differ."""
    chance = min(0.5, rng.uniform(1, 8) / n)
    return alike(MEAN, lambda: scored(rng.random(n) < chance), np.arange(n))


def continuous(rng: Generator, n: int) -> Scene:
    """A score in [0, 1] per row, like token_f1: many zeros and ones, half of the rows answered alike."""
    usual = rng.beta(0.5, 0.5, n)
    return alike(
        MEAN,
        lambda: scored(np.clip(usual + rng.normal(0, 0.2, n) * (rng.random(n) < 0.5), 0, 1)),
        np.arange(n),
    )


def _skewed(rng: Generator, n: int, sign: float) -> Scene:
    usual = rng.normal(0, 0.1, n)
    return Scene(MEAN, lambda: scored(usual), lambda: scored(usual + sign * (rng.exponential(1, n) - 1)), np.arange(n))


def skewed_losses(rng: Generator, n: int) -> Scene:
    """Tuned is a little better on most rows and much worse on a few."""
    return _skewed(rng, n, -1.0)


def skewed_gains(rng: Generator, n: int) -> Scene:
    """Tuned is a little worse on most rows and much better on a few."""
    return _skewed(rng, n, 1.0)


def likelihoods(rng: Generator, units: np.ndarray) -> Scene:
    rows, groups = len(units), int(units.max()) + 1
    tokens, difficulty = np.ceil(rng.lognormal(3, 0.8, rows)), rng.gamma(8, 0.4, groups)[units]

    def system() -> FloatArray:
        nats = difficulty * rng.lognormal(-0.02, 0.2, groups)[units] + rng.normal(0, 0.5, rows) / np.sqrt(tokens)
        return np.stack([tokens * nats, tokens], axis=1)

    return alike(PERPLEXITY, system, units)


def perplexity(rng: Generator, n: int) -> Scene:
    """Likelihoods of texts of very unequal length; less is better, and exp() skews."""
    return likelihoods(rng, np.arange(n))


def bleu(rng: Generator, n: int) -> Scene:
    """Sentences of unequal length and quality, n-gram matches rarer by order."""
    words, quality = np.ceil(rng.lognormal(2.5, 0.5, n)), rng.beta(2, 2, n)

    def system() -> FloatArray:
        given = np.maximum(1, np.round(words * rng.normal(1, 0.15, n)))
        match = np.clip(quality + rng.normal(0, 0.15, n), 0.02, 0.98)
        totals = [np.maximum(given - order, 0) for order in range(4)]
        matched = [rng.binomial(total.astype(int), match ** (order + 1)) for order, total in enumerate(totals)]
        return np.stack([given, words, *matched, *totals], axis=1).astype(np.float64)

    return alike(BLEU, system, np.arange(n))


def chrf(rng: Generator, n: int) -> Scene:
    """Texts of unequal length and quality; answers up to twice too long or too short."""
    letters, quality = np.ceil(rng.lognormal(4, 0.6, n)), rng.beta(2, 2, n)

    def system() -> FloatArray:
        given = np.maximum(1, np.round(letters * rng.lognormal(0, 0.3, n)))
        match = np.clip(quality + rng.normal(0, 0.15, n), 0.02, 0.98)
        columns = []
        for order in range(6):
            answer, reference = np.maximum(given - order, 0), np.maximum(letters - order, 0)
            common = rng.binomial(np.minimum(answer, reference).astype(int), match ** (1 + order / 2))
            columns += [answer, reference, common]
        return np.stack(columns, axis=1).astype(np.float64)

    return alike(CHRF, system, np.arange(n))


def _counts(predicted: np.ndarray, true: np.ndarray, classes: int) -> FloatArray:
    """The columns of `class_counts`: per class true positive, predicted, true."""
    counts, rows = np.zeros((len(true), classes, 3)), np.arange(len(true))
    counts[rows, predicted, 1] = 1
    counts[rows, true, 2] = 1
    counts[rows, true, 0] = predicted == true
    return counts.reshape(len(true), -1)


def f1_macro(rng: Generator, n: int) -> Scene:
    """Two to eight classes, the rarest about one row in a hundred; rare classes come and go between resamples."""
    classes = int(rng.integers(2, 9))
    shares = 0.95 * rng.dirichlet(np.full(classes, 0.7)) + 0.05 / classes
    true, hard, right = rng.choice(classes, n, p=shares), rng.random(n) < 0.5, rng.uniform(0.3, 0.95)

    def system() -> FloatArray:
        wrong = rng.random(n) > np.where(hard, 0.7 * right, right)
        return _counts(np.where(wrong, rng.choice(classes, n, p=shares), true), true, classes)

    return alike(F1_MACRO, system, np.arange(n))


_CONFUSIONS = np.array([[0.8, 0.15, 0.05, 0.0], [0.3, 0.6, 0.05, 0.05], [0.2, 0.3, 0.5, 0.0], [0.4, 0.1, 0.1, 0.4]])


def f1_macro_unlike(rng: Generator, n: int) -> Scene:
    """Two systems that are good at different rare classes: the same confusions, with two equally rare classes swapped."""
    true, swapped = rng.choice(4, n, p=[0.6, 0.3, 0.05, 0.05]), np.array([0, 1, 3, 2])

    def confuse(labels: np.ndarray) -> np.ndarray:
        return np.asarray(np.clip((_CONFUSIONS[labels].cumsum(axis=1) < rng.random(n)[:, None]).sum(axis=1), 0, 3))

    return Scene(
        F1_MACRO,
        lambda: _counts(confuse(true), true, 4),
        lambda: _counts(swapped[confuse(swapped[true])], true, 4),
        np.arange(n),
    )


def spans(rng: Generator, units: np.ndarray, spread: float) -> Scene:
    rows, groups = len(units), int(units.max()) + 1
    true = rng.poisson(2, rows)

    def system() -> FloatArray:
        found = rng.binomial(true, np.clip(rng.normal(0.6, spread, groups), 0, 1)[units])
        return np.stack([found, found + rng.poisson(0.8, rows), true], axis=1).astype(np.float64)

    return alike(SPAN_F1, system, units)


def span_f1(rng: Generator, n: int) -> Scene:
    """A ratio of counts: entities found, over those given and those wanted; a seventh of the rows have none."""
    return spans(rng, np.arange(n), 0.2)
