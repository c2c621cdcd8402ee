"""The rules of the verdict."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from pegbox.evaluation.verdict import Verdict, judge, units_needed
from pegbox.metrics import METRICS, FloatArray, paired_statistics

MEAN, PERPLEXITY = METRICS["exact_match"], METRICS["perplexity"]


def scored(scores: np.ndarray) -> FloatArray:
    return np.stack([np.asarray(scores, dtype=float), np.ones(len(scores))], axis=1)


def systems(n: int = 200, seed: int = 0, **means: float) -> dict[str, FloatArray]:
    """Right or wrong with the given means, on the same rows."""
    hardness = np.random.default_rng(seed).random(n)
    return {name: scored(hardness < mean) for name, mean in means.items()}


def judged(statistics: dict[str, FloatArray], **changes: object) -> Verdict:
    units = np.arange(len(statistics["tuned"]))
    return judge(MEAN, statistics, **{"units": units, "seed": 1, "resamples": 2_000, **changes})  # type: ignore[arg-type]


def test_better_takes_every_interval_above_zero() -> None:
    found = judged(systems(tuned=0.7, base=0.1, trivial=0.3, permuted=0.2))
    assert found.verdict == "better"
    assert all(comparison.low > 0 for comparison in found.comparisons.values())
    assert found.comparison.against == "trivial"  # the least favourable
    assert found.units_needed is None and not found.prompting_is_as_good
    assert "ahead of every other system" in found.reason and "trivial" in found.reason


@pytest.mark.parametrize("rival", ["trivial", "bag_of_words", "translation_memory", "linear_probe", "base", "permuted"])
def test_one_rival_as_good_as_tuned_is_enough_for_not_shown(rival: str) -> None:
    means = {"trivial": 0.1, "base": 0.2, "permuted": 0.1, rival: 0.7}
    found = judged(systems(tuned=0.7, **means))
    assert found.verdict == "not shown"
    assert found.comparison.against == rival
    assert not found.prompting_is_as_good


def test_worse_is_about_the_untouched_model() -> None:
    assert judged(systems(tuned=0.3, base=0.6, trivial=0.1)).verdict == "worse"
    assert judged(systems(tuned=0.3, base=0.2, trivial=0.6)).verdict == "not shown"
    assert judged(systems(tuned=0.3, base=0.3, base_few_shot=0.6)).verdict == "not shown"


def test_where_there_is_no_base_worse_is_about_the_trivial_rival() -> None:
    found = judged(systems(tuned=0.3, trivial=0.6, linear_probe=0.9))
    assert found.verdict == "worse"
    assert "behind trivial" in found.reason
    assert judged(systems(tuned=0.3, linear_probe=0.9)).verdict == "not shown"


@pytest.mark.parametrize(("units", "verdict"), [(29, "not shown"), (30, "better")])
def test_fewer_than_thirty_units_never_make_a_verdict(units: int, verdict: str) -> None:
    statistics = {"tuned": scored(np.ones(300)), "base": scored(np.zeros(300))}
    found = judged(statistics, units=np.arange(300) % units)
    assert (found.verdict, found.units, found.rows) == (verdict, units, 300)
    if units < 30:
        assert "at least 30" in found.reason and found.units_needed == 30


def test_fewer_than_thirty_units_are_not_called_worse_nor_prompting_as_good() -> None:
    assert judged(systems(n=29, tuned=0.01, base=0.99)).verdict == "not shown"
    assert not judged(systems(n=29, tuned=0.9, base=0.01, base_few_shot=0.9)).prompting_is_as_good


def test_prompting_is_as_good_where_few_shot_alone_is_not_beaten() -> None:
    found = judged(systems(tuned=0.7, base=0.1, trivial=0.1, base_few_shot=0.69))
    assert found.verdict == "not shown" and found.prompting_is_as_good
    assert found.reason.startswith("Prompting is as good")
    better = judged(systems(tuned=0.5, base=0.1, trivial=0.1, base_few_shot=0.9))
    assert better.prompting_is_as_good and better.reason.startswith("Prompting is better")
    assert not judged(systems(tuned=0.7, base=0.1, trivial=0.7, base_few_shot=0.69)).prompting_is_as_good
    assert not judged(systems(tuned=0.7, base=0.1, trivial=0.1, base_few_shot=0.2)).prompting_is_as_good


def likelihoods(nats_per_token: float, n: int = 100, seed: int = 0) -> FloatArray:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(5, 50, n).astype(float)
    return np.stack([tokens * (nats_per_token + rng.normal(0, 0.1, n)), tokens], axis=1)


def test_a_difference_is_positive_when_tuned_is_better_whatever_the_metrics_direction() -> None:
    units = np.arange(100)
    found = judge(PERPLEXITY, {"tuned": likelihoods(2.0), "base": likelihoods(3.0)}, units, seed=0, resamples=1_000)
    assert found.verdict == "better"
    assert found.comparison.difference == pytest.approx(math.e**3 - math.e**2, rel=0.05)
    assert found.comparison.low < found.comparison.difference < found.comparison.high
    worse = judge(PERPLEXITY, {"tuned": likelihoods(3.0), "base": likelihoods(2.0)}, units, seed=0, resamples=1_000)
    assert worse.verdict == "worse" and worse.comparison.difference == -found.comparison.difference


@pytest.mark.parametrize("name", ["exact_match", "bleu", "chrf", "f1_macro", "matthews_correlation", "perplexity"])
def test_identical_systems_are_never_told_apart(name: str) -> None:
    columns = {"exact_match": 2, "bleu": 10, "chrf": 18, "perplexity": 2}.get(name, 36)
    same = np.random.default_rng(3).random((50, columns)) + 0.1  # fractions, so that sums round
    rivals = ("base", "base_few_shot", "trivial", "permuted")
    found = judge(METRICS[name], {system: same for system in (*rivals, "tuned")}, np.arange(50), seed=0, resamples=500)
    assert found.verdict == "not shown"
    for comparison in found.comparisons.values():
        assert (comparison.difference, comparison.low, comparison.high, comparison.p_value) == (0, 0, 0, 1)


def test_the_same_seed_gives_the_same_verdict_and_another_seed_another_interval() -> None:
    statistics = {"tuned": likelihoods(2.0, seed=1), "base": likelihoods(2.02, seed=2)}
    units = np.arange(100)
    once, again, other = (judge(PERPLEXITY, statistics, units, seed=s, resamples=500) for s in (7, 7, 8))
    assert once == again
    assert once.comparison.low != other.comparison.low


def test_names_of_units_and_their_order_do_not_matter() -> None:
    statistics = systems(tuned=0.6, base=0.5)
    groups = np.arange(200) // 4
    assert judged(statistics, units=groups) == judged(statistics, units=groups * 1_000 - 5)
    order = np.random.default_rng(0).permutation(200)
    shuffled = {name: rows[order] for name, rows in statistics.items()}
    assert judged(shuffled, units=groups[order]) == judged(statistics, units=groups)


def test_rows_that_belong_together_count_once() -> None:
    """Each row written ten times is no more evidence than each row once."""
    statistics = systems(n=40, tuned=0.65, base=0.5)
    tenfold = {name: np.repeat(rows, 10, axis=0) for name, rows in statistics.items()}
    once, grouped = judged(statistics), judged(tenfold, units=np.repeat(np.arange(40), 10))
    assert grouped.comparison == once.comparison
    assert grouped.rows == 400 and grouped.units == 40
    ungrouped = judged(tenfold)
    assert ungrouped.comparison.high - ungrouped.comparison.low < 0.5 * (once.comparison.high - once.comparison.low)


def test_the_units_needed_give_eighty_percent_power() -> None:
    rng = np.random.default_rng(5)
    base, gain = rng.random(60) < 0.4, rng.choice([1, -1, 0], 60, p=[0.25, 0.15, 0.6])
    tuned = np.clip(base + gain, 0, 1)
    found = judged({"tuned": scored(tuned), "base": scored(base)})
    assert found.verdict == "not shown" and found.units_needed is not None and found.units_needed > 60
    shown = 0
    for trial in range(300):
        drawn = np.random.default_rng(trial).integers(
            0, 60, found.units_needed
        )  # a world in which the gain is as observed
        more = {"tuned": scored(tuned[drawn]), "base": scored(base[drawn])}
        shown += judged(more, seed=trial, resamples=300).verdict == "better"
    assert shown / 300 == pytest.approx(0.8, abs=0.08)
    assert f"about {found.units_needed:,} rows" in found.reason


def test_no_number_of_units_shows_a_gain_that_is_not_there() -> None:
    assert judged(systems(tuned=0.3, base=0.3, trivial=0.1)).units_needed is None
    assert judged(systems(tuned=0.3, base=0.1, trivial=0.31)).units_needed is None
    assert judged(systems(n=20, tuned=0.3, base=0.6)).units_needed is None


def test_an_infinite_perplexity_is_judged_and_written_without_breaking_json() -> None:
    answers = {
        "tuned": [{"nll": 2.0 + 0.01 * row, "tokens": 1} for row in range(60)],
        "base": [None, *({"nll": 3.0, "tokens": 1} for _ in range(59))],
    }
    statistics = paired_statistics(PERPLEXITY, answers, [""] * 60)
    found = judge(PERPLEXITY, statistics, np.arange(60), seed=0, resamples=500)
    assert found.verdict == "better" and found.comparison.difference == math.inf
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert written["systems"]["base"]["perplexity"]["value"] is None
    assert written["comparison"]["difference"] is None and written["comparison"]["low"] > 0
    both = {name: statistics["base"] for name in ("tuned", "base")}
    assert judge(PERPLEXITY, both, np.arange(60), seed=0, resamples=500).verdict == "not shown"
    swapped = {"tuned": statistics["base"], "base": statistics["tuned"]}
    broken = judge(PERPLEXITY, swapped, np.arange(60), seed=0, resamples=500)
    assert broken.verdict == "worse" and broken.units_needed is None


def test_what_is_written_has_the_fields_of_the_contract() -> None:
    found = judged(systems(tuned=0.7, base=0.1, base_few_shot=0.3, trivial=0.05))
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert set(written["comparison"]) == {"against", "metric", "difference", "low", "high", "p_value", "test"}
    assert written["comparison"]["test"] == "paired bootstrap" and written["comparison"]["against"] == "base_few_shot"
    assert set(written["comparisons"]) == {"base", "base_few_shot", "trivial"}
    assert set(written["systems"]) == {"base", "base_few_shot", "trivial", "tuned"}
    assert set(written["systems"]["tuned"]["exact_match"]) == {"value", "low", "high"}
    assert (written["primary"], written["rows"], written["verdict"]) == ("exact_match", 200, "better")
    assert "signature" not in written


def test_the_signature_of_a_metric_is_written_beside_its_number() -> None:
    answers = ["a b c d e"] * 40
    statistics = paired_statistics(METRICS["bleu"], {"tuned": answers, "base": [None] * 40}, answers)
    written = judge(METRICS["bleu"], statistics, np.arange(40), seed=0, resamples=500).to_json()
    assert written["signature"] == METRICS["bleu"].signature
    assert written["verdict"] == "better" and written["comparison"]["difference"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("statistics", "units"),
    [
        ({"tuned": scored(np.ones(3))}, np.arange(3)),
        ({"base": scored(np.ones(3)), "trivial": scored(np.ones(3))}, np.arange(3)),
        ({"tuned": scored(np.ones(3)), "base": scored(np.ones(3))}, np.arange(4)),
        ({"tuned": scored(np.ones(0)), "base": scored(np.ones(0))}, np.arange(0)),
        ({"tuned": scored(np.array([np.nan])), "base": scored(np.ones(1))}, np.arange(1)),
    ],
)
def test_what_cannot_be_compared_is_our_bug(statistics: dict[str, FloatArray], units: np.ndarray) -> None:
    with pytest.raises(AssertionError):
        judge(MEAN, statistics, units, seed=0)


def test_a_difference_of_rounding_asks_for_no_number_of_rows() -> None:
    assert units_needed(0.02, 0.02, 400, shown=False) < 10_000
    assert units_needed(1e-6, 0.02, 400, shown=False) == math.inf
