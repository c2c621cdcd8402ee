"""The prompts that wait for a place in the batch, and what is computed once of their beginnings (prefix_tree).

Rows are handed out branch by branch, so that only the branches of the rows that join now are held; of one branch the longest
come first, and those that join together are of like length.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from pegbox.models.decoding import NOTHING, Known, Row, read
from pegbox.models.prefix_tree import Branch, branches

LEAST = 64  # tokens: about what one more pass of a model costs that is bound by reading its weights
TOGETHER = 4096  # the most tokens, padding with them, that are computed at once when rows join


class Waiting:
    """The rows that wait for a place in the batch, in the order in which they join."""

    def __init__(self, model: PreTrainedModel, rows: Sequence[Row]) -> None:
        self.model, self.rows = model, list(rows)
        self.branch = {rows[place].index: branch for place, branch in branches([row.ids for row in rows], LEAST)}
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
