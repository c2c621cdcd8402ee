"""AUROC against scikit-learn, the calibration error against a slow version of itself and torchmetrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torchmetrics.functional.classification import multiclass_calibration_error

from pegbox.metrics import METRICS

AUROC, CALIBRATION = METRICS["auroc"], METRICS["calibration_error"]
NAMES = ["Ärger", "b", "c c", "d", "大"]


def with_names(scores: np.ndarray) -> list[dict[str, float]]:
    return [dict(zip(NAMES, row, strict=False)) for row in scores.tolist()]


def drawn(rng: np.random.Generator, classes: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, in half of the cases with many ties, and true classes of which each occurs."""
    true = np.concatenate([np.arange(classes), rng.integers(0, classes, rows - classes)])
    scores = rng.dirichlet(np.full(classes, 0.7), rows) + rng.choice([0, 0.5]) * np.eye(classes)[true]
    if rng.random() < 0.5:
        scores = np.round(scores, 1) + 0.01
    return scores / scores.sum(axis=1, keepdims=True), true


def test_auroc_of_1000_fuzzed_binary_cases_is_scikit_learns() -> None:
    for seed in range(1_000):
        rng = np.random.default_rng(seed)
        scores, true = drawn(rng, 2, int(rng.integers(2, 30)))
        expected = roc_auc_score(true, scores[:, 1])
        assert AUROC(with_names(scores), [NAMES[label] for label in true]) == pytest.approx(expected, abs=1e-12)


def test_auroc_of_500_fuzzed_cases_of_several_labels_is_scikit_learns() -> None:
    for seed in range(500):
        rng = np.random.default_rng(seed)
        classes = int(rng.integers(3, 6))
        scores, true = drawn(rng, classes, int(rng.integers(classes, 30)))
        expected = roc_auc_score(true, scores, multi_class="ovr", average="macro")
        assert AUROC(with_names(scores), [NAMES[label] for label in true]) == pytest.approx(expected, abs=1e-12)


def test_auroc_of_500_fuzzed_cases_of_label_sets_is_scikit_learns() -> None:
    for seed in range(500):
        rng = np.random.default_rng(seed)
        classes, rows = int(rng.integers(1, 6)), int(rng.integers(2, 30))
        true = rng.random((rows, classes)) < rng.random(classes)
        true[0], true[1] = True, False  # both kinds of each label
        scores = np.round(rng.random((rows, classes)) + 0.3 * true, int(rng.integers(1, 4)))
        expected = roc_auc_score(true, scores, average="macro")
        references = [[NAMES[label] for label in rng.permutation(np.flatnonzero(row))] for row in true]
        assert AUROC(with_names(scores), references) == pytest.approx(expected, abs=1e-12)


