"""Attention of a pack under dropout on a CPU, forward and backward by hand.

    P = softmax(s Q K^T)        O = (P * M) V        M: 0 with probability p, else 1 / (1 - p)

    dV = (P * M)^T dO        dS = P * (dP - sum dP * P),  dP = M * (dO V^T)        dQ = s dS K        dK = s dS^T Q

Encoders learn from short rows of many lengths, each length a call of its own in each layer: of torch's attention and its
autograd these take 25 operations, here 12, and the noise of all is drawn at once (`noise`). Nothing is shared in such a pack.

Shapes: T tokens of the pack, n segments of S tokens, H heads, Hk of the keys, D per head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pegbox.kernels.noise import kept
from pegbox.kernels.pack import Pack, Run, rows_of


def noisy_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pack: Pack, causal: bool, scale: float | None, dropout: float
) -> torch.Tensor:
    """`q` [T, H, D], `k` and `v` [T, Hk, D] -> [T, H, D]. The plain form is torch's attention over each run."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = (states.repeat_interleave(groups, dim=1) for states in (k, v))
    out: torch.Tensor = _Noisy.apply(q * scale, k, v, pack, causal, dropout)  # type: ignore[no-untyped-call]
    return out


class _Noisy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pack: Pack, causal: bool, dropout: float
    ) -> torch.Tensor:
        sizes = [run.rows * q.shape[1] * run.length**2 for run in pack.runs]
        mask, ctx.factor = kept(sum(sizes), dropout)
        shares, outs = [], []
        for run, keep in zip(pack.runs, mask.split(sizes), strict=True):
            query, key, value = (_flat(states, run) for states in (q, k, v))
            scores = torch.bmm(query, key.transpose(1, 2))
            if causal:
                scores.masked_fill_(torch.ones(run.length, run.length, dtype=torch.bool).triu_(1), -torch.inf)
            shares.append(scores.softmax(-1))
            outs.append(torch.bmm((shares[-1] * keep.view_as(scores)).mul_(ctx.factor), value))
        ctx.save_for_backward(q, k, v, mask, *shares)
        ctx.pack, ctx.sizes = pack, sizes
        return _put_together(outs, pack, q)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, mask, *shares = ctx.saved_tensors
        grad, found = grads[0].contiguous(), list[tuple[torch.Tensor, ...]]()
        for run, keep, share in zip(ctx.pack.runs, mask.split(ctx.sizes), shares, strict=True):
            query, key, value, d_out = (_flat(states, run) for states in (q, k, v, grad))
            keep = keep.view_as(share)
            d_value = torch.bmm((share * keep).mul_(ctx.factor).transpose(1, 2), d_out)
            d_share = torch.bmm(d_out, value.transpose(1, 2)).mul_(keep).mul_(ctx.factor)
            d_scores = torch._softmax_backward_data(d_share, share, -1, share.dtype)
            found.append((torch.bmm(d_scores, key), torch.bmm(d_scores.transpose(1, 2), query), d_value))
        return *(_put_together(parts, ctx.pack, q) for parts in zip(*found, strict=True)), None, None, None


def _flat(states: torch.Tensor, run: Run) -> torch.Tensor:
    """A run's tokens [n H, S, D] of [T, H, D]."""
    return rows_of(states, run).flatten(0, 1)


def _put_together(parts: Sequence[torch.Tensor], pack: Pack, like: torch.Tensor) -> torch.Tensor:
    """All runs [n H, S, D] as tokens [T, H, D]."""
    shapes = ((run.rows, like.shape[1], run.length, -1) for run in pack.runs)
    rows = (part.view(shape).transpose(1, 2) for part, shape in zip(parts, shapes, strict=True))
    return torch.cat([part.flatten(0, 1) for part in rows])
