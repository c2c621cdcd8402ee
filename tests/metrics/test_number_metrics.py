"""Metrics of numbers against scikit-learn and scipy: one target and several, near zero and far from it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score, root_mean_squared_error

from pegbox.metrics import METRICS

Oracle = Callable[[np.ndarray, np.ndarray], float]


def by_target(correlation: Callable[[np.ndarray, np.ndarray], tuple[float, float]]) -> Oracle:
    def mean(true: np.ndarray, given: np.ndarray) -> float:
        columns = zip(true.reshape(len(true), -1).T, given.reshape(len(true), -1).T, strict=True)
        return float(np.mean([correlation(one, other)[0] if len(one) > 1 else math.nan for one, other in columns]))

    return mean


ORACLES: dict[str, Oracle] = {
    "mse": mean_squared_error,
    "rmse": root_mean_squared_error,
    "mae": mean_absolute_error,
    "r2": r2_score,
    "pearson": by_target(stats.pearsonr),
    "spearman": by_target(stats.spearmanr),
}


def drawn(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """True and given numbers [n] or [n, K]: with ties, constant columns, perfect answers, one row; large and small."""
    rows, targets = int(rng.integers(1, 25)), int(rng.integers(1, 4))
    true = rng.normal(rng.choice([0, 3, 1e4]), rng.choice([0.01, 1, 1e3]), (rows, targets))
    given = true * rng.choice([1, 0.3, -1]) + rng.normal(0, rng.choice([0.001, 1, 100]), true.shape)
    form = rng.integers(0, 6)
    if form == 0:
        true, given = np.round(true), np.round(given)
    elif form == 1:
        true[:, 0] = 0.5 * int(rng.integers(-9, 9))
    elif form == 2:
        given[:, -1] = 0.25 * int(rng.integers(-9, 9))
    elif form == 3:
        given = true.copy()
    return (true[:, 0], given[:, 0]) if targets == 1 else (true, given)


@pytest.mark.parametrize("name", ORACLES)
def test_values_of_1000_fuzzed_cases_are_scikit_learns_and_scipys(name: str) -> None:
    undefined = 0
    for seed in range(1_000):
        true, given = drawn(np.random.default_rng(seed))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of constants, and of one row
            expected = ORACLES[name](true, given)
        undefined += math.isnan(expected)
        found = METRICS[name](given.tolist(), true.tolist())
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True)
    assert (undefined > 20) == (name in ("r2", "pearson", "spearman")) and undefined < 500


@pytest.mark.parametrize("name", ORACLES)
def test_a_list_of_one_number_is_that_number(name: str) -> None:
    rng = np.random.default_rng(0)
    true, given = rng.normal(size=9), rng.normal(size=9)
    alone = METRICS[name](given[:, None].tolist(), true[:, None].tolist())
    assert alone == METRICS[name](given.tolist(), true.tolist())


def test_the_rmse_of_targets_is_the_mean_of_their_roots() -> None:
    """Mutation: the root of their mean, and the mean over rows of a row's root."""
    true, given = [[0, 0], [0, 0]], [[3, 1], [1, 7]]
    assert METRICS["rmse"](given, true) == pytest.approx((math.sqrt(5) + math.sqrt(25)) / 2)
    assert METRICS["rmse"](given, true) != pytest.approx(math.sqrt(METRICS["mse"](given, true)))
    assert METRICS["rmse"]([3.0, 1.0], [0.0, 0.0]) == pytest.approx(math.sqrt(5)) != pytest.approx((3 + 1) / 2)


def test_answers_and_references_do_not_change_places() -> None:
    rng = np.random.default_rng(1)
    true = rng.normal(size=30)
    given = (2 * true + 1).tolist()
    assert METRICS["r2"](given, true.tolist()) == pytest.approx(r2_score(true, given))
    assert METRICS["r2"](true.tolist(), given) != pytest.approx(r2_score(true, given), abs=0.5)


def exact_r2(given: np.ndarray, true: np.ndarray) -> float:
    """In fractions, without rounding."""
    numbers, answers = [Fraction(float(value)) for value in true], [Fraction(float(value)) for value in given]
    mean = sum(numbers) / len(numbers)
    spread = sum((value - mean) ** 2 for value in numbers)
    return float(1 - sum((a - b) ** 2 for a, b in zip(answers, numbers, strict=True)) / spread)


def exact_correlation(given: np.ndarray, true: np.ndarray) -> float:
    one, other = ([Fraction(float(value)) for value in values] for values in (given, true))
    one, other = ([value - sum(values) / len(values) for value in values] for values in (one, other))
    squared = sum(a * b for a, b in zip(one, other, strict=True)) ** 2 / (
        sum(a * a for a in one) * sum(b * b for b in other)
    )
    return math.sqrt(squared)


