"""BLEU and chrF with their intervals are those of sacreBLEU's own paired bootstrap, up to what is drawn.

Both resample rows and recompute the metric from the sums of its statistics. sacreBLEU takes the plain 2.5 % from either
end of the resampled values; ours goes out a little further (`evaluation.bootstrap` says why and how far): its ends are held
against sacreBLEU's values at those places. sacreBLEU's p-value is of one tail, ours of both.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.significance import PairedTest, _bootstrap_resample, _compute_p_value
from scipy import stats

from pegbox.evaluation import bootstrap
from pegbox.evaluation.bootstrap import Distribution, Units, resampled_values
from pegbox.metrics import METRICS, Metric

THEIRS = {"bleu": BLEU, "chrf": CHRF}
ROWS, RESAMPLES, SEEDS = 200, 1000, range(1, 6)  # a seed of 0 is none to sacreBLEU
WORDS = [  # the frequent ones first
    *("the", "of", "to", "a", "and", "light", "door", "is", "in", "kitchen", "on", "it"),
    *("off", "please", "turn", "set", "for", "down", "window", "room", "garden", ";", ",", "."),
]
MENDED = 0.165  # of the words, by tuning; it spoils others
TOLERANCE = 5  # standard errors of what is drawn


def sentences(seed: int = 3) -> tuple[list[str], list[str], list[str]]:
    """What an untouched and a tuned system might write, and the references, of 4 to 24 words."""
    rng = np.random.default_rng(seed)
    chance = 1 / np.arange(1, len(WORDS) + 1)
    chance /= chance.sum()

    def some(count: int) -> list[str]:
        return [str(word) for word in rng.choice(WORDS, count, p=chance)]

    def spoilt(words: list[str], kept: float) -> list[str]:
        return [word if rng.random() < kept else some(1)[0] for word in words]

    def mended(words: list[str], right: list[str]) -> list[str]:
        return [wanted if rng.random() < MENDED else word for word, wanted in zip(words, right, strict=True)]

    references = [some(int(rng.integers(4, 25))) for _ in range(ROWS)]
    before = [spoilt(words, 0.72 * rng.uniform(0.6, 1.2)) for words in references]
    after = [spoilt(mended(words, right), 0.95) for words, right in zip(before, references, strict=True)]
    base, tuned, right = ([" ".join(words) for words in texts] for texts in (before, after, references))
    return base, tuned, right


BASE, TUNED, REFERENCES = sentences()


def ours(metric: Metric, seed: int) -> np.ndarray:
    """Resampled values [RESAMPLES, 2] of the untouched and of the tuned system."""
    rows = np.stack([metric.statistics(answers, REFERENCES) for answers in (BASE, TUNED)], axis=1)
    own = 1000 + seed  # by the same seed both would draw the same
    return resampled_values(metric, rows, Units.of(np.arange(ROWS)), seed=own, resamples=RESAMPLES)


def theirs(name: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, Any]:
    """sacreBLEU's resampled values [RESAMPLES] of the tuned system, and its result of the paired test."""
    monkeypatch.setenv("SACREBLEU_SEED", str(seed))
    scorer = THEIRS[name]()
    drawn = _bootstrap_resample(scorer._extract_corpus_statistics(TUNED, [REFERENCES]), scorer, RESAMPLES)[1]
    systems = [("base", BASE), ("tuned", TUNED)]
    test = PairedTest(systems, {name: scorer}, references=[REFERENCES], test_type="bs", n_samples=RESAMPLES)
    ((_, results),) = [item for item in test()[1].items() if item[0] != "System"]
    return np.array([one.score for one in drawn]), results[1]


def quantile_error(share: float, spread: float) -> float:
    """The standard error of a quantile of RESAMPLES normal values."""
    density = stats.norm.pdf(stats.norm.ppf(share)) / spread
    return math.sqrt(share * (1 - share) / RESAMPLES) / density


