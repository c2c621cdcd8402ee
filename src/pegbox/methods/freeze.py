"""Partial fine-tuning: some of the model's own weights learn, all others stay; a new head always learns.

Top layers alone: Howard & Ruder 2018 (arXiv 1801.06146) and others; biases alone: BitFit (Ben Zaken et al. 2021,
arXiv 2106.10199); the head alone is a linear probe. What is saved is a whole model, as with full fine-tuning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from torch import nn
from transformers import PreTrainedModel

from pegbox.errors import RecipeError
from pegbox.methods.full import merge, rate_factor, restore, save
from pegbox.methods.targets import blocks
from pegbox.models.heads import let_new_parts_learn, output_layer
from pegbox.recipe import Freeze

__all__ = ["FREEZES", "learning_rate", "merge", "prepare", "rate_factor", "restore", "save"]

FREEZES = False


def learning_rate(settings: Freeze) -> float:
    """As for full fine-tuning where matrices learn; BitFit's middle where vectors do; a probe's where only the head does."""
    if settings.top_layers or set(settings.parts) & {"embeddings", "output"}:
        return 2e-5
    return 4e-4 if settings.parts else 1e-3


def prepare(model: PreTrainedModel, settings: Freeze, seed: int) -> None:
    """Let what the recipe names learn, and new heads. Raises RecipeError where the model has no such part, or nothing learns."""
    model.requires_grad_(False)
    let_new_parts_learn(model)
    for layer in _top(model, settings.top_layers):
        layer.requires_grad_(True)
    for name in settings.parts:
        if not (found := list(PARTS[name](model))):
            raise RecipeError(f"the model has no {name}", where="method.parts", cure=f"leave {name} away")
        for weight in found:
            weight.requires_grad_(True)
    if not any(weight.requires_grad for weight in model.parameters()):
        cure = "give method.top_layers or method.parts; the model has no new head that could learn alone"
        raise RecipeError("nothing would learn", where="method", cure=cure)


def _top(model: PreTrainedModel, count: int) -> list[nn.Module]:
    """The layers nearest to the output; of an encoder-decoder they are the decoder's."""
    outer = [listed for _, listed in blocks(model)]
    layers = list(outer[-1]) if outer else []
    if count > len(layers):
        cure = f"give a number up to {len(layers)}, or method: full"
        raise RecipeError(f"the model has {len(layers)} layers, not {count}", where="method.top_layers", cure=cure)
    return layers[len(layers) - count :]


def _norms(model: PreTrainedModel) -> Iterator[nn.Parameter]:
    norms = (module for module in model.modules() if "norm" in type(module).__name__.lower())
    return (weight for norm in norms for weight in norm.parameters(recurse=False))


def _biases(model: PreTrainedModel) -> Iterator[nn.Parameter]:
    return (weight for name, weight in model.named_parameters() if name.rpartition(".")[2] == "bias")


def _embeddings(model: PreTrainedModel) -> Iterator[nn.Parameter]:
    return model.get_input_embeddings().parameters()


def _output(model: PreTrainedModel) -> Iterator[nn.Parameter]:
    layer = output_layer(model)
    return iter(()) if layer is None else layer.parameters()


PARTS: Mapping[str, Callable[[PreTrainedModel], Iterator[nn.Parameter]]] = {
    "norms": _norms,
    "biases": _biases,
    "embeddings": _embeddings,
    "output": _output,
}
