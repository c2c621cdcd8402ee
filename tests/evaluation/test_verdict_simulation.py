"""A short form of benchmarks/verdict_simulation.py, and the proof that a broken verdict fails it.

The bounds leave room for the error of a short simulation (2.2 % is the true rate of each false verdict against one rival),
and the seeds are fixed, so that a failure means a change of the code. The full one has 45,760 null cases.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pegbox.evaluation import bootstrap, verdict
from pegbox.evaluation.bootstrap import Units
from source_tree import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import verdict_cases
import verdict_simulation
from verdict_simulation import Cell, run_cell

GROUPED = [kind for kind in verdict_cases.KINDS if kind.__name__.startswith("grouped")]
ALLOWED = 0.05
BOTH_ALLOWED = 0.065  # better and worse together, of 3,200 cases: five standard errors above the true rate of 4.4 %


def false_verdicts(kinds: Sequence[Any], *, cases: int, units: int = 30, rivals: int = 1) -> tuple[float, float]:
    """Rates of "better" and "worse" over null cases."""
    counts = sum((run_cell(Cell(kind, units, rivals, cases, 1_000, seed=1)) for kind in kinds), Counter())
    return counts["better"] / counts.total(), counts["worse"] / counts.total()


def power(units: int) -> float:
    """How often ten points at 20 % discordant rows are called better."""
    return run_cell(Cell(verdict_cases.better_by_ten_points, units, 1, 200, 500, seed=2))["better"] / 200


def test_at_thirty_units_neither_false_verdict_is_common() -> None:
    better, worse = false_verdicts(verdict_cases.KINDS, cases=200)
    assert better <= ALLOWED and worse <= ALLOWED and better + worse <= BOTH_ALLOWED
    assert better > 0.01 and worse > 0.01  # a verdict that never speaks would pass the above


def test_several_equal_rivals_make_a_false_better_rarer() -> None:
    better, worse = false_verdicts(verdict_cases.KINDS, cases=30, rivals=4)
    assert better <= 0.015 and worse <= 0.045


def test_a_true_gain_is_found() -> None:
    assert power(400) >= 0.95
    assert power(200) >= 0.8


def test_a_one_sided_interval_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "ALPHA", 0.10)
    assert sum(false_verdicts(verdict_cases.KINDS, cases=200)) > BOTH_ALLOWED


def test_ignoring_the_groups_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sum(false_verdicts(GROUPED, cases=60)) <= 2 * ALLOWED
    monkeypatch.setattr(
        Units, "of", classmethod(lambda cls, labels: cls(np.arange(len(labels)), np.ones(len(labels), int)))
    )
    assert sum(false_verdicts(GROUPED, cases=60)) > 2 * ALLOWED


def test_an_unpaired_bootstrap_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    paired = verdict.resampled_values

    def unpaired(metric: Any, statistics: Any, units: Any, *, seed: int, resamples: int) -> Any:
        columns = [statistics[:, [system]] for system in range(statistics.shape[1])]
        alone = [paired(metric, own, units, seed=seed + k, resamples=resamples) for k, own in enumerate(columns)]
        return np.concatenate(alone, axis=1)

    monkeypatch.setattr(verdict, "resampled_values", unpaired)
    assert power(200) < 0.8


def test_asking_for_any_interval_rather_than_every_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "all", any, raising=False)
    assert false_verdicts(verdict_cases.KINDS, cases=30, rivals=4)[0] > 0.015


def test_a_verdict_in_the_wrong_direction_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = verdict.paired_difference
    monkeypatch.setattr(verdict, "paired_difference", lambda left, right_hand: right(right_hand, left))
    assert power(200) < 0.05


def test_plain_percentiles_are_what_the_calibration_improves_on() -> None:
    skewed = [verdict_cases.skewed_losses, verdict_cases.skewed_gains]
    cells = [Cell(kind, 30, 1, 400, 500, seed=3) for kind in skewed]
    plain = [run_cell(cell, verdict_simulation.plain_percentiles) for cell in cells]
    ours = [run_cell(cell) for cell in cells]
    assert plain[0]["better"] + plain[1]["worse"] > 0.05 * 800
    assert ours[0]["better"] + ours[1]["worse"] <= 0.05 * 800
