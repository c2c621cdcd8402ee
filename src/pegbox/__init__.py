"""pegbox fine-tunes pretrained language models and says, honestly, whether it helped.

The public names are those of `__all__`. They are loaded when first used, so that importing pegbox does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pegbox.checking import check
    from pegbox.errors import ChangedError, DataError, NotBetterError, PegboxError, RecipeError, TrainingError
    from pegbox.finished import Run
    from pegbox.pipeline import evaluate, train
    from pegbox.recipe import Recipe

    load = Run

__version__ = "0.1.0"

_HOMES = {
    "ChangedError": "errors.ChangedError",
    "DataError": "errors.DataError",
    "NotBetterError": "errors.NotBetterError",
    "PegboxError": "errors.PegboxError",
    "Recipe": "recipe.Recipe",
    "RecipeError": "errors.RecipeError",
    "Run": "finished.Run",
    "TrainingError": "errors.TrainingError",
    "check": "checking.check",
    "evaluate": "pipeline.evaluate",
    "load": "finished.Run",
    "train": "pipeline.train",
}
__all__ = [
    "ChangedError",
    "DataError",
    "NotBetterError",
    "PegboxError",
    "Recipe",
    "RecipeError",
    "Run",
    "TrainingError",
    "check",
    "evaluate",
    "load",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pegbox' has no attribute '{name}'")
    module, _, attribute = _HOMES[name].partition(".")
    return getattr(importlib.import_module(f"pegbox.{module}"), attribute)
