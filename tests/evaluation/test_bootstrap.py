"""The bootstrap against slow versions of itself, its calibration against the formula, and values that are not finite."""

from __future__ import annotations

import math
import random
import statistics as stdlib
import tracemalloc
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from pegbox.evaluation import bootstrap
from pegbox.evaluation.bootstrap import Distribution, Units, paired_difference, resampled_values
from pegbox.evaluation.pairwise import rank
from pegbox.evaluation.verdict import interval_of, judge
from pegbox.metrics import METRICS, FloatArray, Metric, paired_statistics

MEAN = METRICS["exact_match"]


def scored(scores: Sequence[float] | np.ndarray) -> FloatArray:
    return np.stack([np.asarray(scores, dtype=float), np.ones(len(scores))], axis=1)


def naive_bootstrap(
    metric: Metric, answers: list[str], references: list[str], units: list[int], resamples: int
) -> list[float]:
    """Draws groups, collects their rows, scores them from scratch."""
    draw = random.Random(0)
    groups = {unit: [row for row, own in enumerate(units) if own == unit] for unit in set(units)}
    values = []
    for _ in range(resamples):
        drawn = [row for unit in draw.choices(sorted(groups), k=len(groups)) for row in groups[unit]]
        rows = metric.statistics([answers[row] for row in drawn], [references[row] for row in drawn])
        values.append(float(metric.value(rows.sum(axis=0))))
    return sorted(values)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("name", ["exact_match", "f1_macro", "chrf"])
def test_resampled_values_have_the_distribution_of_a_naive_bootstrap(name: str, grouped: bool) -> None:
    rng = np.random.default_rng(0)
    references = rng.choice(["kitchen", "bedroom", "hall"], 60, p=[0.6, 0.3, 0.1]).tolist()
    units = np.sort(rng.integers(0, 20, 60)) if grouped else np.arange(60)
    # right or wrong by group, so that ignoring the groups would show
    answers = [row if unit % 3 else "bedroom" for row, unit in zip(references, units, strict=True)]
    metric = METRICS[name]
    naive = naive_bootstrap(metric, answers, references, units.tolist(), 1_500)
    rows = metric.statistics(answers, references)[:, None, :]
    fast = np.sort(resampled_values(metric, rows, Units.of(units), seed=1, resamples=10_000)[:, 0])
    spread = stdlib.stdev(naive)
    assert fast.std() == pytest.approx(spread, rel=0.08)
    for share in (0.025, 0.25, 0.5, 0.75, 0.975):
        assert np.quantile(fast, share) == pytest.approx(np.quantile(naive, share), abs=0.25 * spread)


def test_the_interval_of_many_rows_is_that_of_plain_percentiles() -> None:
    scores = np.random.default_rng(2).random(800)
    found = interval_of(MEAN, scored(scores), np.arange(800), seed=3)
    low, high = np.quantile(np.random.default_rng(4).choice(scores, (4_000, 800)).mean(axis=1), [0.025, 0.975])
    error = scores.std() / math.sqrt(800)
    assert found.value == pytest.approx(scores.mean())
    assert (found.low, found.high) == (pytest.approx(low, abs=0.12 * error), pytest.approx(high, abs=0.12 * error))


def test_the_interval_of_few_rows_is_as_wide_as_students() -> None:
    scores = np.random.default_rng(5).normal(size=30)
    found = interval_of(MEAN, scored(scores), np.arange(30), seed=6, resamples=100_000)
    student = stats.t.interval(0.95, 29, loc=scores.mean(), scale=stats.sem(scores))
    assert found.high - found.low == pytest.approx(student[1] - student[0], rel=0.04)


def test_few_effective_units_widen_the_interval_as_their_degrees_of_freedom_ask() -> None:
    sizes = np.array([40] * 5 + [1] * 40)
    units = Units.of(np.repeat(np.arange(45), sizes))
    effective = 240**2 / (5 * 1600 + 40)
    assert units.effective == pytest.approx(effective)
    values = np.random.default_rng(7).normal(size=200_000)
    low, high = Distribution(values, units).interval()
    expected = stats.t.isf(0.025, effective - 1) * math.sqrt(45 / 44)
    assert (low, high) == (pytest.approx(-expected, rel=0.03), pytest.approx(expected, rel=0.03))


def test_skewness_moves_the_end_of_the_long_tail_outwards_and_the_other_not_at_all() -> None:
    values = np.random.default_rng(8).exponential(size=100_000)  # skewness 2
    units = Units.of(np.arange(10_000))
    low, high = Distribution(values, units).interval()
    assert low == pytest.approx(np.quantile(values, 0.025), rel=0.05)
    assert high == pytest.approx(stats.expon.isf(stats.norm.sf(1.96 + 2 / 6 * (1.96**2 + 2))), rel=0.1)
    mirrored = Distribution(-values, units).interval()
    assert mirrored == (-high, -low)


