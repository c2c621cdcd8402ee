"""The logits of a masked language model at the places that carry loss, and at no other.

A model's own forward gives logits [B, T, V] for every token, though BERT's objective learns 15 % of them, and scoring a
text one token at a time needs a single one. With a vocabulary of 30,000 that head is half of a small encoder's work.
Its head is a function of each place by itself, so the model's own forward is run over the chosen places alone, on a
shallow copy of the model in which the base model's outputs stand in the base model's place. Nothing of the model itself
is changed, and no head has to be known by name.

    hidden = base(ids) [B, T, D]        logits = forward with hidden at the places [1, N, D] -> [1, N, V]
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from pegbox.models.batch import Batch


class _Computed(nn.Module):
    """Stands where a base model stood and gives what it has computed. It has its parts: some heads look there."""

    def __init__(self, base: nn.Module, outputs: Any) -> None:
        super().__init__()
        self.outputs = outputs
        for name, child in base.named_children():
            self.add_module(name, child)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs, whatever is asked."""
        return self.outputs


def masked_logits(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The logits [N, V] at `batch.places`, of a model with a base model and a head of its own (no encoder-decoder)."""
    base = model.base_model
    assert base is not model and not model.config.is_encoder_decoder
    outputs = base(**batch.inputs)
    outputs["last_hidden_state"] = outputs.last_hidden_state.flatten(0, 1).index_select(0, batch.places)[None]
    head = copy.copy(model)
    head._modules = {**model._modules, model.base_model_prefix: _Computed(base, outputs)}
    logits: torch.Tensor = head(input_ids=batch.input_ids.flatten()[batch.places][None]).logits
    return logits[0]
