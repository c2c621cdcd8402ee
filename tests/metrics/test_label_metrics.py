"""Label metrics against scikit-learn: single labels, and sets of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, matthews_corrcoef, recall_score

from pegbox.metrics import METRICS

Oracle = Callable[[Sequence[object], Sequence[object]], float]
ORACLES: dict[str, Oracle] = {
    "accuracy": accuracy_score,
    "balanced_accuracy": balanced_accuracy_score,
    "f1_macro": lambda true, given: f1_score(true, given, average="macro", zero_division=0),
    "f1_weighted": lambda true, given: f1_score(true, given, average="weighted", zero_division=0),
    "matthews_correlation": matthews_corrcoef,
}


def value(name: str, answers: Sequence[object], references: Sequence[object]) -> float:
    return METRICS[name](answers, references)


def sklearn_value(name: str, answers: Sequence[object], references: Sequence[object]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about classes that were only predicted, or single labels
        return float(ORACLES[name](references, answers))


NAMES = ["a", "b", "größer", "大", "two words", "", "😀", "A"]


@pytest.mark.parametrize("name", ORACLES)
def test_values_of_1000_fuzzed_cases_are_scikit_learns(name: str) -> None:
    """From one row and one class on; with classes that were only predicted, and such as nobody has."""
    for seed in range(1_000):
        rng = np.random.default_rng(seed)
        classes, n = rng.integers(1, 7), rng.integers(1, 25)
        true = rng.choice(classes, n, p=rng.dirichlet(np.full(classes, 0.5)))
        given = np.where(rng.random(n) < rng.random(), true, rng.integers(0, classes + 1, n))
        answers, references = [NAMES[label] for label in given], [NAMES[label] for label in true]
        assert value(name, answers, references) == pytest.approx(sklearn_value(name, given, true), abs=1e-12)


@pytest.mark.parametrize("name", ORACLES)
def test_a_resample_that_lost_a_class_is_scored_as_scikit_learn_scores_its_rows(name: str) -> None:
    references = ["a"] * 6 + ["b", "c"]
    answers = ["a"] * 5 + ["b", "b", "d"]
    metric = METRICS[name]
    statistics = metric.statistics(answers, references)
    for drawn in ([0, 1, 2, 5], [0, 0, 0, 0], [0, 6, 6, 1], [7, 7, 0, 5], [0, 1, 7]):
        expected = sklearn_value(name, [answers[row] for row in drawn], [references[row] for row in drawn])
        assert metric.of(statistics[drawn]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "f1_weighted", "matthews_correlation"])
def test_a_missing_answer_is_worth_that_of_a_class_nobody_asked_for(name: str) -> None:
    references = ["a", "a", "b", "b", "c"]
    answers = ["a", None, "b", "a", None]
    named = ["missing" if answer is None else answer for answer in answers]
    assert value(name, answers, references) == pytest.approx(sklearn_value(name, named, references), abs=1e-12)


def test_a_missing_answer_adds_no_class_to_the_macro_average() -> None:
    references = ["a", "a", "b", "b"]
    expected = f1_score(references, ["a", "missing", "b", "b"], labels=["a", "b"], average="macro", zero_division=0)
    assert value("f1_macro", ["a", None, "b", "b"], references) == pytest.approx(expected, abs=1e-12)


def test_labels_need_not_be_of_one_type() -> None:
    assert value("f1_macro", [1, "1", "x"], [1, "1", 2]) == pytest.approx(2 / 4)


def test_no_rows_have_no_value() -> None:
    assert all(math.isnan(value(name, [], [])) for name in ORACLES if name != "matthews_correlation")


def test_macro_f1_shows_a_collapse_that_accuracy_hides() -> None:
    """INVARIANTS 27. Mutations: F1 of the classes' summed counts (micro), and F1 weighted by class, both of which hide it."""
    references = ["common"] * 95 + ["rare"] * 5
    always = ["common"] * 100
    assert value("accuracy", always, references) == 0.95
    assert value("balanced_accuracy", always, references) == 0.5
    assert value("f1_macro", always, references) == pytest.approx(0.5 * (2 * 95 / 195))
    tp, predicted, true = METRICS["f1_macro"].statistics(always, references).sum(axis=0).reshape(-1, 3).T
    assert 2 * tp.sum() / (predicted.sum() + true.sum()) == 0.95
    assert value("f1_weighted", always, references) > 0.92


