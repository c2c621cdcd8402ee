"""Attention of many rows that begin with the same tokens, whose keys and values are there once for all of them.

    scores(row)  = [ q K_shared^T | q K_own^T ] / sqrt(D),    out = softmax(scores) [ V_shared ; V_own ]

It is the attention of each row over its whole past: one softmax over both parts. The products with the shared part are
one product for all rows, that reads those keys once and not once a row; and no row holds a copy of them. (Juravsky et al.
2024, arXiv 2402.05099, part the softmax, too, and put it together by its logarithms; scores of single tokens are small
enough to be kept.) Rows of several tokens, when they join, see the two parts put together, a layer at a time. The plain form
is Transformers' sdpa over such joined keys.

It enters a model through the attention interface, with what is shared among the keyword arguments. A sliding window, which
would forget of the shared part another share in each row, and all that changes the scores are refused.

Shapes: B rows of T tokens, n columns of their own, P shared, H heads, Hk key heads of width D, g = H / Hk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from pegbox.kernels.attention import register, unknown

IMPLEMENTATION = "pegbox_shared"


@dataclass(frozen=True)
class Shared:
    """Of each layer, the keys and values [1, Hk, P, D] that all rows begin with."""

    columns: Sequence[tuple[torch.Tensor, torch.Tensor]]


def shared_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    shared: tuple[torch.Tensor, torch.Tensor],
    mask: torch.Tensor | None,
    scale: float | None = None,
) -> torch.Tensor:
    """`query` [B, H, T, D], `key` and `value` [B, Hk, n, D], `mask` bool [B, 1, T, n] -> [B, T, H, D]."""
    if query.shape[2] > 1:
        return joined_attention(query, key, value, shared, mask, scale)
    rows, heads, _, width = query.shape
    kinds, (shared_key, shared_value) = key.shape[1], (part[0].to(query.dtype) for part in shared)
    each = query.view(rows, kinds, -1, width) * (width**-0.5 if scale is None else scale)  # [B, Hk, g, D]
    every = each.transpose(0, 1).reshape(kinds, -1, width)  # [Hk, B g, D]
    both = every @ shared_key.transpose(1, 2), each @ key.transpose(2, 3)
    own = both[1] if mask is None else both[1].masked_fill(~mask, -torch.inf)
    first = both[0].view(kinds, rows, -1, shared_key.shape[1]).transpose(0, 1)  # [B, Hk, g, P]
    shares = torch.cat([first, own], dim=-1).softmax(-1, dtype=torch.promote_types(query.dtype, torch.float32))
    first, own = shares.to(query.dtype).split([first.shape[-1], own.shape[-1]], dim=-1)
    out = (first.transpose(0, 1).reshape(kinds, -1, first.shape[-1]) @ shared_value).view(kinds, rows, -1, width)
    whole: torch.Tensor = out.transpose(0, 1) + own @ value
    return whole.reshape(rows, 1, heads, width)


def joined_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    shared: tuple[torch.Tensor, torch.Tensor],
    mask: torch.Tensor | None,
    scale: float | None = None,
) -> torch.Tensor:
    """The plain form: each row's keys are the shared ones and its own."""
    rows, tokens, columns = len(query), query.shape[2], key.shape[2]
    key, value = (
        torch.cat([first.to(own.dtype).expand(rows, -1, -1, -1), own], dim=2)
        for first, own in zip(shared, (key, value), strict=True)
    )
    if mask is None:
        ones = torch.ones(tokens, columns, dtype=torch.bool, device=query.device)
        mask = ones.tril(columns - tokens).expand(rows, 1, -1, -1)
    seen = torch.cat([mask.new_ones(rows, 1, tokens, key.shape[2] - columns), mask], dim=3)
    groups = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(groups, dim=1) if groups > 1 else part for part in (key, value))
    out: torch.Tensor = scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scale)
    return out.transpose(1, 2)


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    shared: Shared | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The form that Transformers calls; the output is [B, T, H, D]. Raises ValueError for what it does not compute."""
    if shared is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal=is_causal, **kwargs
        )
    odd = unknown(kwargs)
    if odd or (attention_mask is not None and attention_mask.dtype != torch.bool):
        raise ValueError(f"attention with a shared part knows no {', '.join(odd) or 'mask of numbers'}")
    return shared_attention(query, key, value, shared.columns[module.layer_idx], attention_mask, scaling), None


@contextmanager
def attention_that_shares(model: PreTrainedModel) -> Iterator[None]:
    """The model's attention takes what is shared; afterwards it is what it was."""
    register(IMPLEMENTATION, _attention)
    before = model.config._attn_implementation
    model.set_attn_implementation(IMPLEMENTATION)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
