"""Examples as one batch of tensors, padded or packed.

Losses over tokens need no shifted label grid. A batch lists, for every token that is learnt, *where its prediction is
made* (`places`), what it is (`targets`) and what it weighs (`weights`): the place before it for a next-token loss, its
own place for a label. In a pack the first token behind a shared segment is predicted at that segment's last place, and a
trained token of the segment is listed once for each example that shares it.

Shapes: B rows of T tokens (a pack is one row), N learnt tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel

from pegbox import runtime
from pegbox.data.records import Example
from pegbox.errors import first_line
from pegbox.kernels.pack import Pack, Run
from pegbox.models.prefix_tree import lay_out

log = logging.getLogger("pegbox")


@dataclass(frozen=True)
class Batch:
    """What a model is given.

    `input_ids` int64 [B, T]; `attention_mask` int64 [B, T] (none in a pack); `position_ids` int64 [B, T] (none where
    the model's own serve); `places` int64 [N], in the flattened [B * T]; `targets` int64 [N]; `weights` float [N];
    `labels` float64 [B, K], the targets of whole rows; `starts` and `ends` int64 [B], the places of each row's first and last
    token; `roles` and `keys` int64 [B]: what a text is in its example, where that has several, and a number that only equal texts share.
    `target_ids` int64 [B, U]: what a decoder of its own writes (`places` are of these then).
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    position_ids: torch.Tensor | None
    places: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    labels: torch.Tensor
    starts: torch.Tensor
    ends: torch.Tensor
    token_type_ids: torch.Tensor | None = None
    layout: Pack | None = None
    roles: torch.Tensor | None = None
    keys: torch.Tensor | None = None
    target_ids: torch.Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        moved: dict[str, Any] = {name: v.to(device) for name, v in vars(self).items() if isinstance(v, torch.Tensor)}
        return replace(self, **moved)

    @property
    def shares(self) -> bool:
        """Whether some tokens stand for several rows."""
        return self.layout is not None and bool(self.layout.shared)

    @property
    def inputs(self) -> dict[str, Any]:
        """The keyword arguments of the model's forward."""
        given: dict[str, Any] = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        if self.token_type_ids is not None:
            given["token_type_ids"] = self.token_type_ids
        if self.layout is not None:
            # a mask of four dimensions is taken as it is, so that the model builds none of [T, T] itself
            whole = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self.input_ids.device)
            given |= {"attention_mask": whole, "position_ids": self.position_ids, "pack": self.layout}
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
        labels=_labels(examples),
        starts=torch.tensor(starts),
        ends=torch.tensor([start + len(example) - 1 for start, example in zip(starts, examples, strict=True)]),
        token_type_ids=token_types if examples[0].token_type_ids else None,
    )


def pack(examples: Sequence[Example], *, share_prefix: bool, multiple: int = 1) -> Batch:
    """All examples in one row without padding; with `share_prefix` what several of them begin with stands there once.

    Behind them stand as many tokens of no example as make T a `multiple`.
    """
    laid = lay_out([example.input_ids for example in examples], share=share_prefix)
    if filling := -len(laid.ids) % multiple:
        laid.runs.append(Run(laid.add([0] * filling, []), 1, filling))
    layout, types = laid.pack, torch.zeros(1, len(laid.ids), dtype=torch.long)
    for example, places in zip(examples, laid.places, strict=True):
        if example.token_type_ids:
            types[0, places] = torch.tensor(example.token_type_ids)
    return Batch(
        torch.tensor(laid.ids)[None],
        None,
        layout.positions()[None],
        *_learnt(examples, laid.places),
        labels=_labels(examples),
        ends=torch.tensor([places[-1] for places in laid.places]),
        starts=torch.tensor([places[0] for places in laid.places]),
        token_type_ids=types if examples[0].token_type_ids else None,
        layout=layout,
    )


def _learnt(
    examples: Sequence[Example], places: Sequence[Sequence[int]]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`places`, `targets`, `weights` of all tokens with a weight; `places[i][t]` is where token t of example i lies."""
    learnt = [found for pair in zip(examples, places, strict=True) for found in _learnt_of(*pair)]
    if not learnt:
        return torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long), torch.empty(0)
    at, targets, weights = zip(*learnt, strict=True)
    return torch.tensor(at), torch.tensor(targets), torch.tensor(weights)


def _learnt_of(example: Example, at: Sequence[int]) -> Iterator[tuple[int, int, float]]:
    if example.token_labels:
        found = zip(at, example.token_labels, example.loss_weights, strict=True)
    else:
        found = zip(at, example.input_ids[1:], example.loss_weights[1:], strict=False)
    return ((place, target, weight) for place, target, weight in found if weight > 0)


def _labels(examples: Sequence[Example]) -> torch.Tensor:
    return torch.tensor([example.targets for example in examples], dtype=torch.float64)


def on_rows_of_like_length(rows: Sequence[Sized], at_once: int, action: Callable[[list[int]], None]) -> None:
    """Do something with the indices of all rows, the shortest first, at most `at_once` of them: so that little is padded.

    Where memory has no room for so many, it is done with each half of them. Raises OutOfMemoryError for a single row.
    """
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    for start in range(0, len(order), at_once):
        _as_memory_allows(order[start : start + at_once], action)


def _as_memory_allows(chosen: list[int], action: Callable[[list[int]], None]) -> None:
    try:
        action(chosen)
        return
    except Exception as error:
        if not runtime.is_out_of_memory(error):
            raise
        said = first_line(error)
    runtime.release_memory()
    if len(chosen) == 1:
        cure = "take another device, or a smaller model; a run goes on with `pegbox train --resume`"
        raise runtime.OutOfMemoryError(f"out of memory for a single row: {said}", cure=cure)
    log.warning("out of memory for %d rows at once; each half of them by itself", len(chosen))
    half = len(chosen) // 2
    _as_memory_allows(chosen[:half], action)
    _as_memory_allows(chosen[half:], action)


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Half-precision values as float32: what a loss is computed in. float64 stays."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def attends_only(model: PreTrainedModel) -> bool:
    """True where causal attention alone mixes positions: no recurrent, convolutional or chunked layer.

    Only then may rows be packed or padded on the left; padding on the right never reaches a causal model's real tokens.
    """
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    return not model._is_stateful and kinds <= {"full_attention", "sliding_attention"}
