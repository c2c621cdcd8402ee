"""Simulated test sets in which rows belong together, with a true gain, or beyond what a test can know; and the list of all.

The rows themselves are those of `verdict_rows`, where it is said what a scene is.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from verdict_rows import (
    MEAN,
    Scene,
    alike,
    binary,
    bleu,
    chrf,
    continuous,
    f1_macro,
    f1_macro_unlike,
    likelihoods,
    perplexity,
    rarely_right,
    scored,
    skewed_gains,
    skewed_losses,
    span_f1,
    spans,
)

from pegbox.metrics import FloatArray


def _groups(rng: Generator, n: int) -> np.ndarray:
    """Units of rows in n groups of very unequal sizes, 1 to 60 rows, by one of three laws."""
    sizes = (rng.geometric(0.25, n), np.ceil(rng.lognormal(1, 1, n)).astype(int), rng.zipf(2.0, n))[rng.integers(3)]
    return np.repeat(np.arange(n), np.minimum(sizes, 60))


def grouped_binary(rng: Generator, n: int) -> Scene:
    """Right or wrong; each system is good at some groups and bad at others."""
    units, mean = _groups(rng, n), rng.uniform(0.1, 0.9)
    usual = rng.beta(mean, 1 - mean, n)

    def system() -> FloatArray:
        return scored(rng.random(len(units)) < np.clip(usual + rng.normal(0, 0.4, n), 0, 1)[units])

    return alike(MEAN, system, units)


def _grouped_scores(rng: Generator, units: np.ndarray) -> Scene:
    groups = int(units.max()) + 1
    usual = rng.normal(0, 1, groups)

    def system() -> FloatArray:
        return scored((usual + rng.normal(0, 1, groups))[units] + rng.normal(0, 0.5, len(units)))

    return alike(MEAN, system, units)


def grouped_continuous(rng: Generator, n: int) -> Scene:
    """A score per row; most of what differs between systems differs between groups."""
    return _grouped_scores(rng, _groups(rng, n))


def grouped_span_f1(rng: Generator, n: int) -> Scene:
    """A ratio of counts over groups."""
    return spans(rng, _groups(rng, n), 0.3)


def grouped_perplexity(rng: Generator, n: int) -> Scene:
    """Likelihoods of texts in groups."""
    return likelihoods(rng, _groups(rng, n))


def dominated(rng: Generator, n: int) -> Scene:
    """One group has a quarter as many rows as all others, as many, or ten times as many."""
    sizes = np.ones(n, dtype=int)
    sizes[0] = rng.choice([n // 4, n, 10 * n])
    return _grouped_scores(rng, np.repeat(np.arange(n), sizes))


KINDS = (
    binary,
    rarely_right,
    continuous,
    skewed_losses,
    skewed_gains,
    perplexity,
    bleu,
    chrf,
    f1_macro,
    f1_macro_unlike,
    span_f1,
    grouped_binary,
    grouped_continuous,
    grouped_span_f1,
    grouped_perplexity,
    dominated,
)


def better_by_ten_points(rng: Generator, n: int) -> Scene:
    """Not a null case: 20 % of the rows tell tuned from its rival, 15 % for it and 5 % against it."""
    right, outcome = rng.random(n) < 0.3, rng.choice(3, n, p=[0.15, 0.05, 0.8])
    rival = np.where(outcome == 2, right, outcome == 1)
    tuned = np.where(outcome == 2, right, outcome == 0)
    return Scene(MEAN, lambda: scored(rival), lambda: scored(tuned), np.arange(n))


def rare_disasters(rng: Generator, n: int) -> Scene:
    """Equal in the mean, but one row in n is a disaster: what no resampling of rows that lack it can know."""
    usual, chance = rng.normal(0, 0.1, n), 1 / n
    return Scene(
        MEAN,
        lambda: scored(usual),
        lambda: scored(usual + chance * rng.normal(1, 0.1, n) - (rng.random(n) < chance)),
        np.arange(n),
    )


def lognormal_losses(rng: Generator, n: int) -> Scene:
    """Equal in the mean, differences as skewed as a lognormal of sigma 1 (skewness 6)."""
    usual = rng.normal(0, 0.1, n)
    return Scene(
        MEAN,
        lambda: scored(usual),
        lambda: scored(usual + np.exp(0.5) - rng.lognormal(0, 1, n)),
        np.arange(n),
    )


LIMITS = (rare_disasters, lognormal_losses)
