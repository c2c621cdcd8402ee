"""How rows lie in one sequence so that what several of them begin with stands there once.

The rows form a tree: system prompts, few-shot examples, a prompt with several answers. It is laid out depth first, so that
what stands behind a shared segment is one slice (kernels.attention). A branch is shared where that saves `LEAST` tokens,
for each costs some calls in every layer; every row keeps a last segment of its own.

    rows  a b c d | a b c e | a b f     ->     [a b][f][c][d][e], or, where c is not worth it, [a b][f][c d][c e]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from pegbox.kernels.attention import Pack, Run, Shared

LEAST = 8

Ids = Sequence[int]


@dataclass
class Layout:
    """A pack that is being filled: its `ids` [T], and of each row the places of its tokens."""

    places: list[list[int]]
    ids: list[int] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    shared: list[Shared] = field(default_factory=list)

    @property
    def pack(self) -> Pack:
        """The layout as attention takes it."""
        return Pack(tuple(self.runs), tuple(self.shared))

    def add(self, ids: Ids, rows: Sequence[int]) -> int:
        """Put a segment of these rows at the end; the place where it begins."""
        start = len(self.ids)
        self.ids += ids
        for row in rows:
            self.places[row] += range(start, len(self.ids))
        return start


def lay_out(rows: Sequence[Ids], *, share: bool) -> Layout:
    """The rows in one sequence; none of them is empty. Without `share` each stands alone."""
    layout = Layout([[] for _ in rows])
    add = _add_branches if share else _add_ends
    add(layout, rows, list(range(len(rows))), 0)
    return layout


def _add_branches(layout: Layout, rows: Sequence[Ids], chosen: list[int], depth: int) -> None:
    """Add what the chosen rows have from `depth` on: first those that share nothing more, then branch by branch."""
    branches = list(_branches(rows, chosen, depth))
    _add_ends(layout, rows, [row for members, _ in branches if len(members) == 1 for row in members], depth)
    for members, end in branches:
        if len(members) > 1:
            start, place = layout.add(rows[members[0]][depth:end], members), len(layout.shared)
            layout.runs.append(Run(start, 1, end - depth))
            _add_branches(layout, rows, members, end)
            layout.shared.insert(place, Shared(start, start + end - depth, len(layout.ids)))


def _branches(rows: Sequence[Ids], chosen: list[int], depth: int) -> Iterator[tuple[list[int], int]]:
    """The largest groups of rows whose beginning, up to a token, is worth sharing; the other rows one by one."""
    end = shared_prefix([rows[row] for row in chosen])
    if len(chosen) == 1 or (len(chosen) - 1) * (end - depth) >= LEAST:
        yield chosen, end
        return
    over = [row for row in chosen if len(rows[row]) == end + 1]  # they have no more that could be shared
    yield from (([row], end) for row in over)
    going_on = sorted((row for row in chosen if len(rows[row]) > end + 1), key=lambda row: rows[row][end])
    for _, group in groupby(going_on, key=lambda row: rows[row][end]):
        yield from _branches(rows, list(group), depth)


def _add_ends(layout: Layout, rows: Sequence[Ids], chosen: list[int], depth: int) -> None:
    """Add the last segments of rows, those of one length as one run."""
    for length, group in groupby(sorted(chosen, key=lambda row: len(rows[row])), key=lambda row: len(rows[row])):
        starts = [layout.add(rows[row][depth:], [row]) for row in group]
        layout.runs.append(Run(starts[0], len(starts), length - depth))


def shared_prefix(rows: Sequence[Ids]) -> int:
    """How many first tokens all rows have in common, leaving each row at least one of its own; 0 for a single row."""
    if len(rows) < 2:
        return 0
    low, high = min(map(tuple, rows)), max(map(tuple, rows))  # of sorted rows the first and the last differ earliest
    limit = min(len(row) for row in rows) - 1
    for index in range(limit):
        if low[index] != high[index]:
            return index
    return limit
