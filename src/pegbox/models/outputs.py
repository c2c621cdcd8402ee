"""What a model says at the places that are asked about, and at no other.

A model's own forward gives logits [B, T, V] for every token, though a text's answer, or BERT's 15 % of masked words, are all
that is learnt. Its head is a function of each place by itself, so the base model is run over all tokens, and the model's own
forward over the chosen hidden states alone: on a shallow copy of the model, in which the base model's outputs stand in the
base model's place. Nothing of the model itself is changed, and no head has to be known by name.

    hidden = base(ids) [B, T, D]        logits = forward with hidden at the places [1, N, D] -> [1, N, V]

Whether a model is made so is found out by `packing.enable_packing`; where it was not asked, the model's own forward serves.

Shapes: B rows of T tokens (a pack is one row), N learnt tokens, D of hidden states, V the vocabulary.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from pegbox.models.batch import Batch

Head = Callable[[torch.Tensor], torch.Tensor]


class _Computed(nn.Module):
    """Stands where a base model stood and gives what it has computed. It has its parts: some heads look there.

    A decoder inside of it gives the same: OPT's head calls that one.
    """

    def __init__(self, base: nn.Module, outputs: Any) -> None:
        super().__init__()
        self.outputs = outputs
        for name, child in base.named_children():
            self.add_module(name, _Computed(child, outputs) if name == "decoder" else child)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs, whatever is asked."""
        return self.outputs


def apart(model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, Head]:
    """The hidden states [B * T, D], and the head that makes logits [n, m, V] of such [n, m, D].

    For a model with a base model and a head of its own (no encoder-decoder).
    """
    base: Any = model.base_model
    assert base is not model and not model.config.is_encoder_decoder
    outputs = _computed(base, batch)

    def head(states: torch.Tensor) -> torch.Tensor:
        given = type(outputs)(**{**outputs, "last_hidden_state": states})
        if outputs.get("pooler_output") is not None:
            given["pooler_output"] = base.pooler(states)
        alone = copy.copy(model)
        alone._modules = {**model._modules, model.base_model_prefix: _Computed(base, given)}
        ids = batch.input_ids.new_zeros(states.shape[:2])
        logits: torch.Tensor = alone(input_ids=ids).logits
        return logits

    return outputs.last_hidden_state.flatten(0, 1), head


def learnt_logits(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The logits [N, V] at `batch.places`; of a padded batch computed by the model's own forward."""
    if batch.layout is None:
        every: torch.Tensor = model(**batch.inputs, use_cache=False).logits
        return every.flatten(0, 1).index_select(0, batch.places)
    return chosen_logits(model, batch)


def chosen_logits(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The logits [N, V] at `batch.places`, those of a place that predicts for several examples computed once."""
    states, head = apart(model, batch)
    unique, where = torch.unique(batch.places, return_inverse=True)
    logits = head(states.index_select(0, unique)[None])[0]
    return logits if len(unique) == len(where) and bool((unique == batch.places).all()) else logits[where]


def hidden_states(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The last hidden states [B * T, D] of the model without its head; of an encoder-decoder those of its encoder."""
    trunk: Any = model.get_encoder() if model.config.is_encoder_decoder else model.base_model
    states: torch.Tensor = _computed(trunk, batch).last_hidden_state
    return states.flatten(0, 1)


def _computed(base: nn.Module, batch: Batch) -> Any:
    """The base model's outputs, without keys and values for tokens to come where it would keep them."""
    kept = {"use_cache": False} if "use_cache" in inspect.signature(base.forward).parameters else {}
    given = batch.inputs
    if batch.layout is not None:
        given["position_ids"] = given["position_ids"] + _first_position(base)
    return base(**given, **kept)


def _first_position(base: nn.Module) -> int:
    """Where a model begins to count: RoBERTa and its like behind the position that stands for padding."""
    embeddings: Any = getattr(base, "embeddings", None)
    return embeddings.padding_idx + 1 if hasattr(embeddings, "create_position_ids_from_input_ids") else 0


def whole_text_logits(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The outputs [B, K] of a head on whole texts.

    A decoder is pooled at the last token of each row, wherever it lies: in a pack, or before padding on the right.
    Transformers looks for the last token that is not padding, which fails in a pack and where a text ends in that token.
    An encoder's head looks at the first token of each row.
    """
    score = dict(model.named_children()).get("score")  # the name that Transformers gives the head of every decoder
    if score is not None:
        pooled: torch.Tensor = score(hidden_states(model, batch)[batch.ends])
        return pooled
    if batch.layout is None:
        logits: torch.Tensor = model(**batch.inputs).logits
        return logits
    states, head = apart(model, batch)
    return head(states[batch.starts][:, None])
