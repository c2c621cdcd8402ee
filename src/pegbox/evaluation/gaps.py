"""How far groups lie apart in a measure, before and after tuning, and whether tuning changed that.

    gap     = largest - smallest value over the groups                       0 where all groups are alike
    change  = gap(tuned) - gap(counterpart)                                  below 0: tuning narrowed the gap

Two things go wrong with the largest minus the smallest of noisy numbers, and both make claims of fairness come easily:

- It is above zero by chance alone, the more so the more groups and the fewer rows. From the resampled values x_g of a
  group with the value v_g, the gap of x_g - v_g is that of groups which are alike but for noise: 95 % of these gaps are at
  most `by_chance`. (Groups without any error have no noise to resample, so this is rather too small than too large.)
- A resample adds noise to noise, so resampled gaps are too wide, by more for the system that is nearer to guessing. Their
  plain percentiles called the gap "narrowed" in up to 99 % of cases in which 20 groups were alike under both systems (50 %
  right before, 95 % after). So resampled values are moved until their mean is the observed value before the interval of
  `bootstrap` is taken, and a change counts as shown only if that interval leaves out zero and the change also lies outside
  the middle 95 % of what chance gives in groups that are alike. In simulated cases without a change (2 to 20 groups of 40
  and 150 rows, alike or with the same gap twice; 200 trials each, the last of those with 20 groups cut short) the two
  together spoke in at most 5 %; the first alone in up to 59 %, the second alone in up to 25 %.

Both systems share the resamples. Nothing here is adjusted for looking at several measures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from pegbox.evaluation.bootstrap import ALPHA, Distribution, Units, paired_difference
from pegbox.evaluation.verdict import MINIMUM_UNITS
from pegbox.metrics import FloatArray

Measure = Callable[[FloatArray], FloatArray]  # [..., G groups, r rates] -> [...]


def spread(values: FloatArray) -> FloatArray:
    """Largest minus smallest over the groups, of each rate: [..., G, r] -> [..., r]. NaN where a group's value is NaN."""
    with np.errstate(invalid="ignore"):  # inf - inf: the gap is not defined
        found: FloatArray = values.max(axis=-2) - values.min(axis=-2)
    return found


def only_rate(values: FloatArray) -> FloatArray:
    """The gap of the one rate there is: [..., G, 1] -> [...]."""
    return spread(values)[..., 0]


def compare(
    measure: Measure, values: FloatArray, draws: FloatArray, units: Units, *, most: float = math.inf
) -> dict[str, Any]:
    """The gaps of tuned and of its counterpart, and the change, as JSON; what is not finite is None.

    `values` float64 [2, G, r]: of tuned and counterpart on all rows; `draws` float64 [2, B, G, r]: the same, resampled.
    `units`: of the group that has the fewest, which is what widens the intervals (see `bootstrap`). `most`: how large a gap
    can be; no end lies beyond it.
    """
    with np.errstate(invalid="ignore"):  # inf - inf
        noise = draws - values[:, None]
    seen, resampled, chance = measure(values), measure(draws), measure(noise)
    after, before = (_gap(*found, units) for found in zip(seen, resampled, chance, strict=True))
    change = _change(paired_difference(*seen), paired_difference(*resampled), paired_difference(*chance), units)
    verdict = _decide(change, units)
    after, before, change = (_possible(found, most) for found in (after, before, change))
    return {"tuned": after, "counterpart": before, "change": change, "verdict": verdict}


def _gap(observed: float, resampled: FloatArray, chance: FloatArray, units: Units) -> dict[str, float | None]:
    """No gap is below zero, nor is an end of its interval."""
    low, high = _interval(observed, resampled, units)
    ends = {"low": max(0.0, low), "high": high}
    return _finite({"value": float(observed), **ends, "by_chance": _quantiles(chance, 1 - ALPHA)[0]})


def _change(observed: FloatArray, resampled: FloatArray, chance: FloatArray, units: Units) -> dict[str, float | None]:
    low, high = _interval(float(observed), resampled, units)
    least, most = _quantiles(chance, ALPHA / 2, 1 - ALPHA / 2)
    return _finite({"value": float(observed), "low": low, "high": high, "by_chance_low": least, "by_chance_high": most})


def _quantiles(values: FloatArray, *shares: float) -> list[float]:
    """NaN where a value is not finite."""
    return [float(np.quantile(values, share)) if np.isfinite(values).all() else math.nan for share in shares]


def _interval(observed: float, resampled: FloatArray, units: Units) -> tuple[float, float]:
    """The calibrated interval of resampled values [B] that are moved until their mean is what was observed."""
    finite = resampled[np.isfinite(resampled)]
    bias = finite.mean() - observed if finite.size and math.isfinite(observed) else 0.0
    return Distribution(resampled - bias, units).interval()


def _possible(found: dict[str, float | None], most: float) -> dict[str, float | None]:
    return {key: None if value is None else min(max(value, -most), most) for key, value in found.items()}


def _finite(found: dict[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in found.items()}


def _decide(change: dict[str, float | None], units: Units) -> Literal["narrowed", "widened", "not shown"]:
    value, low, high, least, most = change.values()
    if units.count < MINIMUM_UNITS or value is None or least is None or most is None:
        return "not shown"
    if high is not None and high < 0 and value < least:
        return "narrowed"
    return "widened" if low is not None and low > 0 and value > most else "not shown"
