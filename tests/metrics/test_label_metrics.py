"""Label metrics against scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, matthews_corrcoef

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
    metric = METRICS[name]
    return float(metric.value(metric.statistics(answers, references).sum(axis=0)))


def sklearn_value(name: str, answers: Sequence[object], references: Sequence[object]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about classes that were only predicted, or single labels
        return float(ORACLES[name](references, answers))


@pytest.mark.parametrize("name", ORACLES)
def test_values_are_scikit_learns_on_any_labels(name: str) -> None:
    for seed in range(150):
        rng = np.random.default_rng(seed)
        classes, n = rng.integers(1, 7), rng.integers(1, 40)
        true = rng.choice(classes, n, p=rng.dirichlet(np.full(classes, 0.5)))
        given = np.where(rng.random(n) < rng.random(), true, rng.integers(0, classes + 1, n))
        answers, references = [f"c{label}" for label in given], [f"c{label}" for label in true]
        assert value(name, answers, references) == pytest.approx(sklearn_value(name, answers, references), abs=1e-12)


@pytest.mark.parametrize("name", ORACLES)
def test_a_resample_that_lost_a_class_is_scored_as_scikit_learn_scores_its_rows(name: str) -> None:
    references = ["a"] * 6 + ["b", "c"]
    answers = ["a"] * 5 + ["b", "b", "d"]
    metric = METRICS[name]
    statistics = metric.statistics(answers, references)
    for drawn in ([0, 1, 2, 5], [0, 0, 0, 0], [0, 6, 6, 1], [7, 7, 0, 5], [0, 1, 7]):
        expected = sklearn_value(name, [answers[row] for row in drawn], [references[row] for row in drawn])
        assert metric.value(statistics[drawn].sum(axis=0)) == pytest.approx(expected, abs=1e-12)


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
