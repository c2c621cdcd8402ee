"""The recipe: what a user asks for (no torch here)."""

from pegbox.recipe.load import dump, load, validate
from pegbox.recipe.losses import FITTING, MAE, MSE, BinaryCrossEntropy, CrossEntropy, Focal, Huber, Loss, OwnLoss
from pegbox.recipe.methods import Adapter, Freeze, Full, Lora, Method, Peft
from pegbox.recipe.own import is_own, load_own, own_files
from pegbox.recipe.schema import ALLOWABLE, Data, Evaluate, Model, Recipe, Train
from pegbox.recipe.tasks import (
    PROMPTED,
    Chat,
    Classification,
    Completion,
    MaskedLM,
    Multilabel,
    Regression,
    Task,
    TokenClassification,
)

__all__ = [
    "ALLOWABLE",
    "FITTING",
    "MAE",
    "MSE",
    "PROMPTED",
    "Adapter",
    "BinaryCrossEntropy",
    "Chat",
    "Classification",
    "Completion",
    "CrossEntropy",
    "Data",
    "Evaluate",
    "Focal",
    "Freeze",
    "Full",
    "Huber",
    "Lora",
    "Loss",
    "MaskedLM",
    "Method",
    "Model",
    "Multilabel",
    "OwnLoss",
    "Peft",
    "Recipe",
    "Regression",
    "Task",
    "TokenClassification",
    "Train",
    "dump",
    "is_own",
    "load",
    "load_own",
    "own_files",
    "validate",
]
