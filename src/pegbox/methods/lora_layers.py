"""Linear layers with a low-rank update that learns, beside a weight that stays.

    LoRA    y = x W^T + b + s (x A^T) B^T                          A: [r, in], B: [out, r]
    PiSSA   the same with B A - B_0 A_0 for B A, where s B_0 A_0 is W's part of its r largest singular values
    DoRA    y = g (x (W + s B A)^T) + b,  g = m / ||W + s B A||     m: [out], the norm of each row a constant

s = lora_alpha / r; rsLoRA: lora_alpha / sqrt(r). LoRA: Hu et al. 2021 (arXiv 2106.09685); rsLoRA: Kalajdzievski 2023 (arXiv
2312.03732); PiSSA: Meng et al. 2024 (arXiv 2404.02948); DoRA: Liu et al. 2024 (arXiv 2402.09353, section 4.3 for the constant
norm). B, or B - B_0, starts at zero, and m at the norms of W, so that the model starts as it was.

PiSSA takes s B_0 A_0 off the weight and saves that other weight or, converted, an update of rank 2 r. Here the weight stays as
it is in training, too: the update has rank 2 r from the start, its second half does not learn, and what is saved is what
was trained. That costs a second small product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn.functional import dropout, linear

from pegbox.errors import RecipeError
from pegbox.kernels.linear import FastLinear, applies
from pegbox.kernels.lora import lora_linear
from pegbox.models.quantization import dequantized, is_quantized
from pegbox.recipe import Lora


class LoraLinear(nn.Module):
    """A frozen linear layer with a low-rank update that learns. `x` [..., in] -> [..., out].

    It keeps the name of the layer's `weight`, so that a base checkpoint fits as before.
    """

    start_A: torch.Tensor | None
    start_B: torch.Tensor | None

    def __init__(self, base: nn.Linear, settings: Lora, generator: torch.Generator) -> None:
        super().__init__()
        self.weight, self.bias, self.training = base.weight, base.bias, base.training
        self.quantized = base if is_quantized(base) else None  # computes by itself what its packed weight says
        self.fast = isinstance(base, FastLinear)  # the layer in whose place this one stands computed by a kernel
        self.scaling, self.dropout = scaling(settings), settings.lora_dropout
        kind = settings.init_lora_weights
        start = START.get(kind) or _pissa(str(kind))
        lora_a, lora_b = start(self.frozen_weight().detach(), settings, generator)
        # in at least float32, whatever the base is held in: smaller updates would be lost
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        lora_a, lora_b = (factor.to(self.weight.device, dtype).contiguous() for factor in (lora_a, lora_b))
        self.lora_A, self.lora_B = nn.Parameter(lora_a), nn.Parameter(lora_b)
        taken_off = bool(lora_b.any())
        self.register_buffer("start_A", lora_a.clone() if taken_off else None, persistent=False)
        self.register_buffer("start_B", -lora_b if taken_off else None, persistent=False)

    @property
    def factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A [r, in] and B [out, r]; where the update did not start at zero, behind them what it started at: rank 2 r."""
        if self.start_A is None or self.start_B is None:
            return self.lora_A, self.lora_B
        return torch.cat([self.lora_A, self.start_A]), torch.cat([self.lora_B, self.start_B], dim=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The frozen layer's output plus the update's."""
        lora_a, lora_b = self.factors
        if self.fast and not self.noisy and applies(x, self.weight) and applies(x, lora_a):
            return lora_linear(x, self.weight, self.bias, lora_a, lora_b, self.scaling)
        return self.frozen(x) + self.update(dropout(x, self.dropout, self.training))

    @property
    def noisy(self) -> bool:
        """Whether dropout draws."""
        return self.training and self.dropout > 0

    def frozen(self, x: torch.Tensor) -> torch.Tensor:
        """The output of the layer as it was."""
        plain: torch.Tensor = linear(x, self.weight, self.bias) if self.quantized is None else self.quantized(x)
        return plain

    def update(self, x: torch.Tensor) -> torch.Tensor:
        """What is added to it."""
        lora_a, lora_b = self.factors
        return linear(linear(x, lora_a) * self.scaling, lora_b)

    def frozen_weight(self) -> torch.Tensor:
        """The weight [out, in] that stays, as numbers."""
        return self.weight if self.quantized is None else dequantized(self.quantized)

    @torch.no_grad()
    def delta_weight(self) -> torch.Tensor:
        """The update as one matrix [out, in]: what a merge adds to the weight."""
        lora_a, lora_b = self.factors
        return self.scaling * (lora_b @ lora_a)

    @torch.no_grad()
    def merged_weight(self) -> torch.Tensor:
        """The weight [out, in] of the plain layer that computes the same, in at least float32."""
        return self.frozen_weight() + self.delta_weight()

    def tensors(self) -> dict[str, torch.Tensor]:
        """What was learnt, by PEFT's names behind that of the layer."""
        lora_a, lora_b = self.factors
        return {"lora_A.weight": lora_a.detach(), "lora_B.weight": lora_b.detach()}


class DoraLinear(LoraLinear):
    """The rows of the weight learn their length apart, and by the low-rank update their direction."""

    def __init__(self, base: nn.Linear, settings: Lora, generator: torch.Generator) -> None:
        super().__init__(base, settings, generator)
        self.lora_magnitude_vector = nn.Parameter(self._norms())

    @torch.no_grad()
    def _norms(self) -> torch.Tensor:
        norms: torch.Tensor = torch.linalg.vector_norm(super().merged_weight(), dim=1)
        return norms

    def stretch(self) -> torch.Tensor:
        """g [out]: the length that each row shall have, over that which it has; the latter is taken for a constant."""
        return self.lora_magnitude_vector / self._norms()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The output of the layer with rows of the learnt direction and length.

        Dropout falls on all that learns: on the frozen weight, too, as far as its rows were stretched.
        """
        g, bias = self.stretch(), 0.0 if self.bias is None else self.bias
        if not self.noisy:
            return g * (super().forward(x) - bias) + bias
        dropped = dropout(x, self.dropout, self.training)
        return self.frozen(x) + (g - 1) * (self.frozen(dropped) - bias) + g * self.update(dropped)

    @torch.no_grad()
    def merged_weight(self) -> torch.Tensor:
        """The weight [out, in] of the plain layer that computes the same, in at least float32."""
        return self.stretch()[:, None] * super().merged_weight()

    def tensors(self) -> dict[str, torch.Tensor]:
        """What was learnt, by PEFT's names behind that of the layer."""
        return super().tensors() | {"lora_magnitude_vector": self.lora_magnitude_vector.detach()}


def scaling(settings: Lora) -> float:
    """The factor on the update; `lora_alpha` is 2 r unless the recipe gives it."""
    return alpha(settings) / (math.sqrt(settings.r) if settings.use_rslora else settings.r)


def alpha(settings: Lora) -> float:
    """`lora_alpha`, made explicit."""
    return 2.0 * settings.r if settings.lora_alpha is None else settings.lora_alpha


# ---- how A and B start ------------------------------------------------------------------------------------------------

Start = Callable[[torch.Tensor, Lora, torch.Generator], tuple[torch.Tensor, torch.Tensor]]


def _uniform(weight: torch.Tensor, settings: Lora, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A as nn.Linear and PEFT draw it (kaiming_uniform with a = sqrt(5)), B zero."""
    bound = 1 / math.sqrt(weight.shape[1])
    drawn = torch.rand(settings.r, weight.shape[1], generator=generator) * 2 * bound - bound
    return drawn, torch.zeros(len(weight), settings.r)


def _gaussian(weight: torch.Tensor, settings: Lora, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A from a normal distribution of deviation 1 / r, as in PEFT; B zero."""
    drawn = torch.randn(settings.r, weight.shape[1], generator=generator) / settings.r
    return drawn, torch.zeros(len(weight), settings.r)


def _pissa(kind: str) -> Start:
    """A and B from the r largest singular values, exactly, or by `niter` rounds of subspace iteration."""
    niter = kind.rpartition("_niter_")[2] if "_niter_" in kind else None

    def start(weight: torch.Tensor, settings: Lora, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        if settings.r > (most := min(weight.shape)):
            what, cure = f"the smallest weight has {most} singular values", f"give a rank up to {most}"
            raise RecipeError(f"{what}, not {settings.r}", where="method.r", cure=cure)
        weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
        if niter is None:
            left, values, right = torch.linalg.svd(weight, full_matrices=False)
            left, values, right = left[:, : settings.r], values[: settings.r], right[: settings.r]
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
                left, values, columns = torch.svd_lowrank(weight, settings.r, niter=int(niter))
            right = columns.t()
        root = (values / scaling(settings)).sqrt()
        return root[:, None] * right, left * root

    return start


START: Mapping[bool | str, Start] = {True: _uniform, "gaussian": _gaussian}
