"""Which first tokens of prompts are computed once: those of all, and those of groups that share more (a tree).

In sorted order prompts that begin alike stand together, and two neighbours part at one place; so the tree is found in one
pass over those places. A branch is computed by itself where that saves at least `LEAST` tokens:

    saved = (rows of the branch - 1) * (tokens of the branch beyond those of the branch that it grows from)

Every row keeps one token of its own. `Waiting` hands out rows branch by branch, so that only the branches of the rows that
join now are held; of one branch the longest come first, and those that join together are of like length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from transformers import PreTrainedModel

from pegbox.models.decoding import NOTHING, Known, Row, read

LEAST = 64  # tokens: about what one more pass of a model costs that is bound by reading its weights
DEPTH = 8  # the most branches on a path: each holds the keys and values of those before it, too
TOGETHER = 4096  # the most tokens, padding with them, that are computed at once when rows join


@dataclass(eq=False)
class Branch:
    """The first `length` tokens of a group of prompts, of which `ids` is one; it grows from another, or from none."""

    length: int
    ids: Sequence[int]
    parent: Branch | None

    def path(self) -> Iterator[Branch]:
        """The branch and those that it grows from."""
        yield self
        if self.parent is not None:
            yield from self.parent.path()


def branches(prompts: Sequence[Sequence[int]]) -> list[tuple[int, Branch | None]]:
    """The indices of the prompts, those of a branch together, and the longest branch of each."""
    order = sorted(range(len(prompts)), key=lambda index: tuple(prompts[index]))
    of: list[Branch | None] = [None] * len(order)
    for begin, end, length in _groups([_alike(prompts[a], prompts[b]) for a, b in pairwise(order)]):
        parent = of[begin]
        if parent and len(list(parent.path())) == DEPTH:
            continue
        if (end - begin - 1) * (length - (parent.length if parent else 0)) >= LEAST:
            of[begin:end] = [Branch(length, prompts[order[begin]], parent)] * (end - begin)
    return list(zip(order, of, strict=True))


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many first tokens two prompts have in common, leaving each one of its own."""
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


class Waiting:
    """The rows that wait for a place in the batch, in the order in which they join."""

    def __init__(self, model: PreTrainedModel, rows: Sequence[Row]) -> None:
        self.model, self.rows = model, list(rows)
        self.branch = {rows[place].index: branch for place, branch in branches([tuple(row.ids) for row in rows])}
        self.turn: dict[Branch | None, int] = {}
        for branch in self.branch.values():
            self.turn.setdefault(branch, len(self.turn))
        self.known: dict[Branch, Known] = {}
        self._sort()

    def __len__(self) -> int:
        return len(self.rows)

    def common(self) -> Known:
        """What is known of the tokens that all rows begin with."""
        roots = {list(branch.path())[-1] if branch else None for branch in self.branch.values()}
        return self._read(roots.pop()) if len(roots) == 1 else NOTHING

    def next(self, most: int) -> list[Row]:
        """The next rows, at most so many, with what is known of them; they still wait."""
        group: list[Row] = []
        given = 0
        for row in reversed(self.rows[-most:]):
            given = max(given, self._own(row))
            if group and given * (len(group) + 1) > TOGETHER:
                break
            group.append(row)
        held = {branch for row in group if (found := self.branch[row.index]) for branch in found.path()}
        self.known = {branch: known for branch, known in self.known.items() if branch in held}
        for row in group:
            row.known = self._read(self.branch[row.index])
        return group

    def joined(self, rows: Sequence[Row]) -> None:
        """The rows that came next do not wait any more."""
        del self.rows[len(self.rows) - len(rows) :]
        for row in rows:
            row.known = NOTHING

    def back(self, rows: Sequence[Row]) -> None:
        """Rows wait again, with the tokens that they have."""
        self.rows.extend(rows)
        self._sort()

    def _sort(self) -> None:
        """The next row last."""
        self.rows.sort(key=lambda row: (-self.turn[self.branch[row.index]], self._own(row)))

    def _own(self, row: Row) -> int:
        branch = self.branch[row.index]
        return len(row.ids) - (branch.length if branch else 0)

    def _read(self, branch: Branch | None) -> Known:
        if branch is None:
            return NOTHING
        if branch not in self.known:
            self.known[branch] = read(self.model, branch.ids[: branch.length], self._read(branch.parent))
        return self.known[branch]
