"""Several systems on the same rows, each against each: paired differences, Holm's correction, and which is best.

Values, intervals and p-values are those of the verdict (see `bootstrap`): all systems share the resamples. With k systems
there are m = k (k - 1) / 2 pairs, and one of them is easily significant by chance. With the p-values in rising order,
Holm's (1979) adjusted ones are

    p_adjusted(i) = max over j <= i of min(1, (m + 1 - j) p(j))

and the chance that any pair of equals has one of at most 5 % is at most 5 %. Intervals are not adjusted: each is a 95 %
interval of its own difference.

    best    the system with the highest value, where every pair that it is in has p_adjusted <= 5 %; else none,
            and always none with fewer than 30 units

The least p-value that resamples can give grows with m when it is adjusted, so there are more resamples for many pairs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pegbox.evaluation.bootstrap import ALPHA, RESAMPLES, Units
from pegbox.evaluation.verdict import MINIMUM_UNITS, Comparison, Interval, compare, intervals, to_json, units_needed
from pegbox.metrics import FloatArray, Metric

PAIRS_A_SHARE = 10  # pairs for which the verdict's number of resamples is enough


@dataclass(frozen=True)
class Pair:
    """One system against one that is ranked below it: `comparison.difference` is never below zero."""

    system: str
    comparison: Comparison
    p_adjusted: float
    shown: bool

    def to_json(self) -> dict[str, Any]:
        """One entry of `differences`."""
        fields = {"p_adjusted": self.p_adjusted, "shown": self.shown}
        return {"run": self.system, **to_json(self.comparison), **fields}


@dataclass(frozen=True)
class Ranking:
    """All systems, best value first, and all pairs in that order.

    `rivals`: the systems that are not shown to be behind the first. `units_needed`: about how many units would show the
    first to be best, were its differences as observed; None where it is shown, or where no number of units would.
    """

    systems: Mapping[str, Interval]
    pairs: Sequence[Pair]
    rows: int
    units: int
    resamples: int
    best: str | None
    rivals: Sequence[str]
    units_needed: int | None


def rank(
    metric: Metric,
    statistics: Mapping[str, FloatArray],
    units: NDArray[np.int64],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Ranking:
    """Compare every system with every other.

    `statistics`: float64 [n, k] per system, from `line_statistics`; `units`: int [n], equal for rows that belong
    together; `resamples`: for up to ten pairs. The same seed gives the same ranking, whatever the order of the systems.
    """
    assert len(statistics) > 1, f"a comparison needs two systems, not {sorted(statistics)}"
    grouped, pairs = Units.of(units), math.comb(len(statistics), 2)
    drawn = resamples * math.ceil(pairs / PAIRS_A_SHARE)
    found, resampled = intervals(metric, statistics, grouped, seed, drawn)
    order = sorted(found, key=lambda name: _place(metric, name, found[name]))
    compared = {
        (one, other): compare(metric, one, other, found, resampled, grouped)
        for one, other in itertools.combinations(order, 2)
    }
    adjusted = holm([comparison.p_value for comparison, _ in compared.values()])
    ranked = [
        Pair(one, comparison, p, grouped.count >= MINIMUM_UNITS and p <= ALPHA)
        for ((one, _), (comparison, _)), p in zip(compared.items(), adjusted, strict=True)
    ]
    first = [pair for pair in ranked if pair.system == order[0]]
    rivals = [pair.comparison.against for pair in first if not pair.shown]
    errors = [compared[order[0], pair.comparison.against][1].standard_error for pair in first]
    return Ranking(
        systems={name: found[name] for name in order},
        pairs=ranked,
        rows=len(grouped.index),
        units=grouped.count,
        resamples=drawn,
        best=None if rivals else order[0],
        rivals=rivals,
        units_needed=_needed(first, errors, grouped.count, ALPHA / pairs) if rivals else None,
    )


def _place(metric: Metric, name: str, found: Interval) -> tuple[bool, float, str]:
    """Best value first; what is undefined last; equals by name."""
    sign = -1.0 if metric.greater_is_better else 1.0
    undefined = math.isnan(found.value)
    return undefined, 0.0 if undefined else sign * found.value, name


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank_, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank_) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _needed(first: Sequence[Pair], errors: Sequence[float], units: int, alpha: float) -> int | None:
    """Units for the hardest of the first system's pairs, at the level that Holm asks of it at worst."""
    needed = max(
        units_needed(pair.comparison.difference, error, units, shown=pair.shown, alpha=alpha)
        for pair, error in zip(first, errors, strict=True)
    )
    return math.ceil(needed) if math.isfinite(needed) else None
