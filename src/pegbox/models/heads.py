"""Which weights of a model are its head: new ones, that a task adds and trains, apart from those of the checkpoint."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel


def is_head(model: PreTrainedModel, name: str) -> bool:
    """True for a weight or module between the base model and a task's answer: beside the base model, or its pooler.

    A language model's output layer is none, for it comes with the checkpoint; only that of an encoder may be new.
    """
    if model.base_model is model or _comes_along(model):
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
