"""Attention over parts of what a token sees, and the parts put together, forward and backward by hand.

A pack needs no mask, no padding and no copy of a key: a segment attends to itself, and all that stands behind a shared
segment, which in a pack's order is one slice, attends to it as a whole. With `lse` the logarithm of a softmax's denominator,

    o = sum_i exp(lse_i - lse) o_i        lse = log sum_i exp(lse_i)

gives the output of the parts as one, and a backward pass of each part that is handed this o and lse gives its share of the
gradient (Dao et al. 2022, arXiv 2205.14135: all that flash attention's backward keeps are these two).

`FLASH` has the devices whose flash attention tells its `lse` and takes that of a whole: a CPU's computes rows of one length
at once, a GPU's rows of any.

Shapes: T tokens of the pack, n segments of S tokens, H heads, Hk of the keys, D per head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from pegbox.kernels.pack import Pack, Run, repeated, rows_of

Runs = Sequence[Run]
Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

_cpu_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_cpu_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_cuda_forward = torch.ops.aten._flash_attention_forward
_cuda_backward = torch.ops.aten._flash_attention_backward


class Asked(NamedTuple):
    """Which segments attend to which (the n-th to the n-th), and how."""

    queries: Runs
    seen: Runs
    causal: bool
    scale: float | None

    @property
    def at(self) -> tuple[slice, slice, slice]:
        """Where in a pack the queries, the keys and the values lie: runs follow each other."""
        queries, seen = (slice(runs[0].start, runs[-1].end) for runs in (self.queries, self.seen))
        return queries, seen, seen


class Flash(NamedTuple):
    """A device's attention.

    `forward(states, asked)`, of q, k and v, gives the output [T', H, D] of the asked queries and their `lse` [T', H];
    `backward(ends, states, asked)`, of the output's gradient, the output and `lse`, the gradients of q, k and v there.
    `dtypes`: what it computes in.
    """

    forward: Callable[[Three, Asked], tuple[torch.Tensor, torch.Tensor]]
    backward: Callable[[Three, Three, Asked], tuple[torch.Tensor, ...]]
    dtypes: frozenset[torch.dtype]


def merges(states: torch.Tensor) -> bool:
    """Whether attention over states such as these [T, H, D] can be computed by parts."""
    found = FLASH.get(states.device.type)
    return found is not None and states.dtype in found.dtypes


def merged_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pack: Pack, causal: bool, scale: float | None
) -> torch.Tensor:
    """Attention of a pack: `q` [T, H, D], `k` and `v` [T, Hk, D] -> [T, H, D]."""
    out: torch.Tensor = _Merged.apply(q, k, v, pack, causal, scale)  # type: ignore[no-untyped-call]
    return out


class _Merged(torch.autograd.Function):
    """The maths of the module's docstring."""

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pack: Pack, causal: bool, scale: float | None
    ) -> torch.Tensor:
        flash, own = FLASH[q.device.type], Asked(pack.runs, pack.runs, causal, scale)
        shared = list(_behind_shared(pack, scale))
        out, lse = flash.forward((q, k, v), own)
        for asked in shared:
            behind = asked.at[0]
            _merge(out[behind], lse[behind], *flash.forward((q, k, v), asked))
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.flash, ctx.own, ctx.shared = flash, own, shared
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        given = (grads[0].contiguous(), out, lse), (q, k, v)
        found = ctx.flash.backward(*given, ctx.own)
        for asked in ctx.shared:
            for total, where, part in zip(found, asked.at, ctx.flash.backward(*given, asked), strict=True):
                total[where].add_(part)
        return (*found, None, None, None)


def _behind_shared(pack: Pack, scale: float | None) -> Iterator[Asked]:
    """Each shared segment, seen as a whole by all that stands behind it."""
    for start, end, until in pack.shared:
        yield Asked([Run(end, 1, until - end)], [Run(start, 1, end - start)], False, scale)


