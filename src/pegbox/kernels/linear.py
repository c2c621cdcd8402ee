"""Linear layers on a CPU in float32 through oneDNN.

PyTorch hands a float32 matrix product on a CPU to MKL, which keeps to AVX2 on processors that are not Intel's; oneDNN,
which PyTorch carries as well, uses what the processor has (measured on an AMD EPYC with AVX-512: 2.3 times the rate,
forward and backward; see docs/log.md). The maths and the precision are the same, only the order of summation differs.

    y = x W^T + b        dx = g W        dW = g^T x        db = sum g

The plain form is `torch.nn.functional.linear`, which also serves every other device and dtype.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear as plain_linear

ONEDNN = torch.backends.mkldnn.is_available()

# an operation of its own, so that torch.compile, which cannot build oneDNN's, takes it as it is
_library = torch.library.Library("pegbox", "DEF")
_library.define("product(Tensor x, Tensor weight, Tensor? bias=None) -> Tensor")


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def _shape(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))


_library.impl("product", _product, "CPU")
_library.impl("product", _shape, "Meta")


def product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`x` [..., in], `weight` [out, in] -> [..., out], by oneDNN."""
    out: torch.Tensor = torch.ops.pegbox.product(x, weight, bias)
    return out


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x if weight.requires_grad else None, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous()
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        rows = grad.flatten(0, -2)
        return (
            product(grad, weight.t()) if wants_x else None,
            product(rows.t(), x.flatten(0, -2).t()) if wants_weight else None,
            rows.sum(0) if wants_bias else None,
        )


def applies(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """True where oneDNN computes the product of these: float32 on a CPU, no autocast, something to multiply."""
    return (
        x.dtype == weight.dtype == torch.float32
        and x.device.type == "cpu"
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and ONEDNN
    )


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`x` [..., in], `weight` [out, in], `bias` [out] -> [..., out]; oneDNN's where it applies, else the plain form."""
    if applies(x, weight):
        # in rows: what a Function gives must be no view, or nobody may add to it in place
        out: torch.Tensor = _OneDnnLinear.apply(x.reshape(-1, x.shape[-1]), weight, bias)  # type: ignore[no-untyped-call]
        return out.view(*x.shape[:-1], -1)
    return plain_linear(x, weight, bias)


class FastLinear(nn.Linear):
    """A linear layer that computes by `linear`; it shares the weights of the layer whose place it takes."""

    def __init__(self, base: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.training = base.training

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`input` [..., in] -> [..., out]."""
        return linear(input, self.weight, self.bias)


def install(model: nn.Module) -> None:
    """Put a `FastLinear` in the place of each plain linear layer; names and parameters stay as they are."""
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear:
            model.set_submodule(name, FastLinear(module))
