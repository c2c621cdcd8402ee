"""Which weights learn: one file a method, one row in the table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from transformers import PreTrainedModel

from pegbox.methods import adapter, freeze, full, lora, peft


class MethodModule(Protocol):
    """What the file of a method offers; `settings` is its class in the recipe."""

    FREEZES: bool  # no weight of the base learns, so that it may be held in bfloat16, or quantized

    def learning_rate(self, settings: Any) -> float:
        """AdamW's where the recipe names none: what is known to work, with its source."""

    def rate_factor(self, settings: Any, name: str) -> float:
        """How many times as fast as that the parameter `name` learns."""

    def prepare(self, model: PreTrainedModel, settings: Any, seed: int) -> None:
        """Change the model in place so that just the weights that learn require a gradient. Raises RecipeError."""

    def save(self, model: PreTrainedModel, settings: Any, folder: Path, base: str) -> None:
        """Write what was learnt, in the hub's or PEFT's layout where these have one. `base` names the untouched model."""

    def restore(self, model: PreTrainedModel, settings: Any, folder: Path) -> None:
        """Put what `save` wrote into a freshly loaded base model. Raises RecipeError unless it fits exactly."""

    def merge(self, model: PreTrainedModel, settings: Any) -> None:
        """Make of a restored model, in place, one of Transformers' own that computes the same, saved as any other.

        Raises RecipeError, saying why, where the method cannot be written into the model's weights.
        """


METHODS: Mapping[str, MethodModule] = {"full": full, "freeze": freeze, "lora": lora, "adapter": adapter, "peft": peft}
