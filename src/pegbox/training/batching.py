"""Which examples an update has, and how it is cut into micro-batches.

The order of an epoch is a permutation drawn from (seed, epoch), so the examples of any update follow from its number
alone: resuming seeks and never replays. The last update of an epoch may be short; every example is used exactly once an
epoch. How an update is cut never changes the result: losses are sums, divided by the weight of the whole update.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch

from pegbox.data.records import Example
from pegbox.recipe import Train


def updates_per_epoch(examples: int, batch_size: int) -> int:
    """The number of updates in an epoch, the short one included."""
    return math.ceil(examples / batch_size)


def total_updates(examples: int, settings: Train) -> int:
    """The number of updates of a run: `max_steps`, or whole and broken epochs."""
    if settings.max_steps is not None:
        return settings.max_steps
    return max(1, round(settings.num_train_epochs * updates_per_epoch(examples, settings.batch_size)))


def rows_of_update(step: int, examples: int, batch_size: int, seed: int) -> list[int]:
    """The indices of the examples of update `step` (0-based)."""
    epoch, index = divmod(step, updates_per_epoch(examples, batch_size))
    chosen: list[int] = _order(examples, seed, epoch)[index * batch_size : (index + 1) * batch_size].tolist()
    return chosen


@lru_cache(maxsize=2)  # drawn once an epoch, not once an update
def _order(examples: int, seed: int, epoch: int) -> torch.Tensor:
    """int64 [examples]"""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(examples, generator=generator)


def tokens_of(examples: Sequence[Example], *, packed: bool, shared: int = 0) -> int:
    """The tokens that a micro-batch of these computes: padded, each row is as long as the longest; packed, each is itself,
    and `shared` tokens at the start of all are there once."""
    if packed:
        return shared + sum(len(example) - shared for example in examples)
    return len(examples) * max(example.room for example in examples)


def cut(
    examples: Sequence[Example], *, tokens: int, rows: int, packed: bool = False, shared: int = 0
) -> list[list[Example]]:
    """Sort an update's examples by length and cut them into micro-batches.

    None has more than `rows` examples, nor more than `tokens` tokens (as `tokens_of` counts) unless one row alone has.
    """
    parts: list[list[Example]] = []
    room = 0  # for tokens in the last part
    for example in sorted(examples, key=lambda example: example.room, reverse=True):
        needed = len(example) - shared if packed else parts[-1][0].room if parts else 0
        if parts and len(parts[-1]) < rows and needed <= room:
            parts[-1].append(example)
            room -= needed
        else:
            parts.append([example])
            room = tokens - tokens_of([example], packed=packed, shared=shared)
    return parts
