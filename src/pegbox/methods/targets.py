"""The layers of a model that a method can change: all linear ones but the output layer and those of new heads, by name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from pegbox.errors import RecipeError
from pegbox.models.heads import new_heads, output_layer


def layers(model: PreTrainedModel, kinds: tuple[type[Any], ...] = (nn.Linear,)) -> dict[str, Any]:
    """The modules of these kinds, by name, without the output layer and what new heads have, which learn anyway."""
    apart = [*new_heads(model).values(), *filter(None, [output_layer(model)])]
    left_out = {module for part in apart for module in part.modules()}
    return {name: part for name, part in model.named_modules() if isinstance(part, kinds) and part not in left_out}


def called(found: Mapping[str, Any], wanted: Sequence[str]) -> list[str]:
    """The names of the layers that end in one of the names wanted. Raises RecipeError where one of these matches nothing."""
    chosen = [name for name in found if any(is_called(name, suffix) for suffix in wanted)]
    if missed := [suffix for suffix in wanted if not any(is_called(name, suffix) for name in chosen)]:
        raise not_found(f"no linear layer of the model is called {', '.join(missed)}", found)
    return chosen


def is_called(name: str, suffix: str) -> bool:
    """True where a module's full name ends in these whole parts."""
    return name == suffix or name.endswith(f".{suffix}")


def not_found(what: str, found: Collection[str]) -> RecipeError:
    """What is wrong with the targets, and which there are."""
    candidates = ", ".join(sorted({name.rpartition(".")[2] for name in found}))
    cure = f"choose among {candidates}" if candidates else "it has no linear layer at all: use method: full"
    return RecipeError(what, where="method.target_modules", cure=cure)


def blocks(model: PreTrainedModel) -> Iterator[tuple[str, nn.ModuleList]]:
    """The lists of the model's layers in the large: the outermost lists of modules, in order."""
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    for name, block in lists.items():
        if not any(name.startswith(f"{other}.") for other in lists):
            yield name, block
