"""The user's own loss: what it is given, and what it must give back.

    def my_loss(outputs, targets, weights):         # what the built-in ones are given, see `pegbox.tasks.losses`
        values = ...                                # [N], the loss of each row
        return (values * weights).sum(), weights.sum()

The sum is a tensor without dimensions, with a gradient; the weight a number from 0 on. Both must add up: the sum over
some rows and the sum over the others are together the sum over all of them, for an update is cut into micro-batches and
spread over processes as memory allows. That is tried out once, on the first batch with two rows: a mean in the place of
a sum would otherwise weigh every row by the rows that happened to come with it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from pegbox import runtime
from pegbox.errors import RecipeError
from pegbox.models.token_loss import Criterion as Criterion
from pegbox.recipe import OwnLoss, load_own
from pegbox.recipe.own import failure

Function = Callable[..., Any]
Own = OwnLoss | Function

CURE = (
    "return the sum of the weighted losses of the rows, and the sum of their weights: "
    "return (values * weights).sum(), weights.sum()"
)
CLOSE = 1e-3  # of the size of the parts: far more than rounding, far less than a mean for a sum


def own_loss(own: Own) -> Criterion:
    """The user's function with what it gives back checked. Raises RecipeError where it cannot be loaded."""
    return _OwnLoss(load_own(own.function, "train.loss") if isinstance(own, OwnLoss) else own)


@dataclass
class _OwnLoss:
    function: Function
    tried: bool = False  # whether the parts were seen to add up

    def __call__(
        self, outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
    ) -> tuple[torch.Tensor, float]:
        total, weight = self._ask(outputs, targets, weights)
        if outputs.requires_grad and torch.is_grad_enabled() and not total.requires_grad:
            raise self._error("the sum has no gradient", "compute it from the outputs with torch alone, undetached")
        if not self.tried and len(outputs) > 1:
            self._refuse_coupled(outputs.detach(), targets, weights, total.item(), weight)
            self.tried = True
        return total, weight

    def _ask(self, outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, float]:
        """What the function gives back, where it has the right form."""
        try:
            given = self.function(outputs, targets, weights)
        except Exception as error:
            if runtime.is_out_of_memory(error):
                raise  # not the function's fault
            shapes = ", ".join(str(list(tensor.shape)) for tensor in (outputs, targets, weights))
            said = failure(error, inspect.getfile(self.function) if inspect.isfunction(self.function) else "")
            cure = f"it was given outputs, targets and weights of the shapes {shapes}"
            raise self._error(f"it failed: {said}", cure) from error
        if not isinstance(given, tuple) or len(given) != 2:
            raise self._error(f"it returned {_brief(given)} and not two things", CURE)
        total, weight = given
        if not isinstance(total, torch.Tensor) or total.dim() or not total.is_floating_point():
            raise self._error(f"the sum that it returned is {_brief(total)} and not a tensor without dimensions", CURE)
        return total, self._weight(weight)

    def _weight(self, weight: Any) -> float:
        number = weight.detach().item() if isinstance(weight, torch.Tensor) and weight.dim() == 0 else weight
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise self._error(f"the weight that it returned is {_brief(weight)} and not a number", CURE)
        if not math.isfinite(number) or number < 0:
            raise self._error(f"the weight that it returned is {number}, and it must be finite and not below 0", CURE)
        return float(number)

    @torch.no_grad()
    def _refuse_coupled(
        self, outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, total: float, weight: float
    ) -> None:
        """Raise RecipeError where the first row and the others do not add up to what all gave."""
        first = self._ask(outputs[:1], targets[:1], weights[:1])
        others = self._ask(outputs[1:], targets[1:], weights[1:])
        parts = {"sum": (first[0].item(), others[0].item(), total), "weight": (first[1], others[1], weight)}
        for name, (one, rest, whole) in parts.items():
            size = abs(one) + abs(rest) + abs(whole)
            if math.isfinite(size) and abs(one + rest - whole) > CLOSE * size:
                what = (
                    f"its {name}s do not add up: {one:.6g} for the first row and {rest:.6g} for the {len(outputs) - 1} "
                    f"others, but {whole:.6g} for all together"
                )
                raise self._error(what, f"take no mean, and nothing at random, inside it; {CURE}")

    def _error(self, what: str, cure: str) -> RecipeError:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return RecipeError(f"{name}: {what}", where="train.loss", cure=cure)


def _brief(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {list(value.shape)} and type {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return "nothing" if value is None else f"{type(value).__name__}"
