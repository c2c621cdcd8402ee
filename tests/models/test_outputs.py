"""Logits at the chosen places alone are those of the model's own forward, whatever its head is made of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM, LongformerConfig

from pegbox.data.records import Example
from pegbox.models.batch import pad
from pegbox.models.outputs import chosen_logits, learnt_logits
from tiny_masked import MASKED, SIZES, masked
from tiny_models import VOCABULARY, rows


def batch() -> Any:
    """Three rows of unequal length, of which some tokens have a weight; the last row has none."""
    weights = [(0.0, 1.0, 0.0, 0.5, 1.0), (1.0,) + (0.0,) * 7 + (1.0,), (0.0,) * 3]
    made = [
        Example(f"row {i}", ids, weight, token_labels=ids)
        for i, (ids, weight) in enumerate(zip(rows([5, 9, 3]), weights, strict=True))
    ]
    return pad(made, pad_id=0)


def gradients(model: Any, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    logits.logsumexp(-1).sum().backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def check_chosen_places_alone_are_the_same(model: Any) -> None:
    given = batch()
    whole, chosen = learnt_logits(model, given), chosen_logits(model, given)
    assert chosen.shape == (5, VOCABULARY)
    torch.testing.assert_close(chosen, whole, rtol=0, atol=1e-12)
    one, other = gradients(model, whole), gradients(model, chosen)
    assert one.keys() == other.keys()
    for name, gradient in one.items():
        torch.testing.assert_close(other[name], gradient, rtol=0, atol=1e-9, msg=name)


@pytest.mark.parametrize("name", MASKED)
def test_chosen_places_alone_have_the_logits_and_gradients_of_the_whole(name: str) -> None:
    check_chosen_places_alone_are_the_same(masked(name))


@pytest.mark.parametrize("name", MASKED)
def test_the_model_is_left_as_it_was(name: str) -> None:
    model = masked(name)
    modules, before = dict(model.named_modules()), model(input_ids=batch().input_ids).logits
    chosen_logits(model, batch())
    assert all(model.get_submodule(key) is module for key, module in modules.items())
    assert dict(model.named_modules()).keys() == modules.keys()
    assert torch.equal(model(input_ids=batch().input_ids).logits, before)


def test_a_base_model_with_outputs_of_its_own_is_served() -> None:
    config = LongformerConfig(**SIZES, attention_window=4)
    model, given = AutoModelForMaskedLM.from_config(config).double().eval(), batch()
    torch.testing.assert_close(chosen_logits(model, given), learnt_logits(model, given), rtol=0, atol=1e-12)


def test_the_check_sees_a_head_that_looks_at_other_places() -> None:
    model = masked("distilbert")
    model.activation = torch.nn.Softmax(dim=1)  # over the places of a text
    with pytest.raises(AssertionError):
        check_chosen_places_alone_are_the_same(model)
