"""Where tuned gained and lost against a rival: parts of the test rows by length, by group, by label, each with its n.

The lead in a part is the difference of the metric on its rows alone, with the interval of the paired bootstrap over the
units of the part (see `evaluation.bootstrap`). A part of fewer than 30 units has no interval and is said to be small. Within
a group, which is one unit of the verdict, the rows are what is resampled: the interval is about more rows of this group.
The intervals are not adjusted for looking at several parts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pegbox.evaluation.bootstrap import Units, paired_difference
from pegbox.evaluation.verdict import MINIMUM_UNITS, TUNED, judge, to_json
from pegbox.metrics import FloatArray, Metric, line_statistics, lookup

IntArray = NDArray[np.intp]
LENGTHS, PARTS = 5, 12  # parts by length, and other parts that are shown, at most


@dataclass(frozen=True)
class Part:
    """Some test rows: the metric of tuned and of the rival on them, and tuned's `lead` (difference, low, high).

    What is not finite is None. `small`: too few for an interval, whose ends are then None, too.
    """

    name: str
    rows: int
    tuned: float | None
    rival: float | None
    lead: Mapping[str, float | None]
    small: bool


@dataclass(frozen=True)
class Parts:
    """The parts shown, of `count`; in `ahead` and `behind` of all of them tuned's lead has that sign."""

    shown: Sequence[Part]
    count: int
    ahead: int
    behind: int


@dataclass(frozen=True)
class Contest:
    """Tuned against `rival` by `metric`: the sufficient statistics [n, k] of both, and the unit of each row, int [n]."""

    metric: Metric
    rival: str
    statistics: Mapping[str, FloatArray]
    units: IntArray
    seed: int

    @classmethod
    def of(cls, lines: Sequence[Mapping[str, Any]], metric: str, rival: str, seed: int) -> Contest:
        """From the lines of `predictions.jsonl`; `metric` as `metrics.lookup` takes it."""
        chosen = lookup(metric)
        statistics = line_statistics(chosen, lines, (TUNED, rival))
        return cls(chosen, rival, statistics, np.array([line["unit"] for line in lines]), seed)

    def values(self, rows: IntArray) -> tuple[float, float]:
        """The metric of tuned and of the rival on some rows."""
        tuned, rival = (self.metric.of(self.statistics[name][rows]) for name in (TUNED, self.rival))
        return tuned, rival

    def lead(self, rows: IntArray) -> float:
        """How far tuned is ahead on some rows, in the metric's direction."""
        tuned, rival = map(np.asarray, self.values(rows))
        return float(paired_difference(tuned, rival)) * (1 if self.metric.greater_is_better else -1)

    def part(self, name: str, rows: IntArray) -> Part:
        """Some rows with what can be said of them."""
        small = Units.of(self.units[rows]).count < MINIMUM_UNITS
        lead = {"difference": _finite(self.lead(rows)), "low": None, "high": None}
        if not small:
            chosen = {system: found[rows] for system, found in self.statistics.items()}
            lead |= to_json(judge(self.metric, chosen, self.units[rows], seed=self.seed).comparison)
        tuned, rival = map(_finite, self.values(rows))
        return Part(name, len(rows), tuned, rival, lead, small)


def by_length(contest: Contest, lengths: Sequence[int]) -> Parts | None:
    """By the length of the input, in parts of about equal size; None where all are equally long.

    The most parts (five at most) of which none is small, two at least. Rows of one length are in one part.
    """
    values = np.asarray(lengths)
    if values.min() == values.max():
        return None
    for count in range(LENGTHS, 1, -1):
        members = _members(values, count)
        if all(Units.of(contest.units[rows]).count >= MINIMUM_UNITS for rows in members.values()):
            break
    return _parts(contest, members, list(members))


def _members(values: IntArray, count: int) -> dict[str, IntArray]:
    """The rows of each of up to `count` parts, by the part's name."""
    edges = np.quantile(values, np.arange(1, count) / count, method="inverted_cdf")
    edges = np.unique(np.minimum(edges, values[values < values.max()].max()))
    place = np.searchsorted(edges, values)
    found = [np.flatnonzero(place == part) for part in np.unique(place)]
    return {_span(int(values[rows].min()), int(values[rows].max())): rows for rows in found}


def _span(low: int, high: int) -> str:
    return f"{low:,} to {high:,} characters" if low < high else f"{low:,} character{'' if low == 1 else 's'}"


def by_name(contest: Contest, names: Sequence[str | None]) -> Parts | None:
    """By the name of each row's group or label; None where there are not two. A row without a name is in no part."""
    members = {name: np.flatnonzero([given == name for given in names]) for name in dict.fromkeys(names) if name}
    if len(members) < 2:
        return None
    weight = {name: contest.lead(rows) * len(rows) for name, rows in members.items()}
    order = sorted(members, key=lambda name: (-np.nan_to_num(weight[name]), name))
    chosen = order if len(order) <= PARTS else _extremes(order, weight)
    return _parts(contest, members, sorted(chosen, key=lambda name: -np.nan_to_num(contest.lead(members[name]))))


def _extremes(order: Sequence[str], weight: Mapping[str, float]) -> list[str]:
    """Of names in falling order of what they add to the whole: as many gains as losses, as far as there are."""
    gains, losses = sum(weight[name] > 0 for name in order), sum(weight[name] < 0 for name in order)
    last = min(losses, PARTS - min(gains, max(PARTS // 2, PARTS - losses)))
    return [*order[: PARTS - last], *order[len(order) - last :]]


def _parts(contest: Contest, members: Mapping[str, IntArray], shown: Sequence[str]) -> Parts:
    leads = [contest.lead(rows) for rows in members.values()]
    return Parts(
        shown=[contest.part(name, members[name]) for name in shown],
        count=len(members),
        ahead=sum(lead > 0 for lead in leads),
        behind=sum(lead < 0 for lead in leads),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def mistakes(lines: Sequence[Mapping[str, Any]], rival: str) -> list[tuple[str, str, int, int]]:
    """(right label, label said instead, how often by tuned, by the rival), what is commonest first."""
    counts = {
        name: Counter(
            (str(line["reference"]), "(no answer)" if line["answers"][name] is None else str(line["answers"][name]))
            for line in lines
            if line["answers"][name] != line["reference"]
        )
        for name in (TUNED, rival)
    }
    tuned, other = counts[TUNED], counts[rival]
    pairs = sorted(tuned | other, key=lambda pair: (-max(tuned[pair], other[pair]), -tuned[pair], pair))
    return [(*pair, tuned[pair], other[pair]) for pair in pairs]
