"""What everybody is given: the same rows in the same order, in tokens, and the same weights to start from.

How it is made stands in `prepared`; whoever reads it imports nothing of pegbox but the shape of an example.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pegbox.data.records import Example
from pegbox.models.prefix_tree import shared_prefix

START, ROWS = "start", "rows.json"
Row = dict[str, Any]  # as Transformers' models take it


@dataclass(frozen=True)
class Given:
    """What a peer is given.

    `base`: the folder of the untouched model; `start`: of the weights to start from; `updates`: the rows of each update;
    `held_out`: those that the loss afterwards is taken of; `labels`: how many labels there are; `packs`:
    the packs of all updates, one update behind another.
    """

    base: Path
    start: Path
    updates: list[list[Example]]
    held_out: list[Example]
    labels: int
    packs: list[Row]

    @property
    def tokens(self) -> list[int]:
        """The tokens of each update, without padding."""
        return [sum(map(len, update)) for update in self.updates]


def given(folder: Path) -> Given:
    """What was prepared."""
    found = json.loads((folder / ROWS).read_text(encoding="utf-8"))
    updates = [[_example(row) for row in update] for update in found["updates"]]
    held_out = [_example(row) for row in found["held_out"]]
    return Given(Path(found["base"]), folder / START, updates, held_out, found["labels"], found["packs"])


def about(found: Given) -> dict[str, Any]:
    """What the rows are like: tokens, what padding would add to eight rows, and how much all begin with."""
    every = [row for update in found.updates for row in update]
    return {
        "rows": len(every),
        "tokens_per_update": sum(found.tokens) / len(found.tokens),
        "tokens_per_row": sum(map(len, every)) / len(every),
        "learnt_per_update": sum(row.weight for row in every) / len(found.updates),
        "share_not_padding": _share_not_padding(every, 8),
        "shared_prefix": shared_prefix([row.input_ids for row in every]),
    }


def row(example: Example) -> Row:
    """What Transformers' models take: a token that is not trained has the label -100, and so has the first."""
    types = {"token_type_ids": list(example.token_type_ids)} if example.token_type_ids else {}
    if example.targets:
        return {"input_ids": list(example.input_ids), "labels": int(example.targets[0]), **types}
    pairs = zip(example.input_ids[1:], example.loss_weights[1:], strict=True)
    return {"input_ids": list(example.input_ids), "labels": [-100, *(id if weight else -100 for id, weight in pairs)]}


def _share_not_padding(every: Sequence[Example], size: int) -> float:
    parts = [every[start : start + size] for start in range(0, len(every), size)]
    return sum(map(len, every)) / sum(len(part) * max(map(len, part)) for part in parts)


def told(example: Example) -> dict[str, Any]:
    """An example as JSON."""
    return {
        "input_ids": example.input_ids,
        "loss_weights": example.loss_weights,
        "targets": example.targets,
        "token_type_ids": example.token_type_ids,
    }


def _example(told: dict[str, Any]) -> Example:
    return Example(
        "",
        *(tuple(told[name]) for name in ("input_ids", "loss_weights", "targets")),
        token_type_ids=tuple(told["token_type_ids"]),
    )