def test_the_p_value_says_what_the_interval_says() -> None:
    seen = set()
    for seed in range(300):
        rng = np.random.default_rng(seed)
        units = Units.of(np.repeat(np.arange(40), rng.geometric(rng.uniform(0.2, 1), 40)))
        shape = rng.gamma(2, size=999) * rng.choice([-1, 1]) if rng.random() < 0.5 else rng.normal(size=999)
        spread = Distribution(shape - np.median(shape) + rng.normal(0, 3), units)
        low, high = spread.interval()
        significant = low > 0 or high < 0
        assert (spread.p_value() <= 0.05) == significant
        seen.add(significant)
    assert seen == {True, False}


def test_the_p_value_of_many_units_is_twice_the_smoothed_share_of_resamples_beyond_zero() -> None:
    values = np.linspace(-1, 3, 9_999) ** 3
    even = np.concatenate([values, 2 * values.mean() - values])  # symmetric: nothing to correct
    beyond = int((even <= 0).sum())
    found = Distribution(even, Units.of(np.arange(1_000_000))).p_value()
    assert found == pytest.approx(2 * (beyond + 1) / (len(even) + 1), rel=1e-3)


def test_a_p_value_is_never_zero_and_never_above_one() -> None:
    units = Units.of(np.arange(50))
    assert 0 < Distribution(np.full(1_000, 3.0), units).p_value() < 0.01
    assert Distribution(np.zeros(1_000), units).p_value() == 1.0
    assert Distribution(np.zeros(1_000), units).interval() == (0.0, 0.0)


def test_an_undefined_resample_counts_against_both_ends() -> None:
    units = Units.of(np.arange(100))
    values = np.linspace(1, 2, 1_000)
    few, many = values.copy(), values.copy()
    few[::500] = np.nan
    many[::10] = np.nan
    low, high = Distribution(few, units).interval()
    assert 1 <= low < Distribution(values, units).interval()[0] and high <= 2
    assert Distribution(many, units).interval() == (-math.inf, math.inf)
    assert Distribution(many, units).p_value() > 0.05
    assert Distribution(np.full(100, np.nan), units).interval() == (-math.inf, math.inf)


def test_one_unit_has_no_interval() -> None:
    found = interval_of(MEAN, scored([1.0, 0.0]), np.array([4, 4]), seed=0)
    assert (found.value, found.low, found.high) == (0.5, -math.inf, math.inf)
    assert Distribution(np.ones(10), Units.of(np.array([4, 4]))).p_value() == 1.0


def test_an_end_that_no_resample_reaches_is_infinite() -> None:
    three = interval_of(MEAN, scored([0.1, 0.5, 0.9]), np.arange(3), seed=0)
    assert (three.low, three.high) == (-math.inf, math.inf)
    five = interval_of(MEAN, scored([0.1, 0.4, 0.5, 0.6, 0.9]), np.arange(5), seed=0)
    assert 0.1 <= five.low < 0.3 and 0.7 < five.high <= 0.9


def test_a_resample_without_the_infinite_row_is_finite() -> None:
    metric = METRICS["perplexity"]
    answers: list[dict[str, float] | None] = [{"nll": 2.0, "tokens": 1}] * 4
    rows = paired_statistics(metric, {"tuned": [*answers, None]}, [""] * 5)["tuned"]
    values = resampled_values(metric, rows[:, None, :], Units.of(np.arange(5)), seed=0, resamples=4_000)[:, 0]
    assert set(np.round(values, 9)) == {round(math.exp(2), 9), math.inf}
    assert np.isfinite(values).mean() == pytest.approx(0.8**5, abs=0.04)


def test_differences_by_rounding_are_no_differences() -> None:
    left = np.array([0.1 + 0.2, 1.0, math.inf, math.inf, 5.0, 1e-6])
    right = np.array([0.3, 0.9, math.inf, 1.0, math.nan, 0.0])
    found = paired_difference(left, right)
    np.testing.assert_allclose(found[[0, 1, 2, 3, 5]], [0.0, 0.1, 0.0, math.inf, 1e-6])
    assert found[0] == 0 and math.isnan(found[4])


# --- metrics of ranks: what is resampled are weights of rows ---

ANSWERS = np.round(np.random.default_rng(20).normal(size=60), 1)  # with ties
RIGHT = np.round(ANSWERS + np.random.default_rng(21).normal(size=60), 1)
POSITIVE = (RIGHT > 0.3).astype(float)
RANKED = {  # the metric: statistics [n, k], and its value on some rows as other libraries have it
    "pearson": (np.stack([ANSWERS, RIGHT], axis=1), lambda rows: stats.pearsonr(ANSWERS[rows], RIGHT[rows])[0]),
    "spearman": (np.stack([ANSWERS, RIGHT], axis=1), lambda rows: stats.spearmanr(ANSWERS[rows], RIGHT[rows])[0]),
    "auroc": (np.stack([ANSWERS, POSITIVE], axis=1), lambda rows: roc_auc_score(POSITIVE[rows], ANSWERS[rows])),
}


