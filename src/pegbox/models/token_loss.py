"""The loss of a batch's learnt tokens, a chunk of them at a time, so that no logits [N, V] are ever held as a whole.

A row of 4,096 learnt tokens and a vocabulary of 128,000 make 2 GB of logits, their softmax and its gradient as much again.
Here each chunk's logits are made, summed up and differentiated before the next chunk's; what is kept is the gradient of the
hidden states [N, D] and of the head's own weights. Any head and any loss that sums over tokens: both are called as they are.

    forward    L = sum_c loss(head(h_c))        dL/dh_c and dL/dW at once
    backward   times what comes from above

(The head's part of Hsu et al. 2024, arXiv 2410.10989, by autograd in place of a kernel for one head and one loss.)

Shapes: N learnt tokens, D of hidden states, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from pegbox.models.batch import Batch, at_least_float32
from pegbox.models.outputs import apart

CHUNK_BYTES = 128 * 2**20  # of float32 logits
LEAST_PLACES = 256  # fewer make thin products

Criterion = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, float]]
Part = Callable[[torch.Tensor], tuple[torch.Tensor, float]]


def token_loss(model: PreTrainedModel, batch: Batch, criterion: Criterion) -> tuple[torch.Tensor, float]:
    """The criterion's sum over `batch.places` (a scalar with a gradient) and its weight.

    For a model that has a base model and a head of its own, as every one has that packs.
    """
    every, head = apart(model, batch)
    places, where = torch.unique(batch.places, return_inverse=True)
    states = every.index_select(0, places).split(_at_once(model))
    where, order = where.sort(stable=True)

    def part_of(first: int, count: int) -> Part:
        mine = (where >= first) & (where < first + count)
        at, targets, weights = where[mine] - first, batch.targets[order[mine]], batch.weights[order[mine]]

        def part(states: torch.Tensor) -> tuple[torch.Tensor, float]:
            logits = at_least_float32(head(states[None])[0])
            return criterion(logits if len(at) == count else logits.index_select(0, at), targets, weights)

        return part

    parts = [part_of(index * len(states[0]), len(chunk)) for index, chunk in enumerate(states)]
    weights = [weight for weight in _head_weights(model) if weight.requires_grad]
    if not torch.is_grad_enabled() or not (every.requires_grad or weights):
        found = [part(chunk) for part, chunk in zip(parts, states, strict=True)]
        return torch.stack([loss for loss, _ in found]).sum(), sum(weight for _, weight in found)
    total: list[float] = []
    loss: torch.Tensor = _Parts.apply(parts, total, len(states), *states, *weights)  # type: ignore[no-untyped-call]
    return loss, sum(total)


def _at_once(model: PreTrainedModel) -> int:
    """How many places one chunk has."""
    return max(LEAST_PLACES, CHUNK_BYTES // (4 * int(model.config.get_text_config().vocab_size)))


def _head_weights(model: PreTrainedModel) -> list[nn.Parameter]:
    """The weights between the base model and the logits, those among them that are the base model's, too (tied)."""
    children = dict(model.named_children())
    children.pop(model.base_model_prefix)
    inside = [weight for child in children.values() for weight in child.parameters()]
    return list({id(weight): weight for weight in (*inside, *model.parameters(recurse=False))}.values())


class _Parts(torch.autograd.Function):
    """The sum of the parts' losses; all gradients are made on the way forward."""

    @staticmethod
    def forward(
        ctx: Any, parts: Sequence[Part], total: list[float], chunks: int, *tensors: torch.Tensor
    ) -> torch.Tensor:
        states, weights = tensors[:chunks], tensors[chunks:]
        losses, d_states = [], []
        d_weights: list[torch.Tensor | None] = [None] * len(weights)
        for part, chunk in zip(parts, states, strict=True):
            with torch.enable_grad():
                given = chunk.detach().requires_grad_()
                loss, weight = part(given)
            found = torch.autograd.grad(loss, [given, *weights], allow_unused=True)
            d_states.append(found[0])
            d_weights = [_added(old, new) for old, new in zip(d_weights, found[1:], strict=True)]
            losses.append(loss.detach())
            total.append(weight)
        ctx.found = (*d_states, *d_weights)
        return torch.stack(losses).sum()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (None, None, None, *(None if made is None else made * grads[0] for made in ctx.found))


def _added(old: torch.Tensor | None, new: torch.Tensor | None) -> torch.Tensor | None:
    return new if old is None else old if new is None else old.add_(new)
