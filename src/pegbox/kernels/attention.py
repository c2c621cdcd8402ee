"""Attention over examples packed into one sequence (`pack`), and how a Transformers model comes to compute it.

Four forms compute the same:

- `pack.block_mask`, dense: bool [T, T] under plain attention, which costs T^2. What the others are tested against.
- `_joined`: each run of segments as rows [n, S] of its own with the keys before it, by torch's attention and autograd. Any device.
- `noisy_attention`: the same runs under dropout on a CPU, forward and backward by hand.
- `flash.merged_attention`: no mask, no padding, no key copied. Where the device can, and nothing else is asked.

It enters a Transformers model through the attention interface (no patching): `attn_implementation="pegbox"`. Without a
pack among the keyword arguments it is Transformers' own sdpa. With one, it refuses what it does not compute (soft caps,
sinks, biases): a model that passes anything unknown to its attention gets no silent approximation.

Shapes: T tokens of the pack, n segments of S tokens, H heads, Hk of the keys, D per head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from pegbox.kernels import noise
from pegbox.kernels.flash import merged_attention, merges
from pegbox.kernels.noisy_attention import noisy_attention
from pegbox.kernels.pack import Pack, Run, Shared, repeated, rows_of

IMPLEMENTATION = "pegbox"
# what models hand on to every attention and what does not change its maths
INERT = {"position_ids", "use_cache", "output_attentions", "output_hidden_states", "output_router_logits"}


def packed_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    pack: Pack,
    *,
    causal: bool = True,
    scale: float | None = None,
    window: int | None = None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Attention of a pack. `query` [1, H, T, D], `key` and `value` [1, Hk, T, D] -> [1, T, H, D].

    `window`: how many positions back a token sees, itself counted. Only causal packs have shared segments.
    """
    assert causal or not (pack.shared or window)
    kind = query.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype
    # as models lay them out: [T, H, D]
    q, k, v = (states[0].transpose(0, 1).to(dtype) for states in (query, key, value))
    window = window if window is not None and window < pack.longest else None
    if merges(q) and window is None and dropout == 0:
        return merged_attention(q, k, v, pack, causal, scale)[None]
    if noise.applies(q, dropout) and window is None and not pack.shared:
        return noisy_attention(q, k, v, pack, causal, scale, dropout)[None]
    return _joined(q, k, v, pack, causal, scale, window, dropout)[None]


def _joined(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    pack: Pack,
    causal: bool,
    scale: float | None,
    window: int | None,
    dropout: float,
) -> torch.Tensor:
    """The form for any device [T, H, D]: the keys before a run are joined to each of its rows."""
    out = []
    for run in pack.runs:
        before = pack.before(run)
        keys, values = (repeated(_behind(states, run, before), q.shape[1]) for states in (k, v))
        seen = _causal(run.length, keys.shape[2], window, q.device) if causal and (before or window) else None
        rows = scaled_dot_product_attention(
            rows_of(q, run),
            keys,
            values,
            attn_mask=seen,
            is_causal=causal and seen is None,
            scale=scale,
            dropout_p=dropout,
        )
        out.append(rows.transpose(1, 2).flatten(0, 1))
    return torch.cat(out)


def _behind(states: torch.Tensor, run: Run, before: list[Shared]) -> torch.Tensor:
    """A run's keys or values [n, Hk, P + S, D], those of the segments before it first."""
    shared = [states[part.start : part.end].transpose(0, 1).expand(run.rows, -1, -1, -1) for part in before]
    return torch.cat([*shared, rows_of(states, run)], dim=2)


def _causal(queries: int, keys: int, window: int | None, device: torch.device) -> torch.Tensor:
    """bool [Q, K]: what the last Q of K tokens see: no later token, and none outside the window if there is one."""
    key = torch.arange(keys, device=device)
    query = key[-queries:, None]
    seen: torch.Tensor = key[None] <= query
    return seen if window is None else seen & (query - key[None] < window)


def attention(
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
    odd = unknown(kwargs)
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    if not causal and (pack.shared or sliding_window):
        odd.append("is_causal=False")
    if odd:
        raise ValueError(f"packed attention knows no {', '.join(odd)}")
    out = packed_attention(
        query, key, value, pack, causal=causal, scale=scaling, window=sliding_window, dropout=dropout
    )
    return out, None


def unknown(asked: Mapping[str, Any]) -> list[str]:
    """What a model asks of its attention that is not known here, and so could change the maths."""
    return sorted(name for name, given in asked.items() if given is not None and name not in INERT)


def register(name: str = IMPLEMENTATION, form: Callable[..., tuple[torch.Tensor, None]] = attention) -> None:
    """Make `attn_implementation=name` known to Transformers, with sdpa's masks; doing it again changes nothing."""
    AttentionInterface.register(name, form)
    AttentionMaskInterface.register(name, sdpa_mask)
