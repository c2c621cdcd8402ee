"""Where training and validation part ways: seen where it is plain, not seen where it is noise, on logs that are made.

The oracle of the noise is counting: how many of seeded series that are flat under a falling training loss are said to part.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from pegbox.evaluation import overfitting
from pegbox.evaluation.overfitting import Point, parting, points

PER = 10  # updates between validations
EPOCH = 40  # updates of an epoch
PARTED = (2.0, 1.4, 1.1, 1.0, 1.005, 1.1, 1.2, 1.3)  # the best is the fourth, the first clearly above it the sixth
Line = dict[str, Any]


def falling(step: int) -> float:
    return 2 * math.exp(-step / 50)


def log_of(
    validation: Sequence[float | None], training: Callable[[int], float | None] = falling, *, per: int = PER
) -> list[Line]:
    """The lines of a `metrics.jsonl`, as the loop writes them."""
    lines: list[Line] = []
    for step in range(1, per * len(validation) + 1):
        lines.append({"step": step, "epoch": step / EPOCH, "loss": training(step), "tokens": 700, "rows": 16})
        if step % per == 0:
            lines.append({"step": step, "split": "validation", "loss": validation[step // per - 1]})
    return lines


def false_alarms(count: int, validations: int, noise: float) -> int:
    """In how many of `count` seeded series of flat noise around 1 a parting is seen."""
    drawn = [1 + noise * np.random.default_rng(seed).standard_normal(validations) for seed in range(count)]
    return sum(parting(log_of(series.tolist(), per=2)) is not None for series in drawn)


# ---- a parting -------------------------------------------------------------------------------------------------------


def test_a_plain_parting_names_the_best_the_first_that_stays_above_it_and_the_end() -> None:
    found = parting(log_of(PARTED))
    assert found is not None
    assert (found.best.step, found.start.step, found.end.step) == (40, 60, 80)
    assert (found.best.epoch, found.start.epoch, found.end.epoch) == (1.0, 1.5, 2.0)
    assert (found.best.validation, found.end.validation) == (1.0, 1.3)
    assert found.best.training == pytest.approx(np.mean([falling(step) for step in range(31, 41)]))
    assert found.end.training == pytest.approx(np.mean([falling(step) for step in range(71, 81)]))
    assert found.worse == pytest.approx(0.3)


def test_a_validation_that_never_gets_better_parts_from_its_second_on() -> None:
    found = parting(log_of([1.0, 1.1, 1.2, 1.3]))
    assert found is not None
    assert (found.best.step, found.start.step, found.end.step) == (10, 20, 40)


def test_a_parting_scales_with_the_loss_and_does_not_hang_on_how_long_the_run_is() -> None:
    for times in (1e-6, 1.0, 1e6):
        found = parting([line | {"loss": times * line["loss"]} for line in log_of(PARTED)])
        assert found is not None and found.start.step == 60 and found.worse == pytest.approx(0.3)
    later = parting(log_of(PARTED, per=1))
    assert later is not None and later.start.step == 6


def test_the_start_is_after_the_last_return_to_the_best() -> None:
    back = [2.0, 1.0, 1.03, 1.0, 1.2, 1.4, 1.6]
    found = parting(log_of(back))
    assert found is not None and (found.best.step, found.start.step) == (20, 50)  # of two equals the first is the best


def test_one_validation_is_enough_where_it_is_far_above() -> None:
    assert parting(log_of([1.0, 0.8, 1.0])) is not None
    assert parting(log_of([1.0, 0.8, 0.87])) is None
    assert parting(log_of([1.0, 0.8, 0.87, 0.87])) is None
    assert parting(log_of([1.0, 0.8, 0.87, 0.87, 0.87])) is not None


def test_a_loss_below_zero_has_a_parting_and_no_per_cent() -> None:
    found = parting(log_of([-1.0, -2.0, -1.5, -1.0, -0.5]))
    assert found is not None and found.start.step == 30 and found.worse is None


# ---- none ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "validation",
    [
        pytest.param([2 * 0.8**i for i in range(10)], id="falls"),
        pytest.param([1.0] * 10, id="flat"),
        pytest.param([0.0] * 10, id="nothing left to learn"),
        pytest.param([2.0, 1.5, 1.0, 1.4, 1.5, 1.2, 1.0, 1.0], id="comes back"),
        pytest.param([2.0, 1.5, 1.0, 1.01, 1.015, 1.015, 1.019, 1.019], id="rises by less than 2 %"),
        pytest.param([0.7, 0.02, 0.001, 0.002, 0.003, 0.003, 0.003], id="rises by less than a hundredth of what it gained"),
        pytest.param([2.0, 1.5, 1.7, 1.4, 1.6, 1.3, 1.4, 1.5, 1.55], id="rose as much before and came back"),
        pytest.param([1.0, 1.3, 1.1, 1.35, 1.15, 1.3, 1.15], id="swings after the best"),
        pytest.param([1.0, 1.5], id="two validations"),
        pytest.param([], id="no validation"),
        pytest.param([None, None, 1.0, 1.5], id="two validations that are finite"),
        pytest.param([None] * 6, id="no validation that is finite"),
    ],
)  # fmt: skip
def test_where_validation_does_not_clearly_rise_nothing_parts(validation: list[float | None]) -> None:
    assert parting(log_of(validation)) is None


def test_where_the_training_loss_rises_or_stands_still_too_nothing_parts() -> None:
    for training in (lambda step: 1 + step / 100, lambda step: 1.0, lambda step: None, lambda step: math.nan):
        assert parting(log_of(PARTED, training)) is None


def test_an_empty_log_says_nothing() -> None:
    assert parting([]) is None and points([]) == []


# ---- curves of real runs ---------------------------------------------------------------------------------------------

# a tiny BERT, all weights, on 240 short texts: (validation, training) before each of ten validations
BY_HEART = [(1.561, 2.053), (1.429, 1.415), (1.505, 1.187), (1.583, 1.034), (1.759, 0.798), (1.803, 0.632)]
BY_HEART += [(1.808, 0.558), (1.844, 0.497), (1.855, 0.434), (1.857, 0.418)]  # labels shuffled
SWINGS = [(1.817, 2.385), (1.871, 1.551), (1.484, 1.386), (1.494, 1.208), (1.632, 1.131), (1.442, 0.968)]
SWINGS += [(1.595, 0.838), (1.619, 0.71), (1.618, 0.69), (1.619, 0.633)]  # labels shuffled with another seed
LEARNT = [(1.373, 2.242), (0.953, 0.807), (0.867, 0.366), (0.612, 0.235), (0.649, 0.132), (0.623, 0.051)]
LEARNT += [(0.509, 0.026), (0.504, 0.015), (0.513, 0.011), (0.514, 0.012)]  # the right labels


@pytest.mark.parametrize(("curves", "start"), [(BY_HEART, 3), (SWINGS, None), (LEARNT, None)])
def test_of_real_curves_that_of_rows_learnt_by_heart_parts_and_one_that_swings_as_far_as_it_rises_does_not(
    curves: list[tuple[float, float]], start: int | None
) -> None:
    validation, training = zip(*curves, strict=True)
    found = parting(log_of(validation, lambda step: training[step - 1], per=1))
    assert (found and found.start.step) == start


# ---- what is left out ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_left_out(missing: float | None) -> None:
    found = parting(log_of([missing, *PARTED[:4], missing, *PARTED[4:], missing]))
    assert found is not None
    assert (found.best.step, found.start.step, found.end.step) == (50, 80, 100)

    def training(step: int) -> float | None:
        return missing if step == 75 else falling(step)

    gap = parting(log_of(PARTED, training))
    assert gap is not None
    assert gap.end.training == pytest.approx(np.mean([falling(step) for step in range(71, 81) if step != 75]))


def test_a_log_with_lines_written_twice_by_a_resumed_run_says_the_same_and_the_last_lines_count() -> None:
    lines = log_of(PARTED)
    again = [line | {"loss": 9.0} for line in lines if 30 < line["step"] <= 50]
    resumed = [*[line for line in lines if line["step"] <= 30], *again, *[line for line in lines if line["step"] > 30]]
    assert parting(resumed) == parting(lines)
    assert parting([*lines, *again]) != parting(lines)


def test_lines_are_read_as_they_come_back_from_the_file_and_further_keys_change_nothing() -> None:
    lines = log_of(PARTED)
    more = [line | {"exact_match": 0.1 * line["step"]} if "split" in line else line for line in lines]
    assert parting(map(json.loads, map(json.dumps, more))) == parting(lines)


def test_a_short_last_stretch_is_measured_over_as_many_updates_as_the_others() -> None:
    """One update is a batch of rows, which may be an easy one; the loop validates after the last update whatever it is."""

    def training(step: int) -> float:
        return 5.0 if step == 81 else falling(step)

    lines = [*log_of([*PARTED, 1.4], training)[:-PER], {"step": 81, "split": "validation", "loss": 1.4}]
    assert [line["step"] for line in lines[-2:]] == [81, 81]
    end = points(lines)[-1]
    assert end.step == 81
    assert end.training == pytest.approx(np.mean([training(step) for step in range(72, 82)]))


def test_the_training_loss_is_a_mean_over_rows() -> None:
    lines = [
        {"step": 1, "epoch": 0.8, "loss": 1.0, "rows": 16},
        {"step": 2, "epoch": 1.0, "loss": 4.0, "rows": 4},
        {"step": 2, "split": "validation", "loss": 3.0},
    ]
    assert points(lines) == [Point(2, 1.0, 3.0, (16 * 1.0 + 4 * 4.0) / 20)]


# ---- noise -----------------------------------------------------------------------------------------------------------

# Validations, noise as a share of the loss, and how many of 200 series may be said to part: the rates that the module's
# docstring states (at ten 5 of 100, with noise of 1 % 2 of 100) and two standard deviations of such a count above them.
FEW = {
    (10, 0.01): 8,
    (10, 0.05): 16,
    (10, 0.5): 16,
    (20, 0.05): 8,
    (20, 0.5): 8,
    (3, 0.01): 8,
    (5, 0.01): 8,
}


@pytest.mark.parametrize(("validations", "noise"), FEW)
def test_flat_noise_is_rarely_said_to_part(validations: int, noise: float) -> None:
    assert false_alarms(200, validations, noise) <= FEW[validations, noise]


def test_partings_that_are_larger_than_the_noise_are_seen() -> None:
    places = np.linspace(0.1, 1, 10)
    curve = 1 + 2 * np.exp(-places / 0.12) + 0.5 * np.maximum(0, places - 0.35)
    drawn = [curve * (1 + 0.01 * np.random.default_rng(seed).standard_normal(10)) for seed in range(200)]
    found = [parting(log_of(series.tolist(), per=2)) for series in drawn]
    seen = [one for one in found if one is not None]
    assert len(seen) >= 190
    assert all(0.4 <= one.start.step / 20 <= 0.8 for one in seen)  # the curve is lowest at 0.4 to 0.5 of the run


# ---- the checks see it when the rule is broken -----------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "case"), [("MOVES", (10, 0.05)), ("MOVES", (20, 0.5)), ("CONFIRMED", (5, 0.01))])
def test_the_count_of_false_alarms_sees_a_rule_that_is_gone(
    rule: str, case: tuple[int, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overfitting, rule, 0)
    assert false_alarms(200, *case) > 4 * FEW[case]


@pytest.mark.parametrize(
    ("rule", "validation"),
    [
        ("IMMATERIAL", [2.0, 1.5, 1.0, 1.01, 1.015, 1.015, 1.019, 1.019]),
        ("OF_GAIN", [0.7, 0.02, 0.001, 0.002, 0.003, 0.003, 0.003]),
        ("PLAIN", [1.0, 0.8, 0.87]),
        ("LEAST", [1.0, 1.5]),
    ],
)
def test_each_bound_is_what_holds_a_case_back(
    rule: str, validation: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parting(log_of(validation)) is None
    monkeypatch.setattr(overfitting, rule, 0.0)
    assert parting(log_of(validation)) is not None


def test_ties_see_a_best_that_is_the_last_of_equals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overfitting, "lowest", lambda found: min(reversed(found), key=lambda point: point.validation))
    with pytest.raises(AssertionError):
        test_the_start_is_after_the_last_return_to_the_best()


def test_the_short_stretch_sees_a_mean_over_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overfitting, "_mean_loss", lambda lines: lines[-1]["loss"])
    with pytest.raises(AssertionError):
        test_a_short_last_stretch_is_measured_over_as_many_updates_as_the_others()