def check_intervals(metric: Metric, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Value, mean, plain interval and our interval, each a mean over the seeds."""
    assert metric.of(metric.statistics(TUNED, REFERENCES)) == pytest.approx(
        THEIRS[name]().corpus_score(TUNED, [REFERENCES]).score, abs=1e-9
    )
    found, wanted = [], []
    for seed in SEEDS:
        values, (drawn, result) = np.sort(ours(metric, seed)[:, 1]), theirs(name, seed, monkeypatch)
        drawn.sort()
        out = RESAMPLES // 40  # as sacreBLEU counts
        spread = stats.t.ppf(0.975, ROWS - 1) * math.sqrt(ROWS / (ROWS - 1))
        shift = stats.skew(drawn) / 6 * (spread**2 + 2)
        low, high = (stats.norm.cdf(-spread - max(0.0, move)) for move in (-shift, shift))
        calibrated = Distribution(values, Units.of(np.arange(ROWS))).interval()
        found.append([values.mean(), values[out], values[-1 - out], (values[-1 - out] - values[out]) / 2, *calibrated])
        ends = np.quantile(drawn, [low, 1 - high])
        wanted.append([result.mean, drawn[out], drawn[-1 - out], result.ci, *ends])
        assert result.score == pytest.approx(metric.of(metric.statistics(TUNED, REFERENCES)), abs=1e-9)
    spread = float(np.std(ours(metric, 0)[:, 1]))
    errors = np.array(
        [spread / math.sqrt(RESAMPLES), *[quantile_error(0.025, spread)] * 3, *[quantile_error(0.02, spread)] * 2]
    )
    gap = np.abs(np.mean(found, axis=0) - np.mean(wanted, axis=0))
    assert (gap < TOLERANCE * errors * math.sqrt(2 / len(SEEDS))).all(), (gap / errors).round(2)
    low, high = np.mean(found, axis=0)[4:]
    assert low <= np.mean(found, axis=0)[1] and high >= np.mean(found, axis=0)[2], "ours goes out further"


@pytest.mark.parametrize("name", THEIRS)
def test_the_interval_is_that_of_sacrebleus_resamples(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_intervals(METRICS[name], name, monkeypatch)


def check_p_values(metric: Metric, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """sacreBLEU's p-value of our resamples is sacreBLEU's; our own, of both tails, is about twice that."""
    difference = np.subtract(*(metric.of(metric.statistics(answers, REFERENCES)) for answers in (TUNED, BASE)))
    one_tail, both, wanted = [], [], []
    for seed in SEEDS:
        values = ours(metric, seed)
        drawn = values[:, 1] - values[:, 0]
        distances = np.abs(drawn)
        one_tail.append(_compute_p_value(distances - distances.mean(), abs(difference)))
        both.append(Distribution(drawn, Units.of(np.arange(ROWS))).p_value())
        wanted.append(theirs(name, seed, monkeypatch)[1].p_value)
    share = float(np.mean(wanted))
    assert 0.005 < share < 0.1, "else little is said"
    error = math.sqrt(2 * share * (1 - share) / RESAMPLES / len(SEEDS))
    assert abs(np.mean(one_tail) - share) < TOLERANCE * error
    assert np.mean(both) / 2 == pytest.approx(share, rel=0.3, abs=TOLERANCE * error)


@pytest.mark.parametrize("name", THEIRS)
def test_the_p_value_is_sacrebleus_for_both_tails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_p_values(METRICS[name], name, monkeypatch)


def of_rows(metric: Metric) -> Metric:
    """Bug: a mean of the values of single rows."""
    right = metric.value
    assert right is not None

    def each(answers: Any, references: Any) -> np.ndarray:
        values = right(metric.statistics(answers, references))
        return np.stack([values, np.ones_like(values)], axis=1)

    return replace(metric, statistics=each, value=lambda sums: sums[..., 0] / sums[..., 1])


@pytest.mark.parametrize("name", THEIRS)
def test_a_mean_over_rows_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError):
        check_intervals(of_rows(METRICS[name]), name, monkeypatch)


def test_an_interval_of_fewer_rows_than_there_are_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = bootstrap.draw_weights

    def halved(rng: np.random.Generator, size: int, units: int) -> np.ndarray:
        """Bug: every second row is never drawn, the others twice as often."""
        return np.repeat(right(rng, size, units // 2), 2, axis=1) * np.tile([2.0, 0.0], units // 2)

    monkeypatch.setattr(bootstrap, "draw_weights", halved)
    with pytest.raises(AssertionError):
        check_intervals(METRICS["bleu"], "bleu", monkeypatch)


def test_systems_that_are_resampled_each_by_itself_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ours

    def unpaired(metric: Metric, seed: int) -> np.ndarray:
        return np.stack([right(metric, seed)[:, 0], right(metric, seed + 100)[:, 1]], axis=1)

    monkeypatch.setitem(globals(), "ours", unpaired)
    with pytest.raises(AssertionError):
        check_p_values(METRICS["bleu"], "bleu", monkeypatch)
