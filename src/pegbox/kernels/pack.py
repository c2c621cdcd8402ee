"""Examples packed into one sequence, in which what several of them begin with stands once.

A pack is a tree laid out depth first: `[all begin so][these two go on so][row 0][row 1][row 2]...`, positions restarted at
each branch. A token sees its own segment (before it, where the model is causal) and the segments that its segment stands
behind, and nothing of another example: the same maths as each example alone.

Shapes: T tokens of the pack, n segments of S tokens, H heads, Hk of the keys, D per head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch


class Run(NamedTuple):
    """`rows` segments of `length` tokens each, one behind the other from `start` on, that stand behind the same."""

    start: int
    rows: int
    length: int

    @property
    def end(self) -> int:
        """The place behind its last token."""
        return self.start + self.rows * self.length


class Shared(NamedTuple):
    """A segment [start, end) that all tokens of [end, until) stand behind."""

    start: int
    end: int
    until: int


@dataclass(frozen=True)
class Pack:
    """Where the segments of a packed sequence lie: `runs` hold every token once, in order; `shared` those of them that
    others stand behind, in order."""

    runs: tuple[Run, ...]
    shared: tuple[Shared, ...] = ()

    @property
    def tokens(self) -> int:
        """T."""
        return self.runs[-1].end

    def before(self, run: Run) -> list[Shared]:
        """The segments that a run stands behind, the first one first."""
        return [part for part in self.shared if part.end <= run.start < part.until]

    def depths(self) -> list[int]:
        """How many tokens each run stands behind."""
        return [sum(part.end - part.start for part in self.before(run)) for run in self.runs]

    @property
    def longest(self) -> int:
        """The tokens of the longest example."""
        return max(run.length + depth for run, depth in zip(self.runs, self.depths(), strict=True))

    def positions(self) -> torch.Tensor:
        """int64 [T]: the place of each token in its own example."""
        return torch.cat(
            [
                torch.arange(depth, depth + run.length).repeat(run.rows)
                for run, depth in zip(self.runs, self.depths(), strict=True)
            ]
        )


def block_mask(pack: Pack, window: int | None = None, *, causal: bool = True) -> torch.Tensor:
    """The plain form: bool [T, T], true where a query of the pack sees a key."""
    segments = [(run.start + n * run.length, run) for run in pack.runs for n in range(run.rows)]
    seen: torch.Tensor = torch.zeros(pack.tokens, pack.tokens, dtype=torch.bool)
    for start, run in segments:
        own = range(start, start + run.length)
        for part in (*pack.before(run), Shared(start, own.stop, own.stop)):
            seen[start : own.stop, part.start : part.end] = True
    place, positions = torch.arange(pack.tokens), pack.positions()
    if causal:
        seen &= place[None] <= place[:, None]
    return seen if window is None else seen & (positions[:, None] - positions[None] < window)


def rows_of(states: torch.Tensor, run: Run) -> torch.Tensor:
    """The view [n, H, S, ...] of a run's tokens in [T, H, ...]."""
    return states[run.start : run.end].view(run.rows, run.length, *states.shape[1:]).transpose(1, 2)


def repeated(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Keys or values [n, Hk, S, D] once for each of the heads that read them [n, H, S, D]."""
    groups = heads // rows.shape[1]
    return rows.repeat_interleave(groups, dim=1) if groups > 1 else rows
