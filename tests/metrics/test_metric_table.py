"""The contract of every row in the table of metrics."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pegbox.errors import RecipeError
from pegbox.metrics import METRICS, Metric, line_statistics, lookup, paired_statistics
from pegbox.metrics.labels import ACCURACY, F1_MACRO
from pegbox.metrics.text import EXACT_MATCH

Rows = tuple[list[Any], list[Any]]
LABELS = ["bug", "praise", "question", "rare"]
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
    references = rng.choice(LABELS, n, p=[0.6, 0.2, 0.15, 0.05]).tolist()
    guesses = rng.choice(["bug", "praise", "question", "invented"], n).tolist()
    return [guess if rng.random() < 0.4 else true for guess, true in zip(guesses, references, strict=True)], references


def label_set_rows(rng: np.random.Generator, n: int) -> Rows:
    references = [[label for label in LABELS if rng.random() < 0.4] or ["bug"] for _ in range(n)]
    return [[label for label in LABELS if (label in true) == (rng.random() < 0.8)] for true in references], references


def probabilities_of(references: list[Any], rng: np.random.Generator) -> list[dict[str, float]]:
    """Likelier where it is right, and rounded, so that there are ties."""
    given = []
    for reference in references:
        scores = np.exp(rng.normal(size=4) + [1.5 * (label in np.atleast_1d(reference)) for label in LABELS])
        given.append(dict(zip(LABELS, np.round(scores / scores.sum(), 2).tolist(), strict=True)))
    return given


def label_probability_rows(rng: np.random.Generator, n: int) -> Rows:
    references = label_rows(rng, n)[1]
    return probabilities_of(references, rng), references


def set_probability_rows(rng: np.random.Generator, n: int) -> Rows:
    references = label_set_rows(rng, n)[1]
    return probabilities_of(references, rng), references


def number_rows(rng: np.random.Generator, n: int) -> Rows:
    references = np.round(rng.normal(50, 9, n), 1)
    return (references + rng.normal(0, 5, n)).tolist(), references.tolist()


def target_rows(rng: np.random.Generator, n: int) -> Rows:
    references = np.round(rng.normal([50, -3e4], [9, 700], (n, 2)), 1)
    return (references + rng.normal(0, [5, 300], (n, 2))).tolist(), references.tolist()


def span(label: str, first: int, last: int) -> dict[str, Any]:
    return {"label": label, "start": 5 * first, "end": 5 * last + 4, "first_word": first, "last_word": last}


def span_rows(rng: np.random.Generator, n: int) -> Rows:
    def drawn(least: int) -> list[dict[str, Any]]:
        begins = sorted(rng.choice(9, rng.integers(least, 4), replace=False).tolist())
        return [span(str(rng.choice(["PER", "LOC"])), begin, begin + int(rng.integers(0, 2))) for begin in begins]

    references = [drawn(1) for _ in range(n)]
    return [true if rng.random() < 0.6 else drawn(0) for true in references], references


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


def ranking_rows(rng: np.random.Generator, n: int) -> Rows:
    ranks = [np.sort(rng.choice(12, rng.integers(1, 4), replace=False) + 1).tolist() for _ in range(n)]
    return [{"first": "a text", "ranks": found} for found in ranks], ["a text"] * n


def code_rows(rng: np.random.Generator, n: int) -> Rows:
    """Numbers and less in the place of an argument, and what stands around it."""
    return [str(rng.choice(["1", "x, y", ")", "(", ""])) for _ in range(n)], [["f(", ")\n"]] * n


def surely(reference: Any) -> dict[str, float]:
    return {label: float(label in np.atleast_1d(reference)) for label in LABELS}


Draw = Callable[[np.random.Generator, int], Rows]
CASES: list[tuple[str, Draw]] = [
    *((name, label_rows) for name in ("accuracy", "balanced_accuracy", "f1_macro", "f1_weighted")),
    ("matthews_correlation", label_rows),
    *((name, label_set_rows) for name in ("accuracy", "f1_macro", "f1_weighted")),
    ("auroc", label_probability_rows),
    ("auroc", set_probability_rows),
    ("calibration_error", label_probability_rows),
    *(
        (name, draw)
        for name in ("mse", "rmse", "mae", "r2", "pearson", "spearman")
        for draw in (number_rows, target_rows)
    ),
    *((name, span_rows) for name in ("f1", "precision", "recall")),
    *(
        (name, text_rows)
        for name in ("exact_match", "token_f1", "edit_similarity", "bleu", "chrf", "ter", "length_ratio")
    ),
    *((name, text_rows) for name in ("rouge1", "rouge2", "rougeL")),
    ("syntax_validity", code_rows),
    ("perplexity", likelihood_rows),
    *((name, ranking_rows) for name in ("recall_at_1", "recall_at_5", "recall_at_10", "mrr", "ndcg")),
]
PERFECT: dict[Draw, Callable[[Any], Any]] = {
    label_probability_rows: surely,
    set_probability_rows: surely,
    ranking_rows: lambda reference: {"first": reference, "ranks": [1]},
    likelihood_rows: lambda reference: {"nll": 1.0, "tokens": 2},
    code_rows: lambda around: "x",
}
WORST = {"mse": math.inf, "rmse": math.inf, "mae": math.inf, "perplexity": math.inf, "calibration_error": 1.0}
WORST |= {"ter": 100.0, "r2": -math.inf, "pearson": -1.0, "spearman": -1.0}  # and else 0
BY_CALL = ("balanced_accuracy", "f1_macro", "f1_weighted", "matthews_correlation", "r2")  # columns need every row


@pytest.fixture(params=CASES, ids=[f"{name}, {draw.__name__}" for name, draw in CASES])
def case(request: pytest.FixtureRequest) -> tuple[Metric, Draw]:
    name, draw = request.param
    return METRICS[name], draw


def test_the_table_holds_each_metric_under_its_own_name_and_every_one_is_tested_here() -> None:
    assert {name: metric.name for name, metric in METRICS.items()} == {name: name for name in METRICS}
    assert {name for name, _ in CASES} == set(METRICS)


def test_statistics_are_one_finite_row_per_answer(case: tuple[Metric, Draw]) -> None:
    metric, draw = case
    statistics = metric.statistics(*draw(np.random.default_rng(0), 20))
    assert statistics.dtype == np.float64
    assert statistics.ndim == 2 and len(statistics) == 20
    assert np.isfinite(statistics).all()


def test_a_resample_scored_from_weights_equals_the_metric_of_the_resampled_rows(case: tuple[Metric, Draw]) -> None:
    rng = np.random.default_rng(1)
    metric, (answers, references) = case[0], case[1](rng, 25)
    statistics = metric.statistics(answers, references)
    drawn = rng.integers(0, 25, size=(30, 25))
    found = metric.values(statistics, np.stack([np.bincount(rows, minlength=25) for rows in drawn]).astype(float))
    assert found.shape == (30,) and len(np.unique(found)) > 5
    for rows, value in zip(drawn, found, strict=True):
        again = metric([answers[row] for row in rows], [references[row] for row in rows])
        assert value == pytest.approx(again, abs=1e-12, rel=1e-12, nan_ok=True)
        assert metric.of(statistics[rows]) == pytest.approx(again, abs=1e-12, rel=1e-12, nan_ok=True)


def test_values_of_a_block_of_weights_equal_those_of_each_alone(case: tuple[Metric, Draw]) -> None:
    rng = np.random.default_rng(2)
    metric = case[0]
    statistics = metric.statistics(*case[1](rng, 12))
    weights = rng.integers(0, 3, size=(20, 12)).astype(float)
    weights[0] = 0  # a resample without rows: NaN or a value, but no error and no warning
    weights[1] = np.arange(12) == 3
    block = metric.values(statistics, weights)
    alone = [float(metric.values(statistics, weights[[place]])[0]) for place in range(20)]
    np.testing.assert_allclose(block, alone, rtol=1e-12)
    if metric.value is not None:  # sums may have any leading dimensions
        sums = (weights @ statistics).reshape(4, 5, -1)
        assert metric.value(sums).shape == (4, 5) and metric.value(sums[1, 2]).shape == ()
        np.testing.assert_allclose(metric.value(sums).reshape(-1), block, rtol=1e-12)


@pytest.mark.parametrize("size", [1, 7])
def test_the_value_over_batches_is_that_of_all_rows(case: tuple[Metric, Draw], size: int) -> None:
    """INVARIANTS 24. Mutation: a mean over batches of the value, see the test below."""
    metric, (answers, references) = case[0], case[1](np.random.default_rng(3), 40)
    statistics = metric.statistics(answers, references)
    if metric.value is None:  # takes all rows at once: in any order
        order = np.random.default_rng(4).permutation(40)
        assert metric.of(statistics[order]) == pytest.approx(metric.of(statistics), rel=1e-12)
        return
    total = np.zeros(statistics.shape[1])
    for start in range(0, 40, size):
        batch = slice(start, start + size)
        of_call = metric.name in BY_CALL
        total += (statistics[batch] if of_call else metric.statistics(answers[batch], references[batch])).sum(axis=0)
    assert metric.value(total) == pytest.approx(metric.of(statistics), rel=1e-12)


NO_MEAN_OF_ROWS = ("f1_macro", "f1_weighted", "calibration_error", "rmse", "r2", "pearson", "spearman", "f1", "auroc")
NO_MEAN_OF_ROWS += (
    "precision",
    "recall",
    "bleu",
    "chrf",
    "ter",
    "perplexity",
    "matthews_correlation",
    "balanced_accuracy",
)


@pytest.mark.parametrize(("name", "draw"), [case for case in CASES if case[0] in NO_MEAN_OF_ROWS])
def test_a_mean_over_batches_is_another_number(name: str, draw: Draw) -> None:
    """So the test above does tell a metric of the whole set from one that is averaged."""
    metric, (answers, references) = METRICS[name], draw(np.random.default_rng(3), 40)
    batches = [metric(answers[start : start + 8], references[start : start + 8]) for start in range(0, 40, 8)]
    assert abs(np.nanmean(batches) - metric(answers, references)) > 1e-3 * abs(metric(answers, references))


def test_a_missing_answer_counts_as_wrong_and_is_never_dropped(case: tuple[Metric, Draw]) -> None:
    metric, draw = case
    references = draw(np.random.default_rng(4), 30)[1]
    perfect = [PERFECT.get(draw, lambda reference: reference)(reference) for reference in references]
    value = metric(perfect, references)
    statistics = metric.statistics([None, *perfect[1:]], references)
    assert len(statistics) == 30 and not np.isnan(statistics).any()
    without = metric.of(statistics)
    assert without < value if metric.greater_is_better else without > value


def test_all_answers_missing_is_the_worst_value(case: tuple[Metric, Draw]) -> None:
    metric, draw = case
    references = draw(np.random.default_rng(4), 30)[1]
    assert metric([None] * 30, references) == WORST.get(metric.name, 0.0)


# --- several systems at once ---


def test_systems_compared_share_their_classes() -> None:
    references = ["a", "a", "b"]
    answers = {"tuned": ["a", "a", "b"], "base": ["a", "new", None]}
    paired = paired_statistics(F1_MACRO, answers, references)
    assert paired["tuned"].shape == paired["base"].shape == (3, 9)
    for system, given in answers.items():
        assert F1_MACRO.of(paired[system]) == F1_MACRO(given, references)


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


def test_a_metric_is_of_sums_or_of_ranks() -> None:
    with pytest.raises(AssertionError, match="of sums, or of ranks"):
        Metric("neither", EXACT_MATCH.statistics, greater_is_better=True)
    with pytest.raises(AssertionError, match="not defined for a single row"):
        METRICS["spearman"].by_row(np.zeros((2, 2)))


# --- from the lines of predictions.jsonl ---


def lines() -> list[dict[str, Any]]:
    answers = [("a", "b"), (None, "b"), ("a", "a")]
    found = []
    for place, (tuned, base) in enumerate(answers):
        given = {"tuned": tuned, "base": base, "trivial": "a"}
        sure = {"tuned": {"a": 0.9 - place / 10, "b": 0.1 + place / 10}}
        found.append({"id": f"t:{place}", "reference": "ab"[place % 2], "answers": given, "probabilities": sure})
    return found


def test_lines_give_the_statistics_of_each_system_or_of_those_asked_for() -> None:
    found = line_statistics(ACCURACY, lines())
    assert {name: rows[:, 0].tolist() for name, rows in found.items()} == {
        "tuned": [1, 0, 1],
        "base": [0, 1, 1],
        "trivial": [1, 0, 1],
    }
    assert list(line_statistics(ACCURACY, lines(), ["base", "tuned"])) == ["tuned", "base"]
    assert line_statistics(ACCURACY, []) == {}


def test_a_system_without_probabilities_is_left_out_of_a_metric_of_probabilities() -> None:
    assert list(line_statistics(METRICS["auroc"], lines())) == ["tuned"]
    assert METRICS["auroc"].of(line_statistics(METRICS["auroc"], lines())["tuned"]) == 0.5
    assert line_statistics(METRICS["auroc"], lines(), ["base"]) == {}
    without = [{key: value for key, value in line.items() if key != "probabilities"} for line in lines()]
    assert line_statistics(METRICS["auroc"], without) == {}


def test_a_row_in_which_a_system_has_no_probabilities_is_missing_and_not_left_out() -> None:
    some = lines()
    some[2]["probabilities"] = {}
    assert (
        METRICS["auroc"].of(line_statistics(METRICS["auroc"], some)["tuned"]) == 0.5
    )  # 0.9 > 0.8, the missing below it
    assert len(line_statistics(METRICS["auroc"], some)["tuned"]) == 3


@pytest.mark.parametrize(
    ("name", "answer", "reference"),
    [
        ("rmse", "good", "bad"),
        ("rmse", True, False),
        ("f1", "good", "bad"),
        ("f1", ["a"], ["a"]),
        ("chrf", ["a"], ["b"]),
        ("bleu", 3.0, 4.0),
        ("exact_match", {"nll": 1.0, "tokens": 2}, "text"),
        ("perplexity", "text", "text"),
        ("balanced_accuracy", ["a"], ["a", "b"]),
        ("matthews_correlation", ["a"], []),
        ("f1_macro", 0.5, 0.7),
        ("accuracy", [span("PER", 0, 1)], [span("PER", 0, 1)]),
    ],
)
def test_answers_of_another_kind_are_refused_in_a_sentence(name: str, answer: Any, reference: Any) -> None:
    """`pegbox evaluate RUN --metric rmse` on a run of texts is no traceback."""
    given = {"id": "t:1", "reference": reference, "answers": {"base": None, "tuned": answer}}
    with pytest.raises(RecipeError, match=f"{name} is computed of"):
        line_statistics(METRICS[name], [given])


def test_the_calibration_of_label_sets_is_refused() -> None:
    given = {"id": "t:1", "reference": ["a"], "answers": {}, "probabilities": {"tuned": {"a": 0.5}}}
    with pytest.raises(RecipeError, match="calibration_error is computed of probabilities of single labels"):
        line_statistics(METRICS["calibration_error"], [given])


def test_every_metric_takes_rows_of_its_own_kind(case: tuple[Metric, Draw]) -> None:
    metric, draw = case
    answers, references = draw(np.random.default_rng(5), 9)
    answers[4] = None
    given = [
        {"id": f"t:{place}", metric.against: reference, metric.reads: {"tuned": answer}}
        for place, (answer, reference) in enumerate(zip(answers, references, strict=True))
    ]
    np.testing.assert_array_equal(line_statistics(metric, given)["tuned"], metric.statistics(answers, references))


# --- by name ---


def test_an_unknown_metric_is_a_recipe_error_with_the_nearest_name() -> None:
    assert lookup("chrf") is METRICS["chrf"]
    with pytest.raises(RecipeError) as caught:
        lookup("exact_mach", where="evaluate.primary")
    assert "did you mean 'exact_match'?" in str(caught.value)
    assert caught.value.where == "evaluate.primary"
    with pytest.raises(RecipeError) as caught:
        lookup("zzz")
    assert "did you mean" not in str(caught.value) and "f1_macro" in str(caught.value)
