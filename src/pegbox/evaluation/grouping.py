"""The groups of test rows that have numbers, and how each is resampled.

- A group of fewer than 30 rows has no numbers, nor has one beyond the 50 largest.
- What is resampled are the units of the verdict within each group, or its rows where every group is a single unit: the
  intervals are then about more rows of these groups, not about other groups.
- Groups that share no units are drawn independently of one another. Where units have rows in several groups (the same
  sentence said of a man and of a woman), one draw of units serves all groups.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pegbox.evaluation.bootstrap import Distribution, Units
from pegbox.evaluation.verdict import Interval, intervals
from pegbox.metrics import FloatArray, Metric

MINIMUM_ROWS = 30
MOST_GROUPS = 50

Lines = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Group:
    """A group that has numbers.

    `rows` int [n]: their places among the lines; `units`: of these rows; `drawn`, `seed`: what a resample draws from, the
    same units, or those of all groups (of which some have no row here).
    """

    name: str
    rows: NDArray[np.intp]
    units: Units
    drawn: Units
    seed: int


def groups_of(lines: Lines, seed: int) -> tuple[list[Group], str]:
    """The groups that have numbers, the largest first, equals by name; and what is resampled: "rows" or "units"."""
    names, units = np.array([line["group"] for line in lines]), np.array([line["unit"] for line in lines])
    sizes = zip(*(found.tolist() for found in np.unique(names, return_counts=True)), strict=True)
    order = sorted((-size, name) for name, size in sizes if size >= MINIMUM_ROWS)
    members = {name: np.flatnonzero(names == name) for _, name in order[:MOST_GROUPS]}
    if single := all(len(np.unique(units[rows])) == 1 for rows in members.values()):
        units = np.arange(len(lines))
    own = {name: Units.of(units[rows]) for name, rows in members.items()}
    every = np.unique(np.concatenate([units[rows] for rows in members.values()])) if members else units
    if sum(found.count for found in own.values()) > len(every):
        groups = [Group(name, rows, own[name], _among(every, units[rows]), seed) for name, rows in members.items()]
    else:
        groups = [Group(name, rows, own[name], own[name], _seed_of(name, seed)) for name, rows in members.items()]
    return groups, "rows" if single else "units"


def _among(every: NDArray[np.int64], units: NDArray[np.int64]) -> Units:
    """The units of some rows among those of all."""
    index = np.searchsorted(every, units)
    return Units(index, np.bincount(index, minlength=len(every)))


def _seed_of(name: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big")


def fewest(groups: Sequence[Group]) -> Units:
    """The units of the group that has the fewest, by their effective number."""
    return min((group.units for group in groups), key=lambda units: units.effective)


def cells(
    metric: Metric, statistics: Mapping[str, FloatArray], groups: Sequence[Group], resamples: int
) -> tuple[list[dict[str, Interval]], list[dict[str, FloatArray]]]:
    """In each group the value of each system with its interval, and its resampled values [B], the same for all systems."""
    values, draws = [], []
    for group in groups:
        rows = {system: found[group.rows] for system, found in statistics.items()}
        found, drawn = intervals(metric, rows, group.drawn, group.seed, resamples)
        ends = {system: Distribution(resampled, group.units).interval() for system, resampled in drawn.items()}
        values.append({system: Interval(one.value, *ends[system]) for system, one in found.items()})
        draws.append(drawn)
    return values, draws
