"""Full fine-tuning: every weight learns, and the whole model is saved in the hub's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from pegbox.models.load import load_weights

FREEZES = False


def learning_rate(settings: Any) -> float:
    """The usual order for full fine-tuning (Devlin et al. 2019: 2e-5 to 5e-5)."""
    return 2e-5


def rate_factor(settings: Any, name: str) -> float:
    """All weights learn alike."""
    return 1.0


def prepare(model: PreTrainedModel, settings: Any, seed: int) -> None:
    """Let every weight learn."""
    model.requires_grad_(True)


def save(model: PreTrainedModel, settings: Any, folder: Path, base: str) -> None:
    """The whole model as one safetensors file (sharded where it is large) with its config."""
    model.save_pretrained(folder)


def restore(model: PreTrainedModel, settings: Any, folder: Path) -> None:
    """Read the saved weights over the base model's. Raises RecipeError unless they are exactly the model's."""
    load_weights(model, folder)


def merge(model: PreTrainedModel, settings: Any) -> None:
    """The weights are the model's own already."""
