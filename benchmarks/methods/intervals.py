"""The means over seeds of several methods on the same test rows, with intervals over rows and seeds.

A resample b draws rows with replacement (as `pegbox.evaluation.bootstrap` does, all methods and seeds alike) and, apart
from that, S of the S seeds, w_s times the seed s. With v_s the score of seed s on the rows drawn, its value is

    x = mean over s of v_s + sqrt(S / (S - 1)) sum over s of (w_s / S - 1 / S) v_s

The factor makes the seeds' share of the variance that of a mean of S independent runs, which plain resampling of so few
leaves too small. Rows and seeds are drawn alike for all methods, so that differences are paired: the same seed shuffles
the same rows and draws the same head. The ends of the interval are those of the verdict's intervals.

Three seeds say little about how much seeds matter; the scores of each stand beside. In simulations (`coverage.py`, three
seeds) such intervals hold the truth in 97 to 99 % of cases while the seeds' standard deviation is at most one and a half
times the rows' standard error, and in 88 % at four times that; intervals over rows alone in 85 to 96 %, and in 48 %. No
interval is corrected for the number of methods.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from designs import FULL, METRIC

from pegbox.evaluation.bootstrap import RESAMPLES, Distribution, Units, paired_difference, resampled_values
from pegbox.metrics import FloatArray, lookup, paired_statistics

Lines = Sequence[Mapping[str, Any]]
RIVALS = ("trivial", "bag_of_words", "linear_probe")  # systems of every run's evaluation that hang on no method
SEED = 0


def judge(predictions: Mapping[str, Sequence[Lines]]) -> dict[str, Any]:
    """Score, interval and difference to full fine-tuning of each method, from the lines of its runs, one for each seed."""
    seeds = len(predictions[FULL])
    values, resampled, units = _scores(predictions)
    draws = np.random.default_rng(SEED).multinomial(seeds, [1 / seeds] * seeds, size=len(resampled))
    found, full = {}, over_seeds(resampled[:, :seeds], draws)
    for index, method in enumerate(predictions):
        own = slice(index * seeds, (index + 1) * seeds)
        drawn = over_seeds(resampled[:, own], draws)
        found[method] = {
            METRIC: _told(float(values[own].mean()), drawn, units) | {"by_seed": values[own].tolist()},
            "minus_full": _told(float((values[own] - values[:seeds]).mean()), paired_difference(drawn, full), units),
        }
    return found


def rivals(lines: Lines) -> dict[str, Any]:
    """Scores of what needs no training of the encoder, from the lines of any run."""
    answers = {name: [line["answers"][name] for line in lines] for name in RIVALS}
    values, resampled, units = _resampled(answers, lines)
    return {name: _told(float(values[i]), resampled[:, i], units) for i, name in enumerate(answers)}


def over_seeds(resampled: FloatArray, draws: np.ndarray) -> FloatArray:
    """x [B] from v [B, S] and how often each seed was drawn [B, S]; see above."""
    seeds = resampled.shape[1]
    widened = math.sqrt(seeds / max(1, seeds - 1))
    shares: FloatArray = 1 / seeds + widened * (draws / seeds - 1 / seeds)
    return np.asarray((resampled * shares).sum(axis=1))


def _scores(predictions: Mapping[str, Sequence[Lines]]) -> tuple[FloatArray, FloatArray, Units]:
    first = predictions[FULL][0]
    answers = {}
    assert next(iter(predictions)) == FULL
    for method, runs in predictions.items():
        assert len(runs) == len(predictions[FULL])
        for number, lines in enumerate(runs):
            assert [line["id"] for line in lines] == [line["id"] for line in first], "runs were judged on other rows"
            answers[f"{method} {number}"] = [line["answers"]["tuned"] for line in lines]
    return _resampled(answers, first)


def _resampled(answers: Mapping[str, Sequence[Any]], lines: Lines) -> tuple[FloatArray, FloatArray, Units]:
    """Values [S] of systems, resampled values [B, S], and what was resampled."""
    metric, units = lookup(METRIC), Units.of(np.array([line["unit"] for line in lines]))
    statistics = np.stack(
        list(paired_statistics(metric, answers, [line["reference"] for line in lines]).values()), axis=1
    )
    values = np.array([metric.of(statistics[:, system]) for system in range(len(answers))])
    return values, resampled_values(metric, statistics, units, seed=SEED, resamples=RESAMPLES), units


def _told(value: float, resampled: FloatArray, units: Units) -> dict[str, Any]:
    low, high = Distribution(resampled, units).interval()
    return {"value": value, "low": low, "high": high}
