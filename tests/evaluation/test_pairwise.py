"""Every system against every other: the numbers against a naive bootstrap, and the promises against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pegbox.evaluation.pairwise import Ranking, holm, rank
from pegbox.metrics import METRICS, FloatArray

MEAN, PERPLEXITY = METRICS["exact_match"], METRICS["perplexity"]


def scored(scores: np.ndarray) -> FloatArray:
    return np.stack([np.asarray(scores, dtype=float), np.ones(len(scores))], axis=1)


def ranked(systems: dict[str, np.ndarray], *, units: np.ndarray | None = None, resamples: int = 1_000) -> Ranking:
    statistics = {name: scored(scores) for name, scores in systems.items()}
    rows = len(next(iter(systems.values())))
    return rank(MEAN, statistics, np.arange(rows) if units is None else units, seed=3, resamples=resamples)


def unequal(rows: int, *shares: float, seed: int = 0) -> dict[str, np.ndarray]:
    """Systems that are right on the easiest of the same rows: each better one is right wherever a worse one is."""
    hardness = np.random.default_rng(seed).permutation(np.linspace(0, 1, rows, endpoint=False))
    return {chr(ord("a") + place): hardness < share for place, share in enumerate(shares)}


@pytest.mark.parametrize("grouped", [False, True])
def test_differences_and_intervals_are_those_of_a_naive_paired_bootstrap(grouped: bool) -> None:
    rng = np.random.default_rng(1)
    units = np.repeat(np.arange(100), 3) if grouped else np.arange(300)
    base = rng.random(300)[units * (2 if grouped else 1)]  # rows of a group are alike, so ignoring groups would show
    systems = {"a": base < 0.6, "b": rng.permutation(base) < 0.5}
    (pair,) = ranked(systems, units=units, resamples=10_000).pairs
    gain = systems["a"].astype(float) - systems["b"]
    of_unit = np.bincount(units, gain)
    draws = rng.integers(0, len(of_unit), (20_000, len(of_unit)))
    naive = of_unit[draws].sum(axis=1) / np.bincount(units)[draws].sum(axis=1)
    error = 6 * naive.std() / math.sqrt(10_000)  # of a quantile in the tail, some standard errors
    found = pair.comparison
    assert (pair.system, found.against) == ("a", "b")
    assert found.difference == pytest.approx(gain.mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(naive, (0.025, 0.975))), abs=error + 0.01)


def test_every_pair_is_compared_once_and_best_first() -> None:
    found = ranked({"c": np.arange(90) < 20, "a": np.arange(90) < 70, "b": np.arange(90) < 50})
    assert list(found.systems) == ["a", "b", "c"]
    assert [(pair.system, pair.comparison.against) for pair in found.pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert all(pair.comparison.difference > 0 and pair.shown for pair in found.pairs)
    assert found.best == "a" and found.units_needed is None and not found.rivals


def test_lower_is_better_where_the_metric_says_so() -> None:
    tokens = np.full(60, 10.0)
    worse, better = (np.stack([tokens * nats, tokens], axis=1) for nats in (3.0, 2.0))
    found = rank(PERPLEXITY, {"worse": worse, "better": better}, np.arange(60), seed=0, resamples=500)
    assert found.best == "better" and list(found.systems) == ["better", "worse"]
    assert found.pairs[0].comparison.difference == pytest.approx(math.e**3 - math.e**2)


def test_the_order_in_which_systems_are_given_changes_nothing() -> None:
    systems = unequal(100, 0.7, 0.6, 0.5)
    assert ranked(systems) == ranked(dict(reversed(systems.items())))


def test_adjusted_p_values_are_holms() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # worked by hand
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = rng.random(6) ** 3
        adjusted = holm(p.tolist())
        for level in (0.01, 0.05, 0.2, 0.5):  # Holm's procedure as it is told: step down, stop at the first that fails
            rejected = set()
            for step, index in enumerate(np.argsort(p)):
                if p[index] > level / (6 - step):
                    break
                rejected.add(index)
            assert rejected == {index for index in range(6) if adjusted[index] <= level}


def test_two_systems_of_equal_skill_have_no_best_in_95_of_100_cases() -> None:
    declared = 0
    for case in range(400):
        rng = np.random.default_rng(case)
        found = ranked({"a": rng.random(150) < 0.6, "b": rng.random(150) < 0.6}, resamples=500)
        declared += found.best is not None
    assert declared <= 20


def test_of_four_equal_systems_no_pair_is_shown_in_95_of_100_cases() -> None:
    shown = unadjusted = 0
    for case in range(200):
        rng = np.random.default_rng(10_000 + case)
        found = ranked({name: rng.random(100) < 0.5 for name in "abcd"}, resamples=500)
        shown += any(pair.shown for pair in found.pairs)
        unadjusted += any(pair.comparison.p_value <= 0.05 for pair in found.pairs)
    assert shown <= 10
    assert unadjusted > 20  # what the adjustment is there for


def test_a_gain_of_ten_points_in_400_rows_is_shown_in_four_of_five_cases() -> None:
    shown = 0
    for case in range(100):
        rng = np.random.default_rng(20_000 + case)
        change = rng.choice([1, -1, 0], 400, p=[0.15, 0.05, 0.8])
        base = np.where(change == 1, 0, np.where(change == -1, 1, rng.random(400) < 0.5))
        shown += ranked({"b": base, "a": base + change}, resamples=500).best == "a"
    assert shown >= 80


@pytest.mark.parametrize(("units", "best"), [(29, None), (30, "a")])
def test_fewer_than_thirty_units_never_show_a_best(units: int, best: str | None) -> None:
    found = ranked({"a": np.ones(300), "b": np.zeros(300)}, units=np.arange(300) % units)
    assert found.best == best and found.pairs[0].shown == (best is not None)
    assert found.units_needed == (None if best else 30)


def test_one_rival_that_is_not_beaten_is_enough_for_no_best() -> None:
    found = ranked(unequal(200, 0.7, 0.695, 0.3))
    assert found.best is None and found.rivals == ["b"]
    assert found.units_needed is not None and found.units_needed > 200


def test_equals_have_no_best_and_no_number_of_rows_would_show_one() -> None:
    same = np.arange(100) < 40
    found = ranked({"a": same, "b": same})
    assert found.best is None and found.units_needed is None and found.pairs[0].p_adjusted == 1


def test_more_comparisons_ask_for_more_rows() -> None:
    two, three = unequal(200, 0.6, 0.59), unequal(200, 0.6, 0.59, 0.1)
    needed = [found.units_needed for found in (ranked(two), ranked(three))]
    assert needed[0] is not None and needed[1] is not None and needed[0] < needed[1]


def test_many_pairs_are_resampled_more_so_that_an_adjusted_p_value_can_still_be_small() -> None:
    systems = {"best": np.ones(200), **{f"s{place:02}": np.arange(200) < 60 for place in range(24)}}
    found = ranked(systems, resamples=3_000)
    assert len(found.pairs) == 300 and found.resamples == 90_000
    assert found.best == "best"
