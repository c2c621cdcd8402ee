"""Tables per label and confusion matrices are scikit-learn's, on fuzzed answers (INVARIANTS row 27: a collapse shows)."""

from __future__ import annotations

import random
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import classification_report, confusion_matrix, precision_recall_fscore_support

from pegbox.evaluation import per_class as module
from pegbox.evaluation.per_class import confusion, per_class
from pegbox.metrics import METRICS

NAMES = ["yes", "no", "Maybe", "10", "9", "née", ""]


def lines_of(answers: list[Any], references: list[Any]) -> list[dict[str, Any]]:
    return [{"reference": r, "answers": {"tuned": a, "base": r}} for a, r in zip(answers, references, strict=True)]


def fuzzed(seed: int) -> tuple[list[str], list[str]]:
    draw = random.Random(seed)
    names = draw.sample(NAMES, draw.randint(1, len(NAMES)))
    count = draw.randint(1, 12)
    return draw.choices(names, k=count), draw.choices(names[: draw.randint(1, len(names))], k=count)


def check_labels_are_scikit_learns(seed: int) -> None:
    answers, references = fuzzed(seed)
    found = per_class(lines_of(answers, references), "tuned")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = classification_report(references, answers, output_dict=True, zero_division=0)
        taken_for = confusion_matrix(references, answers, labels=sorted({*answers, *references}))
    for label in sorted({*answers, *references}):
        theirs = dict(wanted[label])
        theirs["f1"] = theirs.pop("f1-score")
        assert found[label] == pytest.approx(theirs, abs=1e-12), (label, seed)
    labels, matrix = confusion(lines_of(answers, references), "tuned")
    assert list(found) == labels == sorted({*answers, *references})
    np.testing.assert_array_equal(matrix, taken_for)


def test_labels_are_scikit_learns_on_300_fuzzed_cases() -> None:
    for seed in range(300):
        check_labels_are_scikit_learns(seed)


def test_label_sets_are_scikit_learns_on_200_fuzzed_cases() -> None:
    for seed in range(200):
        draw = random.Random(seed)
        count = draw.randint(1, 10)
        answers, references = ([draw.sample(NAMES, draw.randint(0, 4)) for _ in range(count)] for _ in range(2))
        if not any(answers) and not any(references):
            continue
        found = per_class(lines_of(answers, references), "tuned")
        labels = sorted({label for given in (*answers, *references) for label in given})
        assert list(found) == labels
        for label in labels:
            true, told = ([label in row for row in given] for given in (references, answers))
            theirs = precision_recall_fscore_support(true, told, zero_division=0, average="binary")
            wanted = dict(zip(("precision", "recall", "f1"), theirs, strict=False)) | {"support": sum(true)}
            assert found[label] == pytest.approx(wanted, abs=1e-12)


def test_a_missing_answer_is_a_wrong_one_and_no_label() -> None:
    lines = lines_of(["a", None, "b"], ["a", "a", "b"])
    assert per_class(lines, "tuned")["a"] == {"precision": 1, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2}
    labels, matrix = confusion(lines, "tuned")
    assert labels == ["a", "b"]
    assert matrix.tolist() == [[1, 0], [0, 1]]
    assert per_class(lines, "base")["a"]["recall"] == 1


def test_a_collapse_to_the_majority_hides_in_accuracy_and_shows_here() -> None:
    answers, references = ["most"] * 100, ["most"] * 95 + ["rare"] * 5
    assert METRICS["accuracy"](answers, references) == 0.95
    assert METRICS["f1_macro"](answers, references) < 0.5
    assert per_class(lines_of(answers, references), "tuned")["rare"]["recall"] == 0


def test_the_check_sees_rows_and_columns_that_are_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    right = module._given
    monkeypatch.setattr(module, "_given", lambda lines, system: right(lines, system)[::-1])
    with pytest.raises(AssertionError):
        for seed in range(20):
            check_labels_are_scikit_learns(seed)
