"""Which weights of a model are its head: new ones, that a task adds and trains, apart from those of the checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from transformers import PreTrainedModel

from pegbox.models.new_tokens import new_rows


def is_bare(model: PreTrainedModel) -> bool:
    """True for a model that ends at its hidden states. (T5's that writes is its own base model.)"""
    return model.base_model is model and output_layer(model) is None


def is_head(model: PreTrainedModel, name: str) -> bool:
    """True for a weight or module between the base model and a task's answer: beside the base model, or its pooler.

    A language model's output layer is none, for it comes with the checkpoint; only that of an encoder may be new.
    """
    if is_bare(model) or _comes_along(model):
        return False
    inside, _, rest = name.partition(".")
    return inside != model.base_model_prefix or rest.split(".")[0] == "pooler"


def _comes_along(model: PreTrainedModel) -> bool:
    """True for a language model whose output layer the checkpoint has, by the class that it was saved by."""
    if output_layer(model) is None:
        return False
    return model.can_generate() or type(model).__name__ in (model.config.architectures or ())


def head_weights(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """The weights of new heads, each once, by name; without those that are the base model's, too (tied embeddings)."""
    every = list(model.named_parameters(remove_duplicate=False))
    base = {id(weight) for name, weight in every if not is_head(model, name)}
    return {name: weight for name, weight in model.named_parameters() if id(weight) not in base}


def output_layer(model: PreTrainedModel) -> nn.Module | None:
    """The layer from hidden states to the vocabulary; none where the model has another head."""
    layer: nn.Module | None = model.get_output_embeddings()
    return layer


def new_heads(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The modules between the base model and a task's answer, which learn whole (PEFT's `modules_to_save`), by name."""
    return {name: part for name, part in new_parts(model) if isinstance(part, nn.Module)}


def loose_weights(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Weights of new heads beside a tied one, which no such module can hold: the bias of an output layer, by name."""
    found = [(name, part) for name, part in new_parts(model) if isinstance(part, nn.Parameter)]
    once = {id(weight): name for name, weight in reversed(found)}  # of a bias with two names the first
    return {name: weight for name, weight in found if once[id(weight)] == name}


def new_parts(model: PreTrainedModel) -> Iterator[tuple[str, nn.Module | nn.Parameter]]:
    """What is new and learns, in as large parts as can be: heads, and the rows of new tokens that were put apart.

    The output layer of an encoder is tied to its embeddings: that weight is the base model's, stays as it is, and is
    saved nowhere else (INVARIANTS 20, 21), so the parts beside it are taken.
    """
    inside = ((f"{model.base_model_prefix}.{name}", child) for name, child in model.base_model.named_children())
    own = {id(weight) for weight in head_weights(model).values()}
    for name, child in dict((*model.named_children(), *inside)).items():
        if is_head(model, name):
            yield from _own_parts(name, child, own)
    yield from ((f"{name}.rows", layer.rows) for name, layer in new_rows(model).items())


def _own_parts(name: str, module: nn.Module, own: set[int]) -> Iterator[tuple[str, nn.Module | nn.Parameter]]:
    """The module where all its weights are among its `own` (ids), else such parts of it."""
    weights = {id(weight) for weight in module.parameters()}
    if weights and weights <= own:
        yield name, module
    elif weights & own:
        beside = module.named_parameters(recurse=False)
        yield from ((f"{name}.{inner}", weight) for inner, weight in beside if id(weight) in own)
        for inner, child in module.named_children():
            yield from _own_parts(f"{name}.{inner}", child, own)


def let_new_parts_learn(model: PreTrainedModel) -> None:
    """Let what is new learn, in at least float32, whatever the base is held in: smaller updates would be lost."""
    for _, part in new_parts(model):
        part.requires_grad_(True)
        for weight in [part] if isinstance(part, nn.Parameter) else part.parameters():
            weight.data = weight.data.to(torch.promote_types(weight.dtype, torch.float32))
