"""Temperatures and thresholds: found on validation rows, equal to what a search over all of them finds.

The oracles: scipy's minimiser, brute force over every cut, scikit-learn's F1.
"""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax
from scipy.special import softmax as scipy_softmax
from sklearn.metrics import f1_score

from pegbox.evaluation.calibration import calibration
from pegbox.metrics import METRICS
from pegbox.tasks import calibration as task_calibration
from pegbox.tasks.calibration import (
    COLDEST,
    FEW,
    HOTTEST,
    best_threshold,
    by_label,
    find_temperature,
    find_thresholds,
    logarithm,
    sigmoid,
    softmax,
    tempered,
)


def outcomes(temperature: float, rows: int = 400, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and classes drawn as softmax(logits / temperature) says."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(rows, classes)) * 3
    shares = scipy_softmax(logits / temperature, axis=1)
    return logits, np.array([draw.choice(classes, p=share) for share in shares])


def loss(temperature: float, logits: np.ndarray, classes: np.ndarray) -> float:
    return float(-log_softmax(logits / temperature, axis=1)[np.arange(len(classes)), classes].mean())


# ---- probabilities ---------------------------------------------------------------------------------------------------


def test_probabilities_are_scipys_and_never_overflow() -> None:
    logits = np.array([[-900.0, 0.0, 800.0], [1.0, 2.0, 3.0], [-0.5, 0.0, 0.5]])
    np.testing.assert_allclose(softmax(logits), scipy_softmax(logits, axis=1), rtol=1e-14)
    np.testing.assert_allclose(softmax(logits, 2.5), scipy_softmax(logits / 2.5, axis=1), rtol=1e-14)
    np.testing.assert_allclose(sigmoid(logits), expit(logits), rtol=1e-14)
    np.testing.assert_array_equal(softmax(np.array([[0.0, -np.inf]])), [[1.0, 0.0]])


def test_a_temperature_is_undone_by_its_inverse() -> None:
    logits = np.random.default_rng(0).normal(size=(9, 4))
    np.testing.assert_allclose(tempered(softmax(logits, 1.7), 1 / 1.7), softmax(logits), rtol=1e-12)
    np.testing.assert_allclose(tempered(np.array([[0.75, 0.25, 0.0]]), 0.5), [[0.9, 0.1, 0.0]], rtol=1e-12)


def test_probabilities_are_told_to_six_digits() -> None:
    assert by_label(("a", "b"), np.array([[1 / 3, 2e-9 / 3]])) == ({"a": 0.333333, "b": 6.66667e-10},)


# ---- the temperature -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_is_the_minimum_of_the_loss(temperature: float) -> None:
    logits, classes = outcomes(temperature)
    found = find_temperature(logits, classes)
    best = minimize_scalar(lambda log: loss(np.exp(log), logits, classes), bounds=(-3, 3), method="bounded").x
    assert np.log(found) == pytest.approx(best, abs=1e-4)
    assert found == pytest.approx(temperature, rel=0.2)
    for other in (found * 0.99, found * 1.01):
        assert loss(found, logits, classes) < loss(other, logits, classes)


def test_logits_that_are_twice_as_large_have_twice_the_temperature() -> None:
    logits, classes = outcomes(1.5)
    assert find_temperature(2 * logits, classes) == pytest.approx(2 * find_temperature(logits, classes), rel=1e-12)
    assert find_temperature(logits + 1e3, classes) == pytest.approx(find_temperature(logits, classes), rel=1e-9)


def test_where_validation_cannot_tell_the_temperature_is_1() -> None:
    logits, classes = outcomes(1.0)
    assert find_temperature(logits, logits.argmax(axis=1)) == 1.0  # all right: the surer the better, without end
    assert find_temperature(logits[:0], classes[:0]) == 1.0
    assert find_temperature(np.zeros((5, 3)), np.array([0, 1, 2, 0, 1])) == 1.0


def test_the_temperature_stays_within_its_bounds() -> None:
    logits, classes = outcomes(1.0)
    assert find_temperature(-logits, classes) == pytest.approx(HOTTEST)
    almost = np.array([[0.5, 0.0]] * 50 + [[0.0, 1e-6]])  # one row is wrong, by a hair
    assert find_temperature(almost, np.zeros(51, dtype=int)) == pytest.approx(COLDEST)


def test_rows_of_unknown_or_impossible_classes_are_left_out() -> None:
    logits, classes = outcomes(1.5)
    impossible = np.concatenate([logits, np.full((400, 1), -np.inf)], axis=1)
    marked = np.where(np.arange(400) < 40, np.where(np.arange(400) < 20, -1, 4), classes)
    assert find_temperature(impossible, classes) == find_temperature(logits, classes)
    assert find_temperature(impossible, marked) == find_temperature(logits[40:], classes[40:])
    with np.errstate(all="raise"):
        assert logarithm(np.array([[0.0, 1.0]])).tolist() == [[-np.inf, 0.0]]


# ---- before and after ------------------------------------------------------------------------------------------------


def lines_at(temperature: float, logits: np.ndarray, classes: np.ndarray) -> list[dict[str, object]]:
    labels = [f"label {index}" for index in range(logits.shape[1])]
    rows = by_label(labels, softmax(logits, temperature))
    return [
        {"reference": labels[c], "unit": unit, "probabilities": {"tuned": row}, "answers": {}}
        for unit, (c, row) in enumerate(zip(classes, rows, strict=True))
    ]


@pytest.mark.parametrize("temperature", [0.3, 4.0])
def test_the_error_before_is_that_of_the_outputs_as_they_were(temperature: float) -> None:
    logits, classes = outcomes(temperature, rows=200)
    found = calibration(lines_at(temperature, logits, classes), temperature, seed=1)
    assert found["temperature"] == temperature
    for side, at in (("before", 1.0), ("after", temperature)):
        lines = lines_at(at, logits, classes)
        wanted = METRICS["calibration_error"](
            [line["probabilities"]["tuned"] for line in lines],  # type: ignore[index]
            [line["reference"] for line in lines],
        )
        assert found[side]["value"] == pytest.approx(wanted, abs=1e-5), side
        assert found[side]["low"] <= found[side]["value"] <= found[side]["high"]
    assert found["after"]["value"] < found["before"]["value"]


def test_the_check_sees_a_temperature_that_is_not_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pegbox.evaluation.calibration.tempered", lambda shares, temperature: shares)
    with pytest.raises(AssertionError):
        test_the_error_before_is_that_of_the_outputs_as_they_were(4.0)


# ---- thresholds ------------------------------------------------------------------------------------------------------

CELLS = st.lists(
    st.tuples(st.integers(0, 20).map(lambda n: n / 20), st.integers(0, 1)), min_size=1, max_size=30
).filter(lambda cells: any(there for _, there in cells))


@hypothesis.given(CELLS)
def test_no_threshold_has_a_greater_f1(cells: list[tuple[float, int]]) -> None:
    probabilities, truth = np.array([p for p, _ in cells]), np.array([there for _, there in cells])
    found = best_threshold(probabilities, truth)
    f1 = f1_score(truth, probabilities >= found, zero_division=0)
    assert f1 == pytest.approx(max(slow_f1(truth, probabilities >= cut / 40) for cut in range(1, 42)))
    assert 0 < found <= 1


def slow_f1(truth: np.ndarray, told: np.ndarray) -> float:
    return 2 * int((truth & told).sum()) / (int(truth.sum()) + int(told.sum()))


def test_of_equal_thresholds_the_one_nearest_a_half_is_taken_then_the_greater() -> None:
    assert best_threshold(np.array([0.9, 0.1]), np.array([1, 0])) == 0.5
    assert best_threshold(np.array([0.3, 0.1]), np.array([1, 0])) == pytest.approx(0.2)
    # told of the first alone, or of the first four, F1 is 2 / 3
    assert best_threshold(np.array([0.8, 0.7, 0.6, 0.3, 0.2]), np.array([1, 0, 0, 1, 0])) == pytest.approx(0.75)


def test_thresholds_do_not_hang_on_the_order_of_the_rows() -> None:
    draw = np.random.default_rng(0)
    shares = draw.random((60, 3)).round(1)
    truth = (draw.random((60, 3)) < shares).astype(int)
    order = draw.permutation(60)
    np.testing.assert_array_equal(find_thresholds(shares, truth), find_thresholds(shares[order], truth[order]))


def test_a_label_with_few_rows_gets_the_threshold_of_all_cells() -> None:
    draw = np.random.default_rng(0)
    shares = draw.random((60, 3)) / 2  # all below a half: the threshold must move
    truth = np.zeros((60, 3), dtype=int)
    truth[:, 0] = shares[:, 0] > 0.3
    truth[np.argsort(shares[:, 1])[: FEW - 1], 1] = 1  # few, and against all sense
    found = find_thresholds(shares, truth)
    assert found[0] == best_threshold(shares[:, 0], truth[:, 0]) != found[1]
    assert found[1] == found[2] == best_threshold(shares.ravel(), truth.ravel())
    enough = truth.copy()
    enough[np.argsort(shares[:, 1])[:FEW], 1] = 1
    assert find_thresholds(shares, enough)[1] == best_threshold(shares[:, 1], enough[:, 1])


def test_without_positive_rows_every_threshold_is_a_half() -> None:
    assert find_thresholds(np.full((9, 2), 0.1), np.zeros((9, 2), dtype=int)).tolist() == [0.5, 0.5]


def test_a_label_of_probability_0_is_never_told() -> None:
    shares, truth = np.zeros((9, 1)), np.ones((9, 1), dtype=int)
    assert (shares < find_thresholds(shares, truth)).all()


def test_the_checks_see_a_threshold_that_is_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_calibration, "best_threshold", lambda shares, truth: 0.5)
    with pytest.raises(AssertionError):
        test_a_label_with_few_rows_gets_the_threshold_of_all_cells()
