"""The recipe: what a user asks for (no torch here)."""

from pegbox.recipe.load import dump, load, validate
from pegbox.recipe.schema import (
    Chat,
    Classification,
    Completion,
    Data,
    Evaluate,
    Full,
    Lora,
    Method,
    Model,
    Recipe,
    Task,
    Train,
)

__all__ = [
    "Chat",
    "Classification",
    "Completion",
    "Data",
    "Evaluate",
    "Full",
    "Lora",
    "Method",
    "Model",
    "Recipe",
    "Task",
    "Train",
    "dump",
    "load",
    "validate",
]
