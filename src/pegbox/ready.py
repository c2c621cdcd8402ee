"""What steps 1 and 2 make: all that training needs."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel

from pegbox import runtime
from pegbox.data.prepare import Prepared
from pegbox.methods import METHODS
from pegbox.models.sources import ModelFolder
from pegbox.recipe import Recipe
from pegbox.tasks import Task
from pegbox.training.plan import Plan


@dataclass(frozen=True)
class Ready:
    """Steps 1 and 2 done: trusted rows, the model with the weights that will learn, and the plan.

    `kernels`: whether fast forms of operations were asked for.
    """

    recipe: Recipe
    source: ModelFolder
    task: Task
    data: Prepared
    model: PreTrainedModel
    plan: Plan
    kernels: bool = True

    @property
    def bf16(self) -> bool:
        """Whether the forward pass computes in bfloat16."""
        return runtime.use_bf16(self.model.device, self.recipe.train.bf16)

    def rate_factor(self, name: str) -> float:
        """How many times as fast as others a parameter learns."""
        return METHODS[self.recipe.method.kind].rate_factor(self.recipe.method, name)