def drawn_rows(units: np.ndarray, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """The rows of each resample, written out as often as they were drawn."""
    count = len(np.unique(units))
    for drawn in np.random.default_rng(seed).integers(0, count, size=(resamples, count)):
        yield np.concatenate([np.flatnonzero(units == unit) for unit in drawn])


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("name", RANKED)
def test_a_resample_of_ranks_is_scored_as_its_rows_written_out(name: str, grouped: bool) -> None:
    units = np.arange(60) // 4 if grouped else np.arange(60)
    rows, oracle = RANKED[name]
    found = resampled_values(METRICS[name], rows[:, None, :], Units.of(units), seed=9, resamples=150)[:, 0]
    expected = [oracle(drawn) for drawn in drawn_rows(units, 9, 150)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert np.std(found) > 0.02


def test_both_forms_of_a_metric_have_the_same_resamples_and_values() -> None:
    """Else tuned and a rival, or two metrics of one system, would be compared on different rows."""
    sums = METRICS["mae"]
    ranked = Metric(
        "mae",
        sums.statistics,
        greater_is_better=False,
        weighted=lambda rows, weights: (weights @ rows[:, 0]) / weights.sum(axis=1),
    )
    rng = np.random.default_rng(3)
    statistics = np.stack([scored(rng.random(50)), scored(rng.random(50))], axis=1)
    for units in (Units.of(np.arange(50)), Units.of(rng.integers(0, 12, 50))):
        one, other = (resampled_values(m, statistics, units, seed=5, resamples=300) for m in (sums, ranked))
        np.testing.assert_allclose(one, other, rtol=1e-12)
    assert (
        judge(sums, {"tuned": statistics[:, 0], "base": statistics[:, 1]}, np.arange(50), seed=2).verdict == "not shown"
    )


@pytest.mark.parametrize("name", RANKED)
def test_a_metric_of_ranks_is_judged_and_ranked_like_any_other(name: str) -> None:
    rng = np.random.default_rng(4)
    right = rng.normal(size=200)
    outcome = (right > 0).astype(float) if name == "auroc" else right
    systems = {"tuned": right + rng.normal(0, 0.3, 200), "base": right + rng.normal(0, 3, 200)}
    statistics = {system: np.stack([given, outcome], axis=1) for system, given in systems.items()}
    found = judge(METRICS[name], statistics, np.arange(200), seed=0, resamples=1_000)
    assert found.verdict == "better" and found.systems["tuned"].low <= found.systems["tuned"].value
    assert rank(METRICS[name], statistics, np.arange(200), seed=0, resamples=1_000).best == "tuned"


def test_a_metric_of_ranks_that_decides_nothing_has_fewer_resamples() -> None:
    rows = RANKED["pearson"][0]
    few, many = (
        interval_of(METRICS["pearson"], rows, np.arange(60), seed=1, resamples=count)
        for count in (bootstrap.RANKED_RESAMPLES, bootstrap.RESAMPLES)
    )
    assert few == many
    assert interval_of(METRICS["pearson"], rows, np.arange(60), seed=1, resamples=500) != few


@pytest.mark.parametrize(("metric", "width"), [(MEAN, 2), (METRICS["spearman"], 2), (METRICS["auroc"], 6)])
def test_the_cut_into_chunks_changes_nothing(metric: Metric, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = np.random.default_rng(1).integers(0, 2, (40, 3, width)).astype(float)
    statistics[:, :, : width // 2] += np.random.default_rng(2).integers(1, 9, (40, 3, width // 2))
    units = Units.of(np.arange(40) // 2)
    whole = resampled_values(metric, statistics, units, seed=5, resamples=500)
    monkeypatch.setattr(bootstrap, "_CHUNK_FLOATS", 46 * 7)
    assert np.array_equal(resampled_values(metric, statistics, units, seed=5, resamples=500), whole, equal_nan=True)


@pytest.mark.parametrize(("name", "width", "most"), [("f1_macro", 300, 200e6), ("spearman", 2, 100e6)])
def test_the_memory_of_a_thousand_units_is_bounded(name: str, width: int, most: float) -> None:
    statistics = np.random.default_rng(0).random((1_000, 3, width))
    units = Units.of(np.arange(1_000))
    tracemalloc.start()
    resampled_values(METRICS[name], statistics, units, seed=0, resamples=10_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < most