def _merge(out: torch.Tensor, lse: torch.Tensor, rows: torch.Tensor, sums: torch.Tensor) -> None:
    """Join to the attention over some keys, in place, that over others: `out`, `rows` [T', H, D], `lse`, `sums` [T', H]."""
    total = torch.logaddexp(lse, sums)
    out.mul_((lse - total).exp_()[..., None].to(out.dtype)).addcmul_(
        rows, (sums - total).exp_()[..., None].to(out.dtype)
    )
    lse.copy_(total)


# ---- a CPU: a call for each run, whose segments are rows of one length -----------------------------------------------


def _on_cpu(states: Three, asked: Asked) -> tuple[torch.Tensor, torch.Tensor]:
    parts = [
        _cpu_forward(*rows, 0.0, asked.causal, scale=asked.scale) for rows in zip(*_rows(states, asked), strict=True)
    ]
    out, lse = zip(*parts, strict=True)
    return _put_together(out), _put_together(lse)


def _back_on_cpu(ends: Three, states: Three, asked: Asked) -> tuple[torch.Tensor, ...]:
    of_queries = ([rows_of(end, run) for run in asked.queries] for end in ends)
    parts = [
        _cpu_backward(grad, *rows, out, lse, 0.0, asked.causal, scale=asked.scale)
        for grad, out, lse, *rows in zip(*of_queries, *_rows(states, asked), strict=True)
    ]
    d_q, *others = map(_put_together, zip(*parts, strict=True))
    return d_q, *(found.unflatten(1, (states[1].shape[1], -1)).sum(2) for found in others)


def _rows(states: Three, asked: Asked) -> Iterator[list[torch.Tensor]]:
    """The queries, the keys and the values of each run [n, H, S, D], those of several heads repeated for each."""
    q, *read = states
    yield [rows_of(q, run) for run in asked.queries]
    for each in read:
        yield [repeated(rows_of(each, run), q.shape[1]) for run in asked.seen]


def _put_together(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Rows [n, H, S, ...] of runs that follow each other as the tokens [T', H, ...] that they are."""
    return torch.cat([part.transpose(1, 2).flatten(0, 1) for part in parts])


# ---- a GPU: one call for all runs, with the bounds of their segments -------------------------------------------------


def _on_cuda(states: Three, asked: Asked) -> tuple[torch.Tensor, torch.Tensor]:
    parts = (part[where] for part, where in zip(states, asked.at, strict=True))
    out, lse, *_ = _cuda_forward(*parts, *_bounds(asked, states[0].device), 0.0, asked.causal, False, scale=asked.scale)
    return out, lse.t().contiguous()


def _back_on_cuda(ends: Three, states: Three, asked: Asked) -> tuple[torch.Tensor, ...]:
    grad, out, lse = (end[asked.at[0]] for end in ends)
    parts = (part[where] for part, where in zip(states, asked.at, strict=True))
    no_noise = torch.zeros(2, dtype=torch.uint64, device=grad.device), grad.new_empty(0)
    given = grad, *parts, out, lse.t().contiguous(), *_bounds(asked, grad.device)
    found: tuple[torch.Tensor, ...] = _cuda_backward(*given, 0.0, asked.causal, *no_noise, scale=asked.scale)
    return found


def _bounds(asked: Asked, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, int, int]:
    """Where each segment begins and the last one ends, int32 [n + 1], of queries and of keys; the longest of each."""
    sides = asked.queries, asked.seen
    lengths = [[run.length for run in runs for _ in range(run.rows)] for runs in sides]
    queries, seen = (
        torch.tensor([*accumulate(side, initial=0)], dtype=torch.int32).to(device, non_blocking=True)
        for side in lengths
    )
    return queries, seen, max(lengths[0]), max(lengths[1])


FLASH: Mapping[str, Flash] = MappingProxyType(
    {
        "cpu": Flash(
            _on_cpu,
            _back_on_cpu,
            frozenset({torch.float64, torch.float32, torch.bfloat16, torch.float16}),
        ),
        "cuda": Flash(_on_cuda, _back_on_cuda, frozenset({torch.bfloat16, torch.float16})),
    }
)
