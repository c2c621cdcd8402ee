"""The loss chunk by chunk is the loss of all logits at once, and so are all gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from pegbox.methods import lora
from pegbox.models import token_loss as chunked
from pegbox.models.batch import Batch, at_least_float32, pack
from pegbox.models.outputs import learnt_logits
from pegbox.models.packing import enable_packing
from pegbox.models.token_loss import token_loss
from pegbox.recipe import CrossEntropy, Focal, Lora
from pegbox.tasks import losses
from tiny_models import examples, tiny


def squared(outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A loss of the user's own, which sees every logit."""
    return ((outputs.square().sum(1) + outputs[:, 0] * targets) * weights).sum(), weights.sum()


CRITERIA: dict[str, Any] = {
    "cross-entropy": losses.build(CrossEntropy(label_smoothing=0.1)),
    "focal": losses.build(Focal()),
    "one's own": losses.build(squared),
}
# llama's head is a matrix of its own, gpt2's is the embeddings, opt's lies behind a decoder in the base model
MODELS: dict[str, Callable[[], Any]] = {
    name: partial(tiny, name, dtype=torch.float64, **quiet)
    for name, quiet in {
        "llama": {},
        "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
        "opt": {"dropout": 0.0},
    }.items()
}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of seven places, so that an update has many and the last is short."""
    monkeypatch.setattr(chunked, "_at_once", lambda model: 7)


def batch(*, share_prefix: bool = True) -> Batch:
    """A pack of rows whose order is not that of their lengths; trained tokens that they share count once for each row."""
    return pack(examples([5, 1, 9, 9, 3], prefix=12, untrained=4), share_prefix=share_prefix)


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    (0.5 * loss).backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def check_chunks_are_the_whole(model: Any, criterion: Any, *, share_prefix: bool = True) -> None:
    """Loss, weight and every gradient are those of all logits at once; so is the loss alone, where nothing learns."""
    given = batch(share_prefix=share_prefix)
    whole, weight = criterion(at_least_float32(learnt_logits(model, given)), given.targets, given.weights)
    loss, loss_weight = token_loss(model, given, criterion)
    assert loss_weight == pytest.approx(float(weight), rel=1e-12)
    torch.testing.assert_close(loss, whole, rtol=1e-10, atol=0)
    wanted, found = gradients(model, whole), gradients(model, loss)
    assert wanted.keys() == found.keys() and wanted
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-10, msg=name)
    with torch.no_grad():
        torch.testing.assert_close(token_loss(model, given, criterion)[0], whole, rtol=1e-10, atol=0)


def packing(name: str) -> Any:
    model = MODELS[name]()
    assert enable_packing(model, examples([5, 9]))
    return model


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("share_prefix", [False, True])
def test_the_loss_by_chunks_is_the_loss_of_all_logits(name: str, criterion: str, share_prefix: bool) -> None:
    check_chunks_are_the_whole(packing(name), CRITERIA[criterion], share_prefix=share_prefix)


def test_a_frozen_head_gets_no_gradient_and_hands_it_down() -> None:
    model = packing("llama")
    lora.prepare(model, Lora(r=2, target_modules=("q_proj",)), seed=0)
    check_chunks_are_the_whole(model, CRITERIA["cross-entropy"])


def test_the_head_alone_may_learn() -> None:
    model = packing("llama")
    model.model.requires_grad_(False)
    check_chunks_are_the_whole(model, CRITERIA["cross-entropy"])


def test_no_logits_of_all_tokens_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = packing("llama"), []
    model.lm_head.register_forward_hook(lambda module, args, out: seen.append(out.shape[1]))
    token_loss(model, batch(), CRITERIA["cross-entropy"])
    assert max(seen) == 7 and sum(seen) == len(batch().places.unique())


def test_a_chunk_is_as_large_as_memory_for_its_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    model = packing("llama")
    assert chunked._at_once(model) == chunked.CHUNK_BYTES // (4 * model.config.vocab_size)
    model.config.vocab_size = 10**9
    assert chunked._at_once(model) == chunked.LEAST_PLACES


def test_the_check_sees_a_head_whose_gradient_is_that_of_the_last_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked, "_added", lambda old, new: new)
    with pytest.raises(AssertionError):
        check_chunks_are_the_whole(packing("llama"), CRITERIA["cross-entropy"])


def test_the_check_sees_targets_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    unsorted = torch.Tensor.sort
    monkeypatch.setattr(
        torch.Tensor, "sort", lambda self, **asked: (unsorted(self, **asked)[0], torch.arange(len(self)))
    )
    with pytest.raises(AssertionError):
        check_chunks_are_the_whole(packing("llama"), CRITERIA["cross-entropy"], share_prefix=False)


def test_the_check_sees_a_tied_head_that_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked, "_head_weights", lambda model: [])
    with pytest.raises(AssertionError):
        check_chunks_are_the_whole(packing("gpt2"), CRITERIA["cross-entropy"])
