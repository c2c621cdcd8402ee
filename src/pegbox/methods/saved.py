"""What a method has learnt, on disk: a configuration beside one file of tensors, and nothing that is passed over in silence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from pegbox.errors import RecipeError
from pegbox.models.heads import loose_weights, new_heads


def write(folder: Path, config: tuple[str, str], weights: str, learnt: Mapping[str, torch.Tensor]) -> None:
    """Write the configuration (its file's name and text) and the tensors, by their names on disk."""
    folder.mkdir(parents=True, exist_ok=True)
    name, text = config
    (folder / name).write_text(text + "\n", encoding="utf-8")
    # copies: what is tied within a head stands there under both names, and no two may share memory
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in learnt.items()
    }
    save_file(tensors, folder / weights, metadata={"format": "pt"})


def read(folder: Path, config: str, weights: str) -> tuple[str, dict[str, torch.Tensor]]:
    """The text of the configuration, and the tensors. Raises RecipeError."""
    try:
        return (folder / config).read_text(encoding="utf-8"), load_file(folder / weights)
    except (OSError, ValueError, SafetensorError) as error:
        raise RecipeError(f"the adapter cannot be read: {error}", where=str(folder)) from None


def refuse_misfit(saved: Mapping[str, torch.Tensor], places: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Raise RecipeError unless every tensor on disk has its place in the model, and every place its tensor."""
    shapes, wanted = ({name: tensor.shape for name, tensor in found.items()} for found in (saved, places))
    if shapes != wanted:
        odd = sorted({name for name, _ in shapes.items() ^ wanted.items()})
        raise RecipeError(f"the adapter does not fit the model: {', '.join(odd[:3])}", where=str(folder))


def fill(places: Mapping[str, torch.Tensor], saved: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Put each tensor into its place. Raises RecipeError unless they fit."""
    refuse_misfit(saved, places, folder)
    for name, place in places.items():
        place.copy_(saved[name])


def new_weights(model: PreTrainedModel, prefix: str = "") -> dict[str, torch.Tensor]:
    """The tensors of new heads and what else is new, which every method saves, by their names behind a prefix."""
    named = {
        f"{prefix}{head}.{name}": tensor
        for head, module in new_heads(model).items()
        for name, tensor in module.state_dict().items()
    }
    return named | {f"{prefix}{name}": weight.data for name, weight in loose_weights(model).items()}
