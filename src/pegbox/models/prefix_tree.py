"""What several rows begin with, found as a tree: system prompts, few-shot examples, a prompt with several answers.

In sorted order rows that begin alike stand together, and two neighbours part at one place; so the tree is found in one
pass over those places. A branch is taken where that saves enough tokens, for each costs something by itself:

    saved = (rows of the branch - 1) * (tokens of the branch beyond those of the branch that it grows from)

Every row keeps a token of its own. In a pack the tree is laid out depth first, so that what stands behind a shared segment
is one slice (kernels.pack):

    rows  a b c d | a b c e | a b f     ->     [a b][f][c][d][e], or, where c is not worth it, [a b][f][c d][c e]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise

from pegbox.kernels.pack import Pack, Run, Shared

LEAST = 8  # tokens that a branch of a pack saves: it costs some calls in every layer
DEPTH = 8  # the most branches that grow from each other: where keys and values are held, each holds those before it

Ids = Sequence[int]


@dataclass(eq=False)
class Branch:
    """The first `length` tokens of a group of rows, of which `ids` is one; it grows from another, or from none."""

    length: int
    ids: Ids
    parent: Branch | None

    def path(self) -> Iterator[Branch]:
        """The branch and those that it grows from."""
        yield self
        if self.parent is not None:
            yield from self.parent.path()


def branches(rows: Sequence[Ids], least: int) -> list[tuple[int, Branch | None]]:
    """The indices of the rows, those of a branch together, and the longest branch of each; each saves `least` tokens or more."""
    order = sorted(range(len(rows)), key=lambda index: tuple(rows[index]))
    of: list[Branch | None] = [None] * len(order)
    for begin, end, length in _groups([_alike(rows[a], rows[b]) for a, b in pairwise(order)]):
        parent = of[begin]
        if parent and len(list(parent.path())) == DEPTH:
            continue
        if (end - begin - 1) * (length - (parent.length if parent else 0)) >= least:
            of[begin:end] = [Branch(length, rows[order[begin]], parent)] * (end - begin)
    return list(zip(order, of, strict=True))


def _alike(one: Ids, other: Ids) -> int:
    """How many first tokens two rows have in common, leaving each one of its own."""
    limit = min(len(one), len(other)) - 1
    return next((place for place in range(limit) if one[place] != other[place]), limit)


def _groups(alike: Sequence[int]) -> list[tuple[int, int, int]]:
    """Of sorted rows all groups [begin, end) that have tokens in common, and how many: each before those within it.

    `alike[i]`: what rows i and i + 1 have in common.
    """
    found, open_groups = list[tuple[int, int, int]](), list[tuple[int, int]]()  # (what is common, where it begins)
    for place, common in enumerate([*alike, 0]):
        begin = place
        while open_groups and open_groups[-1][0] > common:
            length, begin = open_groups.pop()
            found.append((begin, place + 1, length))
        if common and (not open_groups or open_groups[-1][0] < common):
            open_groups.append((common, begin))
    return sorted(found, key=lambda group: (group[0], -group[1]))


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
    layout, under = Layout([[] for _ in rows]), dict[Branch, list[int]]()
    own = dict[Branch | None, list[int]]()  # the rows that end behind a branch and no longer one
    for row, branch in branches(rows, LEAST) if share else ((row, None) for row in range(len(rows))):
        own.setdefault(branch, []).append(row)
        for each in branch.path() if branch else ():
            under.setdefault(each, []).append(row)

    def add(branch: Branch | None, depth: int) -> None:
        _add_ends(layout, rows, own.get(branch, []), depth)
        for child in [each for each in under if each.parent is branch]:
            start, place = layout.add(child.ids[depth : child.length], under[child]), len(layout.shared)
            layout.runs.append(Run(start, 1, child.length - depth))
            add(child, child.length)
            layout.shared.insert(place, Shared(start, start + child.length - depth, len(layout.ids)))

    add(None, 0)
    return layout


def _add_ends(layout: Layout, rows: Sequence[Ids], chosen: Sequence[int], depth: int) -> None:
    """Add the last segments of rows, those of one length as one run."""
    for length, group in groupby(sorted(chosen, key=lambda row: len(rows[row])), key=lambda row: len(rows[row])):
        starts = [layout.add(rows[row][depth:], [row]) for row in group]
        layout.runs.append(Run(starts[0], len(starts), length - depth))


def shared_prefix(rows: Sequence[Ids]) -> int:
    """How many first tokens all rows have in common, leaving each row at least one of its own; 0 for a single row."""
    if len(rows) < 2:
        return 0
    ordered = min(map(tuple, rows)), max(map(tuple, rows))  # of sorted rows the first and the last differ earliest
    return min(_alike(*ordered), min(map(len, rows)) - 1)
