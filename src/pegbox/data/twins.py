"""Near twins among records: what is asked, compared by character 5-grams (`near`).

Left out of the comparison is what says nothing of a row: a system's message, and the longest beginning that many inputs
share (an instruction before each; sought in the first thousand rows, so that rows appended later do not change it). A text of which fewer than LEAST characters are left is compared exactly or not at all:
there one word's difference is one of meaning. Of exact twins only the first is compared.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pegbox import progress
from pegbox.data.near import Sketches
from pegbox.data.records import Record
from pegbox.data.splits import Traits, normal, own_words, traits_of, twin_key

Item = TypeVar("Item", int, str)
LEAST = 24  # characters
MANY = 20_000  # rows from which a bar is worth showing


@dataclass(frozen=True)
class NearTwins:
    """`pairs` int64 [P, 2]: rows that are nearly the same, the earlier first. `cut_short`: rows not compared with all."""

    pairs: NDArray[np.int64]
    cut_short: int


def near_twins(records: Sequence[Record], traits: Traits) -> NearTwins:
    """The near twins among the records, of which `traits` has seen all."""
    opening = traits.opening

    def compared(row: int) -> str:
        return normal(own_words(records[row].content)).removeprefix(opening)

    firsts = np.sort(np.unique(traits.twin, return_index=True)[1]).tolist()
    sketches, looked = Sketches(), array("q")
    with progress.bar("rows compared", len(firsts), shown=len(firsts) >= MANY) as bar:
        for row in firsts:
            if len(text := compared(row)) >= LEAST:
                sketches.see(text)
                looked.append(row)
            bar.advance()
    found = sketches.pairs(lambda number: compared(looked[number]))
    return NearTwins(np.array(looked, np.int64)[found.pairs.reshape(-1, 2)], found.cut_short)


def together(records: Sequence[Record], *, near: bool = True) -> NDArray[np.int64]:
    """int [n]: which records belong together: a group; without one exact twins and, with `near`, what near twins join."""
    keys = [f"group {one.group}" if one.group is not None else twin_key(one.content) for one in records]
    kind = np.unique(keys, return_inverse=True)[1]
    if not near:
        return kind
    traits = traits_of(records, 0)
    pairs = near_twins(records, traits).pairs
    alone = kind[pairs[(traits.group[pairs] == 0).all(axis=1)]]
    first = joined(kind.tolist(), alone.tolist())
    return np.unique([first[one] for one in kind.tolist()], return_inverse=True)[1]


def joined(items: Iterable[Item], pairs: Iterable[Iterable[Item]]) -> dict[Item, Item]:
    """The least of the items that pairs join with each, however many steps away (union by path halving)."""
    above = {item: item for item in items}

    def top(item: Item) -> Item:
        while above[item] != item:
            above[item] = item = above[above[item]]
        return item

    for pair in pairs:
        one, other = sorted(map(top, pair))
        above[other] = one
    return {item: top(item) for item in above}