def test_balanced_accuracy_is_the_mean_of_each_classs_recall() -> None:
    references, answers = ["a"] * 6 + ["b"] * 3 + ["c"], ["a"] * 6 + ["b", "a", "a"] + ["a"]
    recalls = recall_score(references, answers, average=None, zero_division=0)
    assert recalls.tolist() == pytest.approx([1, 1 / 3, 0])
    assert value("balanced_accuracy", answers, references) == pytest.approx(recalls.mean())


# --- label sets ---

Sets = list[list[str]]


def label_sets(rng: np.random.Generator) -> tuple[Sets, Sets]:
    """Sets of any size, in any order; labels that occur nowhere, or on one side only."""
    classes, n = rng.integers(1, 6), rng.integers(1, 25)
    true = rng.random((n, classes)) < rng.random(classes)
    given = np.where(rng.random(true.shape) < rng.random(), true, rng.random(true.shape) < 0.3)
    answers, references = (
        [[NAMES[label] for label in rng.permutation(np.flatnonzero(row))] for row in matrix] for matrix in (given, true)
    )
    return answers, references


def matrix_of(sets: Sets, labels: Sequence[str]) -> np.ndarray:
    """A column a label, and one that is never there: scikit-learn takes a single column for two classes."""
    return np.array([[*(label in row for label in labels), False] for row in sets], dtype=int)


def of_columns(average: str) -> Oracle:
    """The F1 of all columns but the last."""

    def score(true: np.ndarray, given: np.ndarray) -> float:
        return f1_score(true, given, labels=range(true.shape[1] - 1), average=average, zero_division=0)

    return score


SET_ORACLES: dict[str, Oracle] = {
    "accuracy": accuracy_score,
    "f1_macro": of_columns("macro"),
    "f1_weighted": of_columns("weighted"),
}


@pytest.mark.parametrize("name", SET_ORACLES)
def test_values_of_1000_fuzzed_label_sets_are_scikit_learns(name: str) -> None:
    seen = set()
    for seed in range(1_000):
        answers, references = label_sets(np.random.default_rng(seed))
        occurring = sorted({label for row in answers + references for label in row})
        seen.add((not occurring, len(answers) == 1, [] in references, [] in answers))
        if not occurring:
            assert value("accuracy", answers, references) == 1.0 and math.isnan(value("f1_macro", answers, references))
            continue
        expected = SET_ORACLES[name](matrix_of(references, occurring), matrix_of(answers, occurring))
        assert value(name, answers, references) == pytest.approx(expected, abs=1e-12)
    assert len(seen) > 8


def test_sets_of_one_label_score_as_single_labels() -> None:
    rng = np.random.default_rng(1)
    answers, references = (rng.choice(["a", "b", "c"], 40).tolist() for _ in range(2))
    for name in SET_ORACLES:
        alone = value(name, [[label] for label in answers], [[label] for label in references])
        assert alone == pytest.approx(value(name, answers, references), abs=1e-15)


def test_a_set_has_no_order_and_names_no_label_twice() -> None:
    assert value("accuracy", [["b", "a"], ["a", "a"]], [["a", "b"], ["a"]]) == 1.0
    assert value("f1_macro", [["b", "a"], ["a", "a"]], [["a", "b"], ["a"]]) == 1.0
    assert value("accuracy", [["a"]], [["a", "b"]]) == 0.0  # Mutation: any label in common counts as right


def test_a_missing_answer_is_not_the_empty_set() -> None:
    assert value("accuracy", [[], None], [[], []]) == 0.5
    assert value("f1_macro", [["a"], None], [["a"], ["a"]]) == pytest.approx(2 / 3)


def test_nothing_right_to_find_but_something_found_is_worth_nothing() -> None:
    expected = f1_score([[0, 0], [0, 0]], [[1, 0], [0, 0]], average="weighted", zero_division=0)
    assert value("f1_weighted", [["a"], []], [[], []]) == expected == 0.0
