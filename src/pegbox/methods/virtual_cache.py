"""What a causal model sees of virtual tokens: keys and values before all others, in a view of its cache.

The caller's cache never holds them. A layer's attention is given them together with what that cache holds:

    [virtual n][the caller's cache][new tokens]

As in Transformers' dynamic cache they are joined anew for every token.

Shapes: B rows, T new tokens, L tokens that the caller's mask counts, n virtual tokens, Hk key heads of width D.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

KeysAndValues = Sequence[tuple[torch.Tensor, torch.Tensor]]
SAME = {torch.float64: 1e-9, torch.float32: 1e-4}  # two orders of summation, as a share of the largest value


class ViewedLayer(DynamicLayer):
    """A layer's cache as its attention sees it: virtual keys and values [1, Hk, n, D] before those that the caller keeps.

    `order` int64 [B, n + L] puts the columns of each row in another order, where windows count columns.
    """

    def __init__(
        self, own: tuple[torch.Tensor, torch.Tensor], index: int, kept: Cache | None, order: torch.Tensor | None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.own, self.index, self.kept, self.order = own, index, kept, order
        self.is_sliding = kept is not None and index < len(kept.layers) and kept.is_sliding[index]

    def get_seq_length(self) -> int:
        """How many tokens came before."""
        return self.own[0].shape[2] + (0 if self.kept is None else self.kept.get_seq_length(self.index))

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many columns attention will see, and how many before them are forgotten; virtual tokens are the first to be."""
        count = self.own[0].shape[2]
        if self.kept is None:
            return count + query_length, 0
        length, forgotten = self.kept.get_mask_sizes(query_length, self.index)
        return (length, count + forgotten) if forgotten else (count + length, 0)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Let the caller's cache keep new columns [B, Hk, T, D], and return all that attention sees."""
        _, forgotten = self.get_mask_sizes(key_states.shape[2])
        if self.kept is not None:
            key_states, value_states = self.kept.update(key_states, value_states, self.index, *args, **kwargs)
        if forgotten:
            return key_states, value_states
        return self._joined(self.own[0], key_states), self._joined(self.own[1], value_states)

    def _joined(self, own: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([own.to(real.dtype).expand(len(real), -1, -1, -1), real], dim=2)
        if self.order is None:
            return joined
        return joined.gather(2, self.order[:, None, :, None].expand(-1, joined.shape[1], -1, joined.shape[3]))


class View(Cache):
    """The cache that a forward pass is given; `kept` is the caller's own, of real tokens only."""

    def __init__(self, own: KeysAndValues, kept: Cache | None, order: torch.Tensor | None = None) -> None:
        super().__init__(layers=[ViewedLayer(pair, index, kept, order) for index, pair in enumerate(own)])
        self.kept = kept


def read(trunk: Any, **rows: torch.Tensor) -> KeysAndValues:
    """Keys and values of each layer [B, Hk, T, D] that a model without its head has of rows. Past the hooks on it."""
    cache = DynamicCache()  # without the config, which would make sliding layers forget
    trunk.forward(**rows, past_key_values=cache, use_cache=True)
    layers: list[Any] = cache.layers
    return [(layer.keys, layer.values) for layer in layers]


@torch.no_grad()
def reads_on(trunk: Any) -> bool:
    """True for a model that gives tokens behind cached ones the states that it gives them behind the tokens themselves.

    Found by trying, with two tokens in the place of virtual ones. An encoder looks ahead, too, and does not.
    """
    ids = four_tokens(trunk)
    with contextlib.suppress(TypeError, ValueError, RuntimeError, AttributeError, IndexError):
        view, mask = View(read(trunk, input_ids=ids[:, :2]), None), torch.ones_like(ids)
        behind = trunk.forward(input_ids=ids[:, 2:], attention_mask=mask, past_key_values=view).last_hidden_state
        return _same(behind, trunk.forward(input_ids=ids).last_hidden_state[:, 2:])
    return False


@torch.no_grad()
def looks_ahead(trunk: Any) -> bool:
    """True for an encoder: what it makes of a token hangs on those that follow."""
    ids = four_tokens(trunk)
    alone, whole = (trunk.forward(input_ids=given).last_hidden_state[:, :2] for given in (ids[:, :2], ids))
    return not _same(alone, whole)


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """True where two tensors of one shape differ by rounding at most."""
    return bool((one - other).abs().max() <= SAME.get(one.dtype, 3e-2) * other.abs().max())


def four_tokens(module: Any) -> torch.Tensor:
    """int64 [1, 4]: some tokens to try a model with."""
    return torch.arange(1, 5, device=module.device)[None] % int(module.config.get_text_config().vocab_size)
