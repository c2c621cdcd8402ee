"""Attention over examples packed into one sequence, in which what several of them begin with stands once.

A pack is a tree laid out depth first: `[all begin so][these two go on so][row 0][row 1][row 2]...`, positions restarted at
each branch. A token sees its own segment (before it, where the model is causal) and the segments that its segment stands
behind, and nothing of another example: the same maths as attention over each example alone. Three forms compute it:

- `block_mask`, dense: bool [T, T] under plain attention, which costs T^2. What the others are tested against.
- `_joined`: each run of segments as rows [n, S] of its own with the keys before it, by torch's attention and autograd. Any device.
- `_merged`, on a CPU: no mask, no padding, no key copied. A segment attends to itself, and all that stands behind a shared
  segment, which in this order is one slice, attends to it as a whole. With `lse` the logarithm of a softmax's denominator,

      o = sum_i exp(lse_i - lse) o_i        lse = log sum_i exp(lse_i)

  gives the output of the parts as one, and a backward pass of each part that is handed this o and lse gives its share of
  the gradient (Dao et al. 2022, arXiv 2205.14135: all that flash attention's backward keeps are these two).

It enters a Transformers model through the attention interface (no patching): `attn_implementation="pegbox"`. Without a
pack among the keyword arguments it is Transformers' own sdpa. With one, it refuses what it does not compute (soft caps,
sinks, biases): a model that passes anything unknown to its attention gets no silent approximation.

Shapes: T tokens of the pack, n segments of S tokens, H heads, Hk of the keys, D per head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

IMPLEMENTATION = "pegbox"
# what models hand on to every attention and what does not change its maths
INERT = {"position_ids", "use_cache", "output_attentions", "output_hidden_states", "output_router_logits"}
MERGES = frozenset({"cpu"})  # the devices whose attention tells its `lse` and takes that of a whole

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


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
    q, k, v = (
        states[0].transpose(0, 1).to(dtype) for states in (query, key, value)
    )  # [T, H, D], as models lay them out
    window = window if window is not None and window < pack.longest else None
    if kind in MERGES and window is None and dropout == 0:
        merged: torch.Tensor = _Merged.apply(q, k, v, pack, causal, scale)  # type: ignore[no-untyped-call]
        return merged[None]
    return _joined(q, k, v, pack, causal, scale, window, dropout)[None]


def _rows(states: torch.Tensor, run: Run) -> torch.Tensor:
    """The view [n, H, S, D] of a run's tokens in [T, H, D]."""
    return states[run.start : run.end].view(run.rows, run.length, *states.shape[1:]).transpose(1, 2)


def _repeated(states: torch.Tensor, heads: int) -> torch.Tensor:
    """The keys or values [T, Hk, D] once for each of the heads [T, H, D] that read them."""
    groups = heads // states.shape[1]
    return states.repeat_interleave(groups, dim=1) if groups > 1 else states


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
    k, v = _repeated(k, q.shape[1]), _repeated(v, q.shape[1])
    out = []
    for run in pack.runs:
        before = pack.before(run)
        keys, values = (_behind(states, run, before) for states in (k, v))
        seen = _causal(run.length, keys.shape[2], window, q.device) if causal and (before or window) else None
        rows = scaled_dot_product_attention(
            _rows(q, run),
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
    """A run's keys or values [n, H, P + S, D], those of the segments before it first."""
    shared = [states[part.start : part.end].transpose(0, 1).expand(run.rows, -1, -1, -1) for part in before]
    return torch.cat([*shared, _rows(states, run)], dim=2)


def _causal(queries: int, keys: int, window: int | None, device: torch.device) -> torch.Tensor:
    """bool [Q, K]: what the last Q of K tokens see: no later token, and none outside the window if there is one."""
    key = torch.arange(keys, device=device)
    query = key[-queries:, None]
    seen: torch.Tensor = key[None] <= query
    return seen if window is None else seen & (query - key[None] < window)


class _Merged(torch.autograd.Function):
    """The form of the module's docstring, forward and backward."""

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pack: Pack, causal: bool, scale: float | None
    ) -> torch.Tensor:
        keys, values = _repeated(k, q.shape[1]), _repeated(v, q.shape[1])
        out = q.new_empty(q.shape)
        lse = q.new_empty(q.shape[:2], dtype=torch.promote_types(q.dtype, torch.float32))
        for run in pack.runs:
            rows, sums = _flash(*(_rows(states, run) for states in (q, keys, values)), 0.0, causal, scale=scale)
            _rows(out, run).copy_(rows)
            _sums(lse, run).copy_(sums)
        for part, behind in _shared(pack):
            rows, sums = _flash(_rows(q, behind), _rows(keys, part), _rows(values, part), scale=scale)
            _merge(_rows(out, behind), _sums(lse, behind), rows, sums)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.pack, ctx.causal, ctx.scale = pack, causal, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        keys, values = _repeated(k, q.shape[1]), _repeated(v, q.shape[1])
        grad = grads[0].contiguous()
        d_q, d_k, d_v = (torch.empty_like(out) for _ in range(3))

        def of(queries: Run, seen: Run, causal: bool) -> Any:
            asked = (_rows(states, queries) for states in (grad, q))
            read = (_rows(states, seen) for states in (keys, values))
            grad_rows, query_rows = asked
            given = (_rows(out, queries), _sums(lse, queries), 0.0, causal)
            return _flash_backward(grad_rows, query_rows, *read, *given, scale=ctx.scale)

        for run in ctx.pack.runs:
            for total, part_of_it in zip((d_q, d_k, d_v), of(run, run, ctx.causal), strict=True):
                _rows(total, run).copy_(part_of_it)
        for part, behind in _shared(ctx.pack):
            into = ((d_q, behind), (d_k, part), (d_v, part))
            for (total, where), part_of_it in zip(into, of(behind, part, False), strict=True):
                _rows(total, where).add_(part_of_it)
        d_k, d_v = (total.unflatten(1, (k.shape[1], -1)).sum(2) for total in (d_k, d_v))
        return d_q, d_k, d_v, None, None, None


def _shared(pack: Pack) -> Iterator[tuple[Run, Run]]:
    """Each shared segment, and all that stands behind it, as one row each."""
    for start, end, until in pack.shared:
        yield Run(start, 1, end - start), Run(end, 1, until - end)


def _sums(lse: torch.Tensor, run: Run) -> torch.Tensor:
    """The view [n, H, S] of a run's tokens in [T, H]."""
    return lse[run.start : run.end].view(run.rows, run.length, -1).transpose(1, 2)


def _merge(out: torch.Tensor, lse: torch.Tensor, rows: torch.Tensor, sums: torch.Tensor) -> None:
    """Join to the attention over some keys, in place, that over others: `out`, `rows` [n, H, S, D], `lse`, `sums` [n, H, S]."""
    total = torch.logaddexp(lse, sums)
    out.mul_((lse - total).exp_()[..., None].to(out.dtype)).addcmul_(
        rows, (sums - total).exp_()[..., None].to(out.dtype)
    )
    lse.copy_(total)


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


def register(name: str = IMPLEMENTATION, form: Callable[..., tuple[torch.Tensor, None]] = _attention) -> None:
    """Make `attn_implementation=name` known to Transformers, with sdpa's masks; doing it again changes nothing."""
    AttentionInterface.register(name, form)
    AttentionMaskInterface.register(name, sdpa_mask)
