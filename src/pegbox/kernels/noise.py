"""Dropout on a CPU, four numbers from each that the generator draws.

torch draws a number of its own for each element, 5 ns each on one core; of 16 bits there are four in a drawn number of 64.
The probability is met to 1 / 65,536, and the kept elements are scaled by what it then is. torch's generator draws, so that the
noise follows from the seed of the update. The plain form is `torch.nn.functional.dropout`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

STEPS = 1 << 16  # that a probability is told in


def kept(count: int, p: float) -> tuple[torch.Tensor, float]:
    """bool [count], false with probability p; and what a kept element is multiplied by."""
    dropped = round(p * STEPS)
    drawn = torch.empty(math.ceil(count / 4), dtype=torch.int64).random_(-(2**63), None)
    return drawn.view(torch.int16)[:count] >= dropped - STEPS // 2, STEPS / (STEPS - dropped)


def applies(x: torch.Tensor, p: float) -> bool:
    """Whether noise on such a tensor is drawn here: on a CPU, and neither all nor nothing is dropped."""
    return x.device.type == "cpu" and 0 < round(p * STEPS) < STEPS


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, p: float) -> torch.Tensor:
        mask, ctx.scale = kept(x.numel(), p)
        mask = mask.view(x.shape)
        ctx.save_for_backward(mask)
        return (x * mask).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (mask,) = ctx.saved_tensors
        return (grads[0] * mask).mul_(ctx.scale), None


class FastDropout(nn.Dropout):
    """Dropout that draws by `kept` on a CPU."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`input` of any shape."""
        if not (self.training and applies(input, self.p)):
            return super().forward(input)
        out: torch.Tensor = _Dropped.apply(input, self.p)  # type: ignore[no-untyped-call]
        return out


def install(model: nn.Module) -> None:
    """Put a `FastDropout` in the place of each plain dropout layer."""
    for name, module in list(model.named_modules()):
        if type(module) is nn.Dropout and not module.inplace:
            model.set_submodule(name, FastDropout(module.p).train(module.training))
