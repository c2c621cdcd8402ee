"""A key-value cache of slots: rows of a batch leave it and others join while the rest go on.

Each layer keeps its keys and values in buffers [slots, Hk, capacity, D]. All rows end in the same column; a row of t
tokens fills the t columns before it, and what lies further left is never seen (it is masked, and no more than numbers
that are finite). So the distance of two columns is the distance of two tokens, in whatever order rows came.

    a token is written     into the next column of all rows, in place
    rows join              in free slots, their columns written next to where the others end
    rows leave             the last rows move into their slots: no other is copied
    columns that no row    are left behind: what attention sees begins at the longest row, and buffers are made anew,
    uses any more          without them, when their last column is full

Transformers' dynamic layer joins old and new keys anew for every token and copies all rows when one leaves. What the
model is given is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

ROOM = 64  # columns behind the last one when buffers are made


@dataclass
class Place:
    """Where the model works now: it sees the columns `start` to `end` of these rows, and writes behind them."""

    rows: slice
    start: int
    end: int


class SlotLayer(DynamicLayer):
    """One layer; what is where, the cache knows."""

    def __init__(self, cache: SlotCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.cache = cache
        self.buffers: list[torch.Tensor] = []
        self.is_initialized = True  # keys and values are no empty tensors that grow

    def make(self, like: Sequence[torch.Tensor]) -> None:
        """Buffers of zeros for keys and values like these [B, Hk, T, D]."""
        slots, capacity = self.cache.slots, self.cache.capacity
        self.buffers = [some.new_zeros(slots, some.shape[1], capacity, some.shape[3]) for some in like]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write columns [B, Hk, n, D] and return all that the model sees now. The same place is written again if asked."""
        if not self.buffers:
            self.make((key_states, value_states))
        place, end = self.cache.place, self.cache.place.end + key_states.shape[-2]
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[place.rows, :, place.end : end] = new
        self.keys, self.values = (buffer[place.rows, :, place.start : end] for buffer in self.buffers)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """How many columns the model sees before those that it writes."""
        return self.cache.place.end - self.cache.place.start

    def move(self, rows: int, start: int, end: int, to: int) -> None:
        """Make the buffers anew and put the columns of the first rows where the last of them ends at `to`."""
        before = self.buffers
        self.make(before)
        for old, new in zip(before, self.buffers, strict=True):
            new[:rows, :, to - (end - start) : to] = old[:rows, :, start:end]


class SlotCache(Cache):
    """The cache of all layers. Between two passes of the model `place` says where it goes on."""

    layers: list[Any]

    def __init__(self, slots: int) -> None:
        super().__init__(layer_class_to_replicate=partial(SlotLayer, self))  # type: ignore[arg-type]
        self.slots, self.capacity, self.place = slots, 0, Place(slice(0, 0), 0, 0)

    def layer(self, index: int) -> SlotLayer:
        """A layer, added where it is not there yet."""
        while len(self.layers) <= index:
            self.layers.append(SlotLayer(self))
        found: SlotLayer = self.layers[index]
        return found

    def move(self, rows: int, start: int, end: int, *, to: int) -> None:
        """Buffers anew, with room behind column `to`, where the first rows end from now on."""
        self.capacity = to + ROOM
        for layer in self.layers:
            layer.move(rows, start, end, to)

    def clear(self, rows: slice, end: int) -> None:
        """Zeros in the columns before `end`: nothing of the rows that were there before."""
        for layer in self.layers:
            for buffer in layer.buffers:
                buffer[rows, :, :end] = 0

    def fill(self, row: int, end: int, columns: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Put known keys and values [1, Hk, n, D] of each layer before column `end` of a row."""
        for index, known in enumerate(columns):
            layer = self.layer(index)
            if not layer.buffers:
                layer.make(known)
            for buffer, some in zip(layer.buffers, known, strict=True):
                buffer[row, :, end - some.shape[2] : end] = some[0]

    def put(self, rows: Sequence[int], into: Sequence[int], start: int, end: int) -> None:
        """Copy the columns of some rows into other slots."""
        for layer in self.layers:
            for buffer in layer.buffers:
                seen = buffer[:, :, start:end]
                seen[list(into)] = seen[list(rows)]

    def columns(self, rows: slice, start: int, end: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The keys and values [rows, Hk, end - start, D] in each layer; they are views."""
        return [tuple(buffer[rows, :, start:end] for buffer in layer.buffers) for layer in self.layers]
