"""The loss of held-out rows, of whatever model: each row alone, through the model's own forward, in one plain form.

    loss = sum of the losses of all trained tokens (or rows), each by its weight, over the sum of the weights

Nobody's own evaluation is used, so that what differs is what was learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from pegbox.data.records import Example


@torch.no_grad()
def held_out_loss(model: torch.nn.Module, rows: Sequence[Example]) -> float:
    """Nats a unit of weight."""
    model.eval()
    found = [_loss(model, row) for row in rows]
    return sum(loss for loss, _ in found) / sum(weight for _, weight in found)


def _loss(model: Any, row: Example) -> tuple[float, float]:
    """The row's summed loss and its weight."""
    ids = torch.tensor(row.input_ids, device=next(model.parameters()).device)[None]
    types = {"token_type_ids": torch.zeros_like(ids)} if row.token_type_ids else {}
    logits = model(input_ids=ids, **types).logits[0].double()
    if row.targets:
        return cross_entropy(logits, torch.tensor(int(row.targets[0]), device=ids.device)).item(), 1.0
    weights = torch.tensor(row.loss_weights[1:], device=ids.device, dtype=torch.float64)
    losses = cross_entropy(logits[:-1], ids[0, 1:], reduction="none")
    return (losses * weights).sum().item(), weights.sum().item()
