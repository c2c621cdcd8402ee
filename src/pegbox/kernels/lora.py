"""A frozen linear layer and its low-rank update in one step, forward and backward written by hand.

    z = x A^T            y = x W^T + b + s z B^T
    dz = s g B           dx = g W + dz A        dA = dz^T x        dB = s g^T z

Autograd over the plain form adds two whole [T, out] tensors and keeps them; here the update is added in place, and only
x and z [T, r] are kept. The plain form is in `methods.lora`.
"""

from __future__ import annotations

from typing import Any

import torch

from pegbox.kernels.linear import product


class _LoraProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        lora_a: torch.Tensor,
        lora_b: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        inner = product(rows, lora_a)
        out = product(rows, weight, bias).addmm_(inner, lora_b.t(), alpha=scaling)
        ctx.save_for_backward(rows, weight, lora_a, lora_b, inner)
        ctx.scaling = scaling
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, weight, lora_a, lora_b, inner = ctx.saved_tensors
        grad = grads[0].contiguous()
        d_inner = product(grad, lora_b.t()).mul_(ctx.scaling)
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = product(grad, weight.t()).addmm_(d_inner, lora_a)
        d_a = product(d_inner.t(), rows.t())
        d_b = product(inner.t(), grad.t()).t().mul(ctx.scaling)  # so that the small factor is the one laid out anew
        return d_x, None, None, d_a, d_b, None


def lora_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    lora_a: torch.Tensor,
    lora_b: torch.Tensor,
    scaling: float,
) -> torch.Tensor:
    """`x` [..., in], frozen `weight` [out, in] and `bias` [out], `lora_a` [r, in], `lora_b` [out, r] -> [..., out].

    For what `kernels.linear.applies` to; weight and bias get no gradient.
    """
    # in rows: what a Function gives must be no view, or no model may change it in place (Longformer's and LED's do)
    rows = x.flatten(0, -2)
    out: torch.Tensor = _LoraProduct.apply(rows, weight, bias, lora_a, lora_b, scaling)  # type: ignore[no-untyped-call]
    return out.view(*x.shape[:-1], -1)
