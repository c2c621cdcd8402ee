"""The verdict: is the tuned model better than every other system on the same rows?

    better      every 95 % interval of (tuned - rival) lies above zero
    worse       the interval against `base` (where there is none: `trivial`) lies below zero
    not shown   anything else, and always with fewer than 30 units

Differences are positive when tuned is better, whatever the metric's direction. All systems share the resamples, and the
rule asks for every interval, so more rivals make a false "better" rarer and call for no correction. The intervals are
those of `bootstrap`; that both errors stay under 5 % is simulated in benchmarks/verdict_simulation.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pegbox.evaluation.bootstrap import (
    ALPHA,
    RANKED_RESAMPLES,
    RESAMPLES,
    Distribution,
    Units,
    paired_difference,
    resampled_values,
)
from pegbox.metrics import FloatArray, Metric

MINIMUM_UNITS = 30
MOST_UNITS = 1_000_000  # a difference that would take more test rows than these is none
POWER = 0.8
TUNED, BASE, FEW_SHOT, TRIVIAL = "tuned", "base", "base_few_shot", "trivial"


@dataclass(frozen=True)
class Interval:
    """A metric's value on all rows and its 95 % interval; an end may be infinite (see `bootstrap`)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Tuned against one rival, on the metric's scale, positive when tuned is better."""

    against: str
    metric: str
    difference: float
    low: float
    high: float
    p_value: float
    test: str = "paired bootstrap"


@dataclass(frozen=True)
class Verdict:
    """What `judge` found. `comparison` is the least favourable of `comparisons`, the one with the lowest `low`.

    `units_needed`: with how many units a true difference of the observed size would be shown in 80 % of tries; None unless
    the verdict is "not shown" and every difference is positive. `prompting_is_as_good`: only the interval against
    `base_few_shot` fails to lie above zero.
    """

    metric: str
    signature: str
    rows: int
    units: int
    systems: Mapping[str, Interval]
    comparisons: Mapping[str, Comparison]
    comparison: Comparison
    verdict: Literal["better", "worse", "not shown"]
    prompting_is_as_good: bool
    units_needed: int | None
    reason: str

    def to_json(self) -> dict[str, Any]:
        """The pieces of `evaluation.json` that are about the primary metric; what is not finite is None."""
        return {
            "primary": self.metric,
            **({"signature": self.signature} if self.signature else {}),
            "rows": self.rows,
            "units": self.units,
            "systems": {name: {self.metric: to_json(interval)} for name, interval in self.systems.items()},
            "comparison": to_json(self.comparison),
            "comparisons": {name: to_json(comparison) for name, comparison in self.comparisons.items()},
            "verdict": self.verdict,
            "reason": self.reason,
            "prompting_is_as_good": self.prompting_is_as_good,
            "units_needed": self.units_needed,
        }


def to_json(result: Interval | Comparison) -> dict[str, Any]:
    """The fields; a number that is not finite, which JSON cannot say, is None."""
    return {
        key: None if isinstance(field, float) and not math.isfinite(field) else field
        for key, field in asdict(result).items()
    }


def interval_of(
    metric: Metric, statistics: FloatArray, units: NDArray[np.int64], *, seed: int, resamples: int = RESAMPLES
) -> Interval:
    """One system's value and interval from its statistics [n, k] and the rows' units [n]: for secondary metrics."""
    grouped = Units.of(units)
    resamples = resamples if metric.additive else min(resamples, RANKED_RESAMPLES)
    return intervals(metric, {"system": statistics}, grouped, seed, resamples)[0]["system"]


def judge(
    metric: Metric,
    statistics: Mapping[str, FloatArray],
    units: NDArray[np.int64],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Verdict:
    """Compares "tuned" with every other system.

    `statistics`: float64 [n, k] per system, from `line_statistics`; `units`: int [n], equal for rows that belong
    together. The same seed gives the same verdict.
    """
    assert TUNED in statistics and len(statistics) > 1, f"a verdict needs tuned and a rival, not {sorted(statistics)}"
    grouped = Units.of(units)
    systems, resampled = intervals(metric, statistics, grouped, seed, resamples)
    comparisons: dict[str, Comparison] = {}
    needed = 0.0
    for rival in statistics:
        if rival == TUNED:
            continue
        comparison, spread = compare(metric, TUNED, rival, systems, resampled, grouped)
        comparisons[rival] = comparison
        shown = comparison.low > 0
        needed = max(needed, units_needed(comparison.difference, spread.standard_error, grouped.count, shown=shown))
    return _verdict(metric, grouped, systems, comparisons, needed)


def compare(
    metric: Metric,
    system: str,
    rival: str,
    systems: Mapping[str, Interval],
    resampled: Mapping[str, FloatArray],
    units: Units,
) -> tuple[Comparison, Distribution]:
    """One system against another, from what `intervals` found of both: the comparison, and how the difference spreads."""
    spread = Distribution(_advantage(metric, resampled[system], resampled[rival]), units)
    difference = float(_advantage(metric, systems[system].value, systems[rival].value))
    return Comparison(rival, metric.name, difference, *spread.interval(), p_value=spread.p_value()), spread


def _advantage(metric: Metric, tuned: FloatArray | float, rival: FloatArray | float) -> FloatArray:
    """How far tuned is better than the rival, in the metric's direction."""
    tuned, rival = np.asarray(tuned), np.asarray(rival)
    return paired_difference(tuned, rival) if metric.greater_is_better else paired_difference(rival, tuned)


