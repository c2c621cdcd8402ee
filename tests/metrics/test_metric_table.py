"""The contract of every row in the table of metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pegbox.errors import RecipeError
from pegbox.metrics import METRICS, lookup, paired_statistics
from pegbox.metrics.labels import ACCURACY, F1_MACRO
from pegbox.metrics.text import EXACT_MATCH

Rows = tuple[list[Any], list[Any]]
LABEL_METRICS = ("accuracy", "balanced_accuracy", "f1_macro", "f1_weighted", "matthews_correlation")
WORDS = [
    "turn",
    "on",
    "the",
    "light",
    "in",
    "my",
    "kitchen,",
    "please.",
    "set",
    "a",
    "timer",
    "for",
    "46",
    "hours",
    "now!",
]


def label_rows(rng: np.random.Generator, n: int) -> Rows:
    references = rng.choice(["bug", "praise", "question", "rare"], n, p=[0.6, 0.2, 0.15, 0.05]).tolist()
    guesses = rng.choice(["bug", "praise", "question", "invented"], n).tolist()
    return [guess if rng.random() < 0.4 else true for guess, true in zip(guesses, references, strict=True)], references


def text_rows(rng: np.random.Generator, n: int) -> Rows:
    references = [" ".join(rng.choice(WORDS, rng.integers(1, 15))) for _ in range(n)]
    answers = []
    for reference in references:
        words = [word if rng.random() < 0.8 else rng.choice(WORDS) for word in reference.split()]
        answers.append(" ".join(words[: len(words) + int(rng.integers(-1, 2))]))
    return answers, references


def likelihood_rows(rng: np.random.Generator, n: int) -> Rows:
    answers = [{"nll": float(rng.gamma(20)), "tokens": int(rng.integers(1, 40))} for _ in range(n)]
    return answers, [""] * n


def rows_of(name: str) -> Callable[[np.random.Generator, int], Rows]:
    if name in LABEL_METRICS:
        return label_rows
    return likelihood_rows if name == "perplexity" else text_rows


@pytest.fixture(params=sorted(METRICS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_table_holds_each_metric_under_its_own_name() -> None:
    assert {name: metric.name for name, metric in METRICS.items()} == {name: name for name in METRICS}


def test_statistics_are_one_finite_row_per_answer(name: str) -> None:
    answers, references = rows_of(name)(np.random.default_rng(0), 20)
    statistics = METRICS[name].statistics(answers, references)
    assert statistics.dtype == np.float64
    assert statistics.ndim == 2 and len(statistics) == 20
    assert np.isfinite(statistics).all()


def test_a_resample_scored_from_sums_equals_the_metric_of_the_resampled_rows(name: str) -> None:
    rng = np.random.default_rng(1)
    metric, (answers, references) = METRICS[name], rows_of(name)(rng, 25)
    statistics = metric.statistics(answers, references)
    for _ in range(30):
        drawn = rng.integers(0, 25, size=25)
        again = metric.statistics([answers[row] for row in drawn], [references[row] for row in drawn])
        assert metric.value(statistics[drawn].sum(axis=0)) == pytest.approx(metric.value(again.sum(axis=0)), abs=1e-12)


def test_values_of_a_block_of_sums_equal_those_of_each_sum_alone(name: str) -> None:
    rng = np.random.default_rng(2)
    metric = METRICS[name]
    statistics = metric.statistics(*rows_of(name)(rng, 12))
    weights = rng.integers(0, 3, size=(4, 5, 12)).astype(float)
    weights[0, 0] = 0  # a resample without rows: NaN or a value, but no error and no warning
    weights[0, 1] = np.arange(12) == 3
    block = metric.value(weights @ statistics)
    assert block.shape == (4, 5)
    for index in np.ndindex(4, 5):
        alone = metric.value(weights[index] @ statistics)
        assert alone.shape == ()
        np.testing.assert_allclose(block[index], alone, rtol=1e-12)


@pytest.mark.parametrize("size", [1, 7])
def test_the_value_over_batches_is_that_of_all_rows_and_no_mean_of_batches(name: str, size: int) -> None:
    metric, (answers, references) = METRICS[name], rows_of(name)(np.random.default_rng(3), 40)
    statistics = metric.statistics(answers, references)
    total = np.zeros(statistics.shape[1])
    for start in range(0, 40, size):
        if name in LABEL_METRICS:  # their columns need every row of the call
            total += statistics[start : start + size].sum(axis=0)
        else:
            total += metric.statistics(answers[start : start + size], references[start : start + size]).sum(axis=0)
    assert metric.value(total) == pytest.approx(metric.value(statistics.sum(axis=0)), rel=1e-12)


def test_a_missing_answer_counts_as_wrong_and_is_never_dropped(name: str) -> None:
    metric, (_, references) = METRICS[name], rows_of(name)(np.random.default_rng(4), 30)
    perfect = [{"nll": 1.0, "tokens": 2}] * 30 if name == "perplexity" else list(references)
    value = metric.value(metric.statistics(perfect, references).sum(axis=0))
    missing = metric.statistics([None, *perfect[1:]], references)
    assert len(missing) == 30 and not np.isnan(missing).any()
    without = metric.value(missing.sum(axis=0))
    assert without < value if metric.greater_is_better else without > value


def test_all_answers_missing_is_the_worst_value(name: str) -> None:
    metric, (_, references) = METRICS[name], rows_of(name)(np.random.default_rng(4), 30)
    worst = metric.value(metric.statistics([None] * 30, references).sum(axis=0))
    assert worst == (0.0 if metric.greater_is_better else np.inf)


def test_systems_compared_share_their_classes() -> None:
    references = ["a", "a", "b"]
    answers = {"tuned": ["a", "a", "b"], "base": ["a", "new", None]}
    paired = paired_statistics(F1_MACRO, answers, references)
    assert paired["tuned"].shape == paired["base"].shape == (3, 9)
    for system, given in answers.items():
        alone = F1_MACRO.statistics(given, references)
        assert F1_MACRO.value(paired[system].sum(axis=0)) == F1_MACRO.value(alone.sum(axis=0))


def test_paired_statistics_keep_each_answer_with_its_system_and_row() -> None:
    paired = paired_statistics(ACCURACY, {"tuned": ["a", "b"], "base": ["b", "b"], "none": [None, None]}, ["a", "b"])
    assert {system: statistics[:, 0].tolist() for system, statistics in paired.items()} == {
        "tuned": [1, 1],
        "base": [0, 1],
        "none": [0, 0],
    }


def test_a_system_with_an_answer_too_few_is_our_bug() -> None:
    with pytest.raises(AssertionError, match="base: 1 answers to 2 rows"):
        paired_statistics(EXACT_MATCH, {"tuned": ["a", "b"], "base": ["a"]}, ["a", "b"])


def test_an_unknown_metric_is_a_recipe_error_with_the_nearest_name() -> None:
    assert lookup("chrf") is METRICS["chrf"]
    with pytest.raises(RecipeError) as caught:
        lookup("exact_mach", where="evaluate.primary")
    assert "did you mean 'exact_match'?" in str(caught.value)
    assert caught.value.where == "evaluate.primary"
    with pytest.raises(RecipeError) as caught:
        lookup("zzz")
    assert "did you mean" not in str(caught.value) and "f1_macro" in str(caught.value)