@pytest.mark.parametrize("far", [0.0, 1e6, 1e9, -1e12])
def test_no_digits_are_lost_far_from_zero(far: float) -> None:
    """Mutation: variances as differences of sums of squares, which at 1e9 have no digit left."""
    rng = np.random.default_rng(2)
    true = far + np.round(rng.normal(size=40), 3)
    given = true + np.round(rng.normal(0, 0.5, 40), 3)
    assert METRICS["r2"](given.tolist(), true.tolist()) == pytest.approx(exact_r2(given, true), rel=1e-9)
    assert METRICS["pearson"](given.tolist(), true.tolist()) == pytest.approx(exact_correlation(given, true), rel=1e-9)
    naive = 1 - ((given - true) ** 2).sum() / ((true**2).sum() - true.sum() ** 2 / 40)
    assert (abs(naive - exact_r2(given, true)) > 1e-3) == (abs(far) >= 1e9)


def test_a_resample_far_from_the_others_keeps_its_digits() -> None:
    """An outlier moves the mean of all rows, not their median; most resamples do not hold it."""
    rng = np.random.default_rng(3)
    true = np.append(rng.normal(size=30), 1e9)
    given = true + np.append(rng.normal(0, 0.5, 30), 0)
    statistics = METRICS["r2"].statistics(given.tolist(), true.tolist())
    assert METRICS["r2"].of(statistics[:30]) == pytest.approx(exact_r2(given[:30], true[:30]), rel=1e-9)


@pytest.mark.parametrize("scale", [1e-200, 1e-150, 1e150])
def test_correlations_neither_overflow_nor_vanish(scale: float) -> None:
    rng = np.random.default_rng(4)
    true, given = rng.normal(size=20), rng.normal(size=20)
    for name in ("pearson", "spearman"):
        expected = METRICS[name](given.tolist(), true.tolist())
        assert METRICS[name]((scale * given).tolist(), (scale * true).tolist()) == pytest.approx(expected, rel=1e-9)


def test_a_correlation_is_never_above_one_by_rounding() -> None:
    for seed in range(300):
        true = np.random.default_rng(seed).normal(size=7)
        found = METRICS["pearson"]((3.1 * true + 0.7).tolist(), true.tolist())
        assert found <= 1.0 and found == pytest.approx(1.0, abs=1e-12)


def test_r2_of_constant_references_follows_scikit_learn() -> None:
    assert METRICS["r2"]([0.1, 0.1, 0.1], [0.1, 0.1, 0.1]) == 1.0
    assert METRICS["r2"]([0.1, 0.1, 0.3], [0.1, 0.1, 0.1]) == 0.0
    assert math.isnan(METRICS["r2"]([0.1], [0.1]))


def test_a_resample_of_equal_rows_is_constant_wherever_the_others_are() -> None:
    """Mutation: constant is what is constant over all rows, or what has no spread but that of rounding."""
    rng = np.random.default_rng(5)
    for _ in range(200):
        equal, number = int(rng.integers(2, 9)), float(rng.normal())
        true = np.append(np.full(equal, number), rng.normal(3, 1, 20))
        given = np.append(rng.normal(size=equal), rng.normal(size=20))
        weights = np.append(rng.integers(1, 4, equal), np.zeros(20))[None].astype(float)
        for name, one, other in (("r2", given, true), ("pearson", given, true), ("pearson", true, given)):
            found = METRICS[name].values(METRICS[name].statistics(one.tolist(), other.tolist()), weights)[0]
            assert found == 0.0 if name == "r2" else math.isnan(found)


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, -math.inf])
def test_a_missing_answer_is_as_wrong_as_can_be(missing: float | None) -> None:
    """Mutations: it is left out, or is 0."""
    true = [1.0, 2.0, 3.0, 4.0]
    worst = {"mse": math.inf, "rmse": math.inf, "mae": math.inf, "r2": -math.inf, "pearson": -1.0, "spearman": -1.0}
    assert {name: METRICS[name]([1.0, 2.0, 3.0, missing], true) for name in worst} == worst
    assert METRICS["r2"]([5.0, missing], [5.0, 5.0]) == -math.inf


def test_a_missing_target_is_the_worst_of_its_own() -> None:
    true, given = [[1, 5], [2, 7], [3, 6]], [[1, 5], [2, None], [3, 6]]
    assert METRICS["mse"](given, true) == METRICS["rmse"](given, true) == math.inf
    assert METRICS["pearson"](given, true) == pytest.approx((1 - 1) / 2)
    assert METRICS["mse"]([[1, 5], None, [3, 6]], true) == math.inf


def test_a_resample_without_the_missing_answer_has_a_value() -> None:
    true, given = [1.0, 2.0, 4.0, 3.0], [1.5, 2.0, 4.0, None]
    weights = np.array([[1.0, 2, 1, 0], [1, 1, 1, 1]])
    for name in ORACLES:
        found = METRICS[name].values(METRICS[name].statistics(given, true), weights)
        alone = METRICS[name]([1.5, 2.0, 2.0, 4.0], [1.0, 2.0, 2.0, 4.0])
        assert found[0] == pytest.approx(alone) and math.isfinite(found[0]) and found[1] != found[0]


def test_numbers_too_many_for_the_targets_are_our_bug() -> None:
    with pytest.raises(AssertionError, match="2 numbers where there are 1 targets"):
        METRICS["mse"]([[1.0, 2.0]], [1.0])
    with pytest.raises(AssertionError, match="without a reference"):
        METRICS["mse"]([1.0], [math.nan])
