"""Linear layers whose frozen weight is held in 4 or 8 bits, as `models.quantization` loads them.

    y = x D(q)^T + b        dx = g D(q)        D: `dequantized`, made anew in each pass and forgotten at once

bitsandbytes' own layers serve on a GPU, where they have kernels for nf4. They do not serve on a CPU: with AVX512-BF16 its
4-bit layer packs its weight anew at the first prediction, computes in bfloat16 from there on, and gives no gradient any
more. Its 8-bit layer rounds the inputs as well (see `models.quantization`), so that none of it is taken.

This file alone imports bitsandbytes at its top: import it where that is installed.
"""

from __future__ import annotations

from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from torch import nn
from torch.nn.functional import linear as plain_linear

from pegbox.kernels.linear import linear
from pegbox.models.quantization import dequantized


class _FrozenProduct(torch.autograd.Function):
    """`x` [..., in] and a quantized layer -> [..., out]; the full weight is in no graph, so that none is kept."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: nn.Linear, fast: bool) -> torch.Tensor:
        ctx.layer, ctx.multiply = layer, linear if fast else plain_linear
        out: torch.Tensor = ctx.multiply(x, dequantized(layer).to(x.dtype))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        weight = dequantized(ctx.layer).to(grads[0].dtype)
        return ctx.multiply(grads[0].contiguous(), weight.t()), None, None


def frozen_linear(x: torch.Tensor, layer: nn.Linear, *, fast: bool) -> torch.Tensor:
    """What a plain layer with the dequantized weight gives; `fast`: by `kernels.linear`."""
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    out: torch.Tensor = _FrozenProduct.apply(x, layer, fast)  # type: ignore[no-untyped-call]
    return out if layer.bias is None else out + layer.bias.to(out.dtype)


class Nf4Linear(Linear4bit):
    """A layer of bitsandbytes' with another way to compute on a CPU."""

    fast: bool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` [..., in] -> [..., out]."""
        if x.device.type == "cpu":
            return frozen_linear(x, self, fast=self.fast)
        out: torch.Tensor = super().forward(x)
        return out


class Int8Linear(Linear8bitLt):
    """A layer of bitsandbytes' that rounds its weight alone."""

    fast: bool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` [..., in] -> [..., out]."""
        return frozen_linear(x, self, fast=self.fast)


def adopt(layer: Any, *, fast: bool) -> None:
    """Make a layer of bitsandbytes' one of these; `fast`: it computes by `kernels.linear`."""
    layer.__class__ = Int8Linear if layer.weight.dtype == torch.int8 else Nf4Linear
    layer.fast = fast