def intervals(
    metric: Metric, statistics: Mapping[str, FloatArray], units: Units, seed: int, resamples: int
) -> tuple[dict[str, Interval], dict[str, FloatArray]]:
    """Each system's value with its interval, and its resampled values [B], the resamples being the same for all."""
    stacked = np.stack([np.asarray(rows, dtype=np.float64) for rows in statistics.values()], axis=1)
    assert len(stacked) == len(units.index) > 0, f"{len(stacked)} rows of statistics, {len(units.index)} of units"
    assert not np.isnan(stacked).any(), f"{metric.name}: statistics must not be NaN"
    values = [metric.of(stacked[:, system]) for system in range(len(statistics))]
    resampled = resampled_values(metric, stacked, units, seed=seed, resamples=resamples).T
    ends = [Distribution(row, units).interval() for row in resampled]
    systems = {name: Interval(value, *end) for name, value, end in zip(statistics, values, ends, strict=True)}
    return systems, dict(zip(statistics, resampled, strict=True))


def units_needed(difference: float, standard_error: float, units: int, *, shown: bool, alpha: float = ALPHA) -> float:
    """Units at which a true `difference` is shown with 80 % power: its standard error falls as their square root.

    Infinite where no number of units that anybody tests on shows it; more than `units` unless it is `shown` already.
    """
    if not difference > 0 or not math.isfinite(standard_error):
        return math.inf
    normal = NormalDist()
    quantiles = normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(POWER)
    enough = units * (quantiles * standard_error / difference) ** 2
    if enough > MOST_UNITS:
        return math.inf
    return max(enough, MINIMUM_UNITS, 0 if shown else units + 1)


def _decide(comparisons: Mapping[str, Comparison], units: int) -> Literal["better", "worse", "not shown"]:
    if units < MINIMUM_UNITS:
        return "not shown"
    if all(comparison.low > 0 for comparison in comparisons.values()):
        return "better"
    untouched = comparisons.get(BASE) or comparisons.get(TRIVIAL)
    return "worse" if untouched is not None and untouched.high < 0 else "not shown"


def _prompting_is_as_good(comparisons: Mapping[str, Comparison], units: int) -> bool:
    failing = [rival for rival, comparison in comparisons.items() if not comparison.low > 0]
    return units >= MINIMUM_UNITS and failing == [FEW_SHOT]


def _size(units: Units) -> str:
    rows = len(units.index)
    return f"{rows} rows" if rows == units.count else f"{rows} rows in {units.count} groups"


def _interval_text(comparison: Comparison) -> str:
    return f"{comparison.difference:.3g}, 95 % interval {comparison.low:.3g} to {comparison.high:.3g}"


def _reason(
    verdict: str, comparisons: Mapping[str, Comparison], worst: Comparison, units: Units, needed: int | None
) -> str:
    """One or two plain sentences; `worst` is the least favourable comparison."""
    scale = f"{worst.metric} on {_size(units)}"
    lead = f"tuned minus {worst.against} is {_interval_text(worst)}"
    if verdict == "better":
        return f"Tuned is ahead of every other system in {scale}; closest is {worst.against}: {lead}."
    if verdict == "worse":
        untouched = comparisons.get(BASE) or comparisons[TRIVIAL]
        return f"Tuned is behind {untouched.against} in {scale}: the difference is {_interval_text(untouched)}."
    kind = "rows" if len(units.index) == units.count else "groups of rows"
    if units.count < MINIMUM_UNITS:
        return f"A verdict takes at least {MINIMUM_UNITS} {kind} that are independent; these are {units.count}."
    if _prompting_is_as_good(comparisons, units.count):
        level = "better" if worst.high < 0 else "as good"
        return (
            f"Prompting is {level}: tuned is ahead of every system in {scale} but the untouched model with examples "
            f"in its prompt: {lead}."
        )
    more = f" A difference of this size would take about {needed:,} {kind} to show." if needed else ""
    return f"Tuned is not shown to be ahead in {scale}: {lead}.{more}"


def _verdict(
    metric: Metric, units: Units, systems: Mapping[str, Interval], comparisons: Mapping[str, Comparison], needed: float
) -> Verdict:
    worst = min(comparisons.values(), key=lambda comparison: (comparison.low, comparison.difference))
    verdict = _decide(comparisons, units.count)
    enough = math.ceil(needed) if verdict == "not shown" and math.isfinite(needed) else None
    return Verdict(
        metric=metric.name,
        signature=metric.signature,
        rows=len(units.index),
        units=units.count,
        systems=systems,
        comparisons=comparisons,
        comparison=worst,
        verdict=verdict,
        prompting_is_as_good=_prompting_is_as_good(comparisons, units.count),
        units_needed=enough,
        reason=_reason(verdict, comparisons, worst, units, enough),
    )
