"""A key-value cache that grows in place while an answer is generated.

Transformers' dynamic layer joins old and new keys anew for every token, so each token copies the whole cache (half of
the time of decoding 64 rows on two CPU cores; docs/log.md). Here the keys lie in a buffer with room behind them; a
token is written into the room, and the buffer is only copied when it is full. What the model sees is the same.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

ROOM = 64  # columns added when a buffer is full


class GrowingLayer(DynamicLayer):
    """One layer: `keys` and `values` [B, Hk, T, D] are the filled part of their buffers [B, Hk, T + room, D]."""

    buffers: tuple[torch.Tensor, torch.Tensor]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add columns [B, Hk, n, D] and return all that there are."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.buffers = (key_states[:, :, :0], value_states[:, :, :0])
        filled = self.get_seq_length()
        keys, values = self.buffers
        self.buffers = (_with_room(keys, filled, key_states), _with_room(values, filled, value_states))
        return self._show(filled + key_states.shape[-2])

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Go on with these rows only."""
        filled = self.get_seq_length()
        self.buffers = (self.buffers[0][indices], self.buffers[1][indices])
        self._show(filled)

    def _show(self, filled: int) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = self.buffers
        self.keys, self.values = shown = (keys[:, :, :filled], values[:, :, :filled])
        return shown


def _with_room(buffer: torch.Tensor, filled: int, new: torch.Tensor) -> torch.Tensor:
    """The buffer, made larger where it must be, with `new` written behind its `filled` columns."""
    end = filled + new.shape[-2]
    if end > buffer.shape[-2]:
        larger = new.new_empty(*new.shape[:2], end + ROOM, new.shape[-1])
        larger[:, :, :filled] = buffer[:, :, :filled]
        buffer = larger
    buffer[:, :, filled:end] = new
    return buffer


def growing_cache() -> Cache:
    """An empty cache for any model whose layers attend to all that came before."""
    return Cache(layer_class_to_replicate=GrowingLayer)
