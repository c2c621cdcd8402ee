"""Which weights learn: one file a method, one row in the table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from transformers import PreTrainedModel

from pegbox.methods import full, lora


class MethodModule(Protocol):
    """What the file of a method offers; `settings` is its class in the recipe."""

    LEARNING_RATE: float
    FREEZES: bool  # the base does not learn, so that it may be held in bfloat16

    def prepare(self, model: PreTrainedModel, settings: Any, seed: int) -> None:
        """Change the model in place so that just the weights that learn require a gradient."""

    def save(self, model: PreTrainedModel, settings: Any, folder: Path, base: str) -> None:
        """Write what was learnt, in the hub's or PEFT's layout, loadable without pegbox."""

    def restore(self, model: PreTrainedModel, settings: Any, folder: Path) -> None:
        """Put what `save` wrote into a freshly loaded base model."""


METHODS: Mapping[str, MethodModule] = {"full": full, "lora": lora}
