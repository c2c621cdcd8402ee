"""Attention over examples packed into one sequence, with a prefix that all of them share computed once.

A pack is `[prefix][suffix 0][suffix 1]...` with restarted positions. A token of suffix i sees the prefix and the
tokens of its own suffix before it, and nothing of another example: the same maths as attention over each example
alone. The plain form is a dense block mask over the whole pack (`block_mask`), which costs T^2; the fast form lays the
suffixes out as rows [n, S] for this one operation, joins the prefix's keys to each row, and costs n S (P + S).

It enters a Transformers model through the attention interface (no patching): `attn_implementation="pegbox"`. Without a
pack among the keyword arguments it is Transformers' own sdpa. With one, it refuses what it does not compute (soft caps,
sinks, biases): a model that passes anything unknown to its attention gets no silent approximation.

Shapes: T tokens of the pack, P of the prefix, n suffixes of at most S tokens, H heads, D per head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

IMPLEMENTATION = "pegbox"
# what models hand on to every attention and what does not change its maths
INERT = {"position_ids", "use_cache", "output_attentions", "output_hidden_states", "output_router_logits"}


@dataclass(frozen=True)
class Pack:
    """Where the examples of a packed sequence lie.

    `prefix`: P; `lengths` int64 [n] of the suffixes; `rows` int64 [n, S]: the place in the pack of each token of each
    suffix (padding points at a token of the same suffix); `slots` int64 [T - P]: the place in `rows` of each token.
    """

    prefix: int
    lengths: torch.Tensor
    rows: torch.Tensor
    slots: torch.Tensor

    @classmethod
    def of(cls, prefix: int, lengths: list[int], device: torch.device | None = None) -> Pack:
        """The layout of suffixes of these lengths behind a prefix."""
        sizes = torch.tensor(lengths)
        starts = prefix + sizes.cumsum(0) - sizes
        columns = torch.arange(int(sizes.max()))
        real = columns[None] < sizes[:, None]
        rows = starts[:, None] + torch.minimum(columns[None], sizes[:, None] - 1)
        return cls(prefix, sizes.to(device), rows.to(device), real.flatten().nonzero()[:, 0].to(device))

    def to(self, device: torch.device) -> Pack:
        """The layout on a device."""
        return Pack(self.prefix, self.lengths.to(device), self.rows.to(device), self.slots.to(device))

    def visible(self, window: int | None) -> torch.Tensor:
        """bool [n, 1, S, P + S]: which keys (prefix, then own row) each query of a row sees."""
        n, size = self.rows.shape
        query = self.prefix + torch.arange(size, device=self.rows.device)
        key = torch.arange(self.prefix + size, device=self.rows.device)
        seen = _causal(query, key, window)
        return seen[None, None].expand(n, 1, size, self.prefix + size)


def _causal(query: torch.Tensor, key: torch.Tensor, window: int | None) -> torch.Tensor:
    """bool [Q, K]: key positions that are not later than the query's, and within the sliding window if there is one."""
    seen = key[None] <= query[:, None]
    return seen if window is None else seen & (query[:, None] - key[None] < window)


def block_mask(pack: Pack) -> torch.Tensor:
    """The plain form: bool [1, 1, T, T], true where a query of the pack sees a key."""
    lengths = [pack.prefix, *pack.lengths.tolist()]
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    order = torch.arange(len(owner))
    same = (owner[None] == owner[:, None]) | (owner[None] == 0)
    return (same & (order[None] <= order[:, None]))[None, None].to(pack.rows.device)


def packed_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    pack: Pack,
    *,
    scale: float | None = None,
    window: int | None = None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Attention of a pack. `query` [1, H, T, D], `key` and `value` [1, Hk, T, D] -> [1, T, H, D].

    Without a prefix and a window, padding keys come after every real query, so the causal form needs no mask.
    """
    groups = query.shape[1] // key.shape[1]
    key, value = (t.repeat_interleave(groups, dim=1) if groups > 1 else t for t in (key, value))
    p, n = pack.prefix, len(pack.rows)
    q, k, v = (t[0].index_select(1, pack.rows.flatten()) for t in (query, key, value))
    q, k, v = (t.view(len(t), *pack.rows.shape, t.shape[-1]).transpose(0, 1) for t in (q, k, v))  # [n, H, S, D]
    if p == 0 and window is None:
        out = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, dropout_p=dropout)
    else:
        k = torch.cat([key[:, :, :p].expand(n, -1, -1, -1), k], dim=2)
        v = torch.cat([value[:, :, :p].expand(n, -1, -1, -1), v], dim=2)
        out = scaled_dot_product_attention(q, k, v, attn_mask=pack.visible(window), scale=scale, dropout_p=dropout)
    suffixes = out.transpose(1, 2).flatten(0, 1).index_select(0, pack.slots)  # [T - P, H, D]
    if p == 0:
        return suffixes[None]
    places = torch.arange(p, device=query.device)
    seen = _causal(places, places, window)
    q, k, v = (t[:, :, :p] for t in (query, key, value))
    shared = scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale, dropout_p=dropout)
    return torch.cat([shared.transpose(1, 2), suffixes[None]], dim=1)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    pack: Pack | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The form that Transformers calls; the output is [B, T, H, D]. Raises ValueError for a pack it cannot compute."""
    if pack is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal=is_causal, **kwargs
        )
    odd = sorted(name for name, given in kwargs.items() if given is not None and name not in INERT)
    if not (getattr(module, "is_causal", True) if is_causal is None else is_causal):
        odd.append("is_causal=False")
    if odd:
        raise ValueError(f"packed attention knows no {', '.join(odd)}")
    return packed_attention(query, key, value, pack, scale=scaling, window=sliding_window, dropout=dropout), None


def register() -> None:
    """Make `attn_implementation="pegbox"` known to Transformers; doing it again changes nothing."""
    AttentionInterface.register(IMPLEMENTATION, _attention)
    AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
