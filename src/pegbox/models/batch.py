"""Examples as one batch of tensors, padded or packed, and the logits at the places that carry loss.

Next-token losses need no shifted label grid. A batch lists, for every token that is learnt, *where its prediction is
made* (`places`), what it is (`targets`) and what it weighs (`weights`). In a pack with a shared prefix the first token
of every suffix is predicted at the prefix's last place, and a trained token of the prefix is listed once per example.

Shapes: B rows of T tokens (a pack is one row), N learnt tokens, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel

from pegbox.data.records import Example
from pegbox.kernels.attention import Pack


@dataclass(frozen=True)
class Batch:
    """What a model is given.

    `input_ids` int64 [B, T]; `attention_mask` int64 [B, T] (none in a pack); `position_ids` int64 [B, T] (none where
    the model's own serve); `places` int64 [N], in the flattened [B * T]; `targets` int64 [N]; `weights` float [N];
    `labels` int64 [B] (-1 where the task has none).
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    position_ids: torch.Tensor | None
    places: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    labels: torch.Tensor
    token_type_ids: torch.Tensor | None = None
    layout: Pack | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        movable = (torch.Tensor, Pack)
        moved: dict[str, Any] = {name: v.to(device) for name, v in vars(self).items() if isinstance(v, movable)}
        return replace(self, **moved)

    @property
    def inputs(self) -> dict[str, Any]:
        """The keyword arguments of the model's forward."""
        if self.layout is not None:
            # a mask of four dimensions is taken as it is, so that the model builds none of [T, T] itself
            whole = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self.input_ids.device)
            return {
                "input_ids": self.input_ids,
                "position_ids": self.position_ids,
                "attention_mask": whole,
                "pack": self.layout,
            }
        given = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        if self.token_type_ids is not None:
            given["token_type_ids"] = self.token_type_ids
        return given


def pad(examples: Sequence[Example], pad_id: int) -> Batch:
    """One row an example, padded on the right."""
    size = max(len(example) for example in examples)
    input_ids = torch.full((len(examples), size), pad_id)
    attention_mask = torch.zeros_like(input_ids)
    token_types = torch.zeros_like(input_ids)
    for row, example in enumerate(examples):
        input_ids[row, : len(example)] = torch.tensor(example.input_ids)
        attention_mask[row, : len(example)] = 1
        if example.token_type_ids:
            token_types[row, : len(example)] = torch.tensor(example.token_type_ids)
    starts = [row * size for row in range(len(examples))]
    return Batch(
        input_ids,
        attention_mask,
        None,
        *_learnt(examples, [[start + t for t in range(len(e))] for start, e in zip(starts, examples, strict=True)]),
        labels=torch.tensor([example.label for example in examples]),
        token_type_ids=token_types if examples[0].token_type_ids else None,
    )


def pack(examples: Sequence[Example], *, share_prefix: bool) -> Batch:
    """All examples in one row without padding; the tokens that all begin with stand there once."""
    prefix = shared_prefix([example.input_ids for example in examples]) if share_prefix else 0
    ids = list(examples[0].input_ids[:prefix])
    positions = list(range(prefix))
    places = []
    for example in examples:
        start = len(ids) - prefix
        places.append([t if t < prefix else start + t for t in range(len(example))])
        ids += example.input_ids[prefix:]
        positions += range(prefix, len(example))
    return Batch(
        torch.tensor(ids)[None],
        None,
        torch.tensor(positions)[None],
        *_learnt(examples, places),
        labels=torch.tensor([example.label for example in examples]),
        layout=Pack.of(prefix, [len(example) - prefix for example in examples]),
    )


def shared_prefix(rows: Sequence[Sequence[int]]) -> int:
    """How many first tokens all rows have in common, leaving each row at least one of its own."""
    if len(rows) < 2:
        return 0
    low, high = min(map(tuple, rows)), max(map(tuple, rows))  # of sorted rows the first and the last differ earliest
    limit = min(len(row) for row in rows) - 1
    for index in range(limit):
        if low[index] != high[index]:
            return index
    return limit


def _learnt(
    examples: Sequence[Example], places: Sequence[Sequence[int]]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`places`, `targets`, `weights` of all tokens with a weight; `places[i][t]` is where token t of example i lies."""
    learnt = [
        (at[t - 1], example.input_ids[t], example.loss_weights[t])
        for example, at in zip(examples, places, strict=True)
        for t in range(1, len(example.loss_weights))
        if example.loss_weights[t] > 0
    ]
    if not learnt:
        return torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long), torch.empty(0)
    at, targets, weights = zip(*learnt, strict=True)
    return torch.tensor(at), torch.tensor(targets), torch.tensor(weights)


def learnt_logits(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The logits [N, V] at `batch.places`, computed by the model's own forward.

    In a pack only those are computed; a place that predicts for several examples is computed once.
    """
    if batch.layout is None:
        every: torch.Tensor = model(**batch.inputs, use_cache=False).logits
        return every.flatten(0, 1).index_select(0, batch.places)
    unique, where = torch.unique(batch.places, return_inverse=True)
    logits: torch.Tensor = model(**batch.inputs, use_cache=False, logits_to_keep=unique).logits[0]
    return logits if len(unique) == len(where) and bool((unique == batch.places).all()) else logits[where]


def attends_only(model: PreTrainedModel) -> bool:
    """True where causal attention alone mixes positions: no recurrent, convolutional or chunked layer.

    Only then may rows be packed or padded on the left; padding on the right never reaches a causal model's real tokens.
    """
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    return not model._is_stateful and kinds <= {"full_attention", "sliding_attention"}
