"""New tokens: the vocabulary grown, and their rows of the embeddings kept apart where nothing else of these learns.

A new token starts at the mean of the embeddings of the pieces that its text was cut into before (of all, where a tokenizer
drops it, as many do white space), so that a model that has
never seen it takes it for something like what it stands for (random rows begin far from all others). Tied weights stay tied.

Where the model's own weights are frozen, only the new rows may learn. They are a parameter [n, D] of their own, looked up
in the place of the frozen rows and, where the output layer is tied or has such rows, too, multiplied with in the place of
theirs. PEFT has the same as `trainable_token_indices`, with a copy of the whole matrix in each forward pass.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear
from transformers import AddedToken, PreTrainedModel, PreTrainedTokenizerBase

from pegbox.errors import RecipeError


def add(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]) -> None:
    """Give the tokenizer new tokens, each one piece wherever a text has it. Raises RecipeError for one that it has already.

    They are no special tokens in the sense of Transformers, which may stand in no row's text and are left out of answers.
    """
    known = tokenizer.get_vocab()
    if old := [token for token in tokens if token in known]:
        cure = "leave it away: the model knows it"
        raise RecipeError(f"the tokenizer has {', '.join(old)} already", where="model.add_tokens", cure=cure)
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in tokens])


def added(before: PreTrainedTokenizerBase, after: PreTrainedTokenizerBase) -> list[str]:
    """The tokens that `after` has and `before` has not, in the order of their ids."""
    ids = after.get_vocab()
    return sorted(ids.keys() - before.get_vocab().keys(), key=ids.__getitem__)


def grow(
    model: PreTrainedModel, before: PreTrainedTokenizerBase, after: PreTrainedTokenizerBase, *, apart: bool
) -> None:
    """Give the model a row for each token that `after` has and `before` has not; `apart`: they alone shall learn."""
    size, tokens = len(before), added(before, after)
    assert after.convert_tokens_to_ids(tokens) == list(range(size, size + len(tokens)))
    if size + len(tokens) > model.config.get_text_config().vocab_size:
        model.resize_token_embeddings(size + len(tokens), mean_resizing=False)
    pieces = [before.encode(token, add_special_tokens=False) for token in tokens]
    layers = _vocabulary_layers(model)
    with torch.no_grad():
        for weight in {id(module.weight): module.weight for module in layers.values()}.values():
            for row, ids in enumerate(pieces, start=size):
                weight[row] = (weight[ids] if ids else weight[:size]).mean(0)
    if apart:
        _part(model, layers, size, len(tokens))


def _vocabulary_layers(model: PreTrainedModel) -> dict[str, Any]:
    """The embedding of the model's input, its output layer where it has one, and all layers that share their weights."""
    named: list[Any] = [layer for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer]
    weights = {id(layer.weight) for layer in named}
    every = model.named_modules(remove_duplicate=False)
    layers = ((name, layer) for name, layer in every if isinstance(layer, nn.Embedding | nn.Linear))
    return {name: layer for name, layer in layers if id(layer.weight) in weights}


class NewRows(nn.Module):
    """A layer over the vocabulary whose rows from `first` on are a parameter of their own, `rows` [n, D]."""

    def __init__(self, base: nn.Module, rows: nn.Parameter, first: int) -> None:
        super().__init__()
        self.base, self.rows, self.first, self.training = base, rows, first, base.training

    @property
    def ids(self) -> list[int]:
        """The tokens whose rows these are."""
        return list(range(self.first, self.first + len(self.rows)))

    @property
    def weight(self) -> torch.Tensor:
        """The frozen weight [V, D], in which the new rows are what they were."""
        weight: torch.Tensor = self.base.weight  # type: ignore[assignment]
        return weight


class NewEmbeddings(NewRows):
    """An embedding. `ids` int64 [...] -> [..., D]."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """The frozen layer's vectors, and those of the new tokens."""
        own = copy.copy(self.base)  # whatever else the layer does (it may scale), it does to the new rows as well
        vars(own).update(_parameters={"weight": self.rows}, padding_idx=None)
        at, old = ids - self.first, self.base(ids)
        is_new = (at >= 0) & (at < len(self.rows))
        return torch.where(is_new[..., None], own(at.clamp(0, len(self.rows) - 1)).to(old.dtype), old)


class NewOutputs(NewRows):
    """An output layer. `x` [..., D] -> logits [..., V]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The frozen layer's logits, with those of the new tokens in their place."""
        logits, end = self.base(x), self.first + len(self.rows)
        bias: torch.Tensor | None = self.base.bias  # type: ignore[assignment]
        new = linear(x, self.rows.to(x.dtype), None if bias is None else bias[self.first : end])
        return torch.cat([logits[..., : self.first], new, logits[..., end:]], dim=-1)


def _part(model: PreTrainedModel, layers: Mapping[str, Any], first: int, count: int) -> None:
    """Put the new rows of each layer apart; layers that share a weight share them."""
    rows: dict[int, nn.Parameter] = {}
    for name, layer in layers.items():
        start = layer.weight.detach()[first : first + count]
        shared = rows.setdefault(id(layer.weight), nn.Parameter(start.to(torch.float32, copy=True)))
        kind = NewEmbeddings if isinstance(layer, nn.Embedding) else NewOutputs
        model.set_submodule(name, kind(layer, shared, first))


def new_rows(model: PreTrainedModel) -> dict[str, NewRows]:
    """The layers whose new rows were put apart, by name; of those that share them the first."""
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, NewRows)]
    first = {id(module.rows): name for name, module in reversed(found)}
    return {name: module for name, module in found if first[id(module.rows)] == name}


@torch.no_grad()
def join(model: PreTrainedModel) -> None:
    """Write the new rows into the weights that they belong to, and put the layers back."""
    every = list(model.named_modules(remove_duplicate=False))
    for name, module in [(name, module) for name, module in every if isinstance(module, NewRows)]:
        module.weight[module.first : module.first + len(module.rows)] = module.rows.to(module.weight.dtype)
        model.set_submodule(name, module.base)