def pairs_in_order(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """The definition, pair by pair. Mutation: ties count nothing, or all."""
    better = [
        1.0 if one > other else 0.5 if one == other else 0.0
        for one, right in zip(scores, positive, strict=True)
        if right
        for other, wrong in zip(scores, positive, strict=True)
        if not wrong
    ]
    return sum(better) / len(better)


def test_ties_count_half() -> None:
    scores, positive = [0.2, 0.5, 0.5, 0.5, 0.9, 0.9], [False, True, False, True, True, False]
    given = [{"no": 1 - score, "yes": score} for score in scores]
    references = ["yes" if right else "no" for right in positive]
    assert AUROC(given, references) == pytest.approx(pairs_in_order(scores, positive))
    # of the nine pairs four are in order, and three are ties
    assert AUROC(given, references) == pytest.approx((4 + 3 / 2) / 9)


def test_of_two_labels_the_last_ones_probability_is_ranked_as_by_scikit_learn() -> None:
    """Saved with six digits, 0.9999997 and 0.99999998 are equal, 3e-7 and 2e-8 are not. Mutation: the other label's."""
    given = [{"no": 3e-7, "yes": 1.0}, {"no": 2e-8, "yes": 1.0}, {"no": 0.4, "yes": 0.6}]
    references = ["no", "yes", "yes"]
    assert AUROC(given, references) == roc_auc_score([0, 1, 1], [1.0, 1.0, 0.6]) == 0.25


def test_labels_without_both_kinds_of_rows_have_no_curve() -> None:
    """Mutation: they count as 0, or as 0.5."""
    given = [{"a": 0.7, "b": 0.2, "c": 0.1}, {"a": 0.2, "b": 0.7, "c": 0.1}, {"a": 0.6, "b": 0.3, "c": 0.1}]
    assert AUROC(given, ["a", "b", "a"]) == 1.0
    assert math.isnan(AUROC(given, ["a", "a", "a"]))
    assert math.isnan(AUROC(given[:1], ["a"]))
    assert math.isnan(AUROC([], []))


def test_a_label_that_a_system_never_heard_of_has_probability_zero() -> None:
    assert AUROC(
        [{"a": 0.9, "b": 0.1}, {"a": 0.4, "b": 0.6}, {"a": 0.5, "b": 0.5}], ["a", "b", "new"]
    ) == pytest.approx((1 + 1 + 0.5) / 3)


def test_without_probabilities_a_row_ranks_behind_all_others() -> None:
    """Also behind a right label of probability 0, and likewise where one is NaN. Mutation: 0 for the missing ones."""
    given = [{"no": 0.0, "yes": 1.0}, {"no": 1.0, "yes": 0.0}, {"no": 1.0, "yes": 0.0}]
    references = ["yes", "no", "yes"]
    assert AUROC(given, references) == 0.75
    for nothing in (None, {}, {"no": 0.1, "yes": math.nan}):
        assert AUROC([given[0], given[1], nothing], references) == 0.5
        assert AUROC([given[0], nothing, given[2]], references) == 0.0


# --- calibration ---


def slow_calibration_error(given: Sequence[Mapping[str, float]], references: Sequence[str]) -> float:
    """Guo et al. (2017), equation 3, bin by bin."""
    tops = [max(row.items(), key=lambda entry: entry[1]) for row in given]
    error = 0.0
    for m in range(1, 16):
        inside = [
            (confidence, label == right)
            for (label, confidence), right in zip(tops, references, strict=True)
            if (m - 1) / 15 < confidence <= m / 15
        ]
        if inside:
            accuracy = sum(right for _, right in inside) / len(inside)
            confidence = sum(confidence for confidence, _ in inside) / len(inside)
            error += len(inside) / len(given) * abs(accuracy - confidence)
    return error


def test_calibration_errors_of_1000_fuzzed_cases_are_those_of_torchmetrics_and_of_the_definition() -> None:
    for seed in range(1_000):
        rng = np.random.default_rng(seed)
        classes, rows = int(rng.integers(2, 6)), int(rng.integers(1, 60))
        scores, true = rng.dirichlet(np.full(classes, rng.uniform(0.2, 3)), rows), rng.integers(0, classes, rows)
        scores = scores.clip(1e-9, 1 - 1e-9)  # torchmetrics puts 1 into a bin of its own
        references = [NAMES[label] for label in true]
        found = CALIBRATION(with_names(scores), references)
        assert found == pytest.approx(slow_calibration_error(with_names(scores), references), abs=1e-12)
        theirs = multiclass_calibration_error(
            torch.from_numpy(scores), torch.from_numpy(true), num_classes=classes, n_bins=15, norm="l1"
        )
        assert found == pytest.approx(theirs.item(), abs=1e-6)


@pytest.mark.parametrize("confidence", [m / 15 for m in range(1, 16)] + [0.2000001, 0.9999, 1.0])
def test_a_bin_includes_its_upper_end(confidence: float) -> None:
    """A second row just below the end shares its bin, and their errors cancel; one just above it does not."""
    just_below = np.nextafter(confidence, 0) - 1e-9
    for other in (just_below, min(1.0, confidence + 1e-9)):
        given = [{"a": confidence}, {"a": other}]
        references = ["a", "other"]
        expected = slow_calibration_error(given, references)
        assert CALIBRATION(given, references) == pytest.approx(expected, abs=1e-12)


def test_the_error_is_no_mean_of_the_rows_errors() -> None:
    """Mutation: mean of |confidence - right|, which is never 0."""
    given: list[dict[str, Any]] = [{"a": 0.75, "b": 0.25}] * 4
    references = ["a", "a", "a", "b"]
    assert CALIBRATION(given, references) == 0.0
    assert np.mean([abs(0.75 - (right == "a")) for right in references]) > 0.3


def test_rows_without_probabilities_cannot_cancel_against_others() -> None:
    """Mutation: they go into the last bin, where rows that are too modest make up for them."""
    modest: list[Any] = [{"a": 0.95, "b": 0.05}] * 19
    assert CALIBRATION(modest, ["a"] * 19) == pytest.approx(0.05)
    assert CALIBRATION([*modest, None], ["a"] * 20) == pytest.approx((19 * 0.05 + 1) / 20)
    assert CALIBRATION([*modest, {"a": math.nan, "b": 0.1}], ["a"] * 20) == pytest.approx((19 * 0.05 + 1) / 20)
