"""The rows of a batch while they are answered: rows join and leave at any token, and each is computed as it is alone.

Every row's last token stands in the last column, so the distance of two of its tokens in columns is their distance in
positions (sliding windows count columns); positions count real tokens, and what stands before a row is masked. Rows that
join are computed together, padded on the left to the longest of them, and written next to where the others end
(`kernels.slots`); what is known of their first tokens (`Known`) is copied and not computed. What *all* rows begin with is
not even copied where the model's attention can be given it aside (`kernels.shared_attention`).

Where a pass of the model fails (no memory, an interrupt) the rows are as they were before it.

Shapes: n rows, m that join, S columns of the longest of those, R of them to compute, Hk key heads of width D, V the vocabulary.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import Cache, DynamicCache, PreTrainedModel

from pegbox import runtime
from pegbox.errors import first_line
from pegbox.kernels.shared_attention import Shared
from pegbox.kernels.slots import ROOM, Place, SlotCache
from pegbox.models.batch import at_least_float32, attends_only

KeysAndValues = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Known:
    """Keys and values [1, Hk, P, D] of each layer for the first P tokens of a row."""

    length: int = 0
    columns: KeysAndValues = field(default_factory=list)

    def between(self, start: int, end: int) -> KeysAndValues:
        """The columns of the tokens from `start` to `end`."""
        return [(keys[:, :, start:end], values[:, :, start:end]) for keys, values in self.columns]


log = logging.getLogger("pegbox")

NOTHING = Known()
SHARE = 0.25  # of the memory that is free


def batches(model: PreTrainedModel) -> bool:
    """True where keys and values are all that a model remembers, and rows padded on the left get what they get alone."""
    known = inspect.signature(model.forward).parameters
    return attends_only(model) and {"position_ids", "past_key_values", "logits_to_keep"} <= known.keys()


def read(model: PreTrainedModel, ids: Sequence[int], known: Known = NOTHING) -> Known:
    """What is known once the model has read the ids, whose first tokens are known; of sliding layers, too."""
    cache = DynamicCache()  # without the config, which would make sliding layers forget what lies outside the window
    for layer, (keys, values) in enumerate(known.columns):
        cache.update(keys, values, layer)
    given = torch.tensor([list(ids[known.length :])], device=model.device)
    positions = torch.arange(known.length, len(ids), device=model.device)[None]
    model(given, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
    layers: list[Any] = cache.layers  # by type they may be empty, or of another kind
    return Known(len(ids), [(layer.keys, layer.values) for layer in layers])


def affordable(model: PreTrainedModel, columns: int) -> int:
    """How many rows of so many columns memory has room for, at least one: in `SHARE` of what is free."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    column = 2 * config.num_hidden_layers * heads * width * model.dtype.itemsize
    return max(1, int(SHARE * runtime.available_memory(model.device) / (column * (columns + ROOM))))


def half(error: Exception, rows: int) -> int:
    """How many rows to go on with where memory had no room for so many.

    Raises the error where it is another, OutOfMemoryError where it was a single row.
    """
    if not runtime.is_out_of_memory(error):
        raise error
    if rows < 2:
        cure = "take another device, or a smaller model; a run goes on with `pegbox train --resume`"
        raise runtime.OutOfMemoryError(f"out of memory for a single row: {first_line(error)}", cure=cure)
    log.warning("out of memory for %d rows at once; half as many from here on", rows)
    return rows // 2


@dataclass
class Row:
    """A row: all of its token ids so far, what is known of the first of them, whose row it is, and what is `left`.

    `filled`: how many columns of its own are in the cache; `left`: how many more tokens may be said.
    """

    ids: list[int]
    index: int = 0
    left: int = 0
    known: Known = NOTHING
    filled: int = 0


class Rows:
    """The rows that are being answered. `aside`: what all rows begin with, handed to the attention and never copied."""

    def __init__(self, model: PreTrainedModel, slots: int, aside: Known = NOTHING) -> None:
        self.model, self.slots, self.aside = model, slots, aside
        self.live: list[Row] = []
        self.asked = 0  # rows of the last pass of the model, of all that are in the cache
        self.cache = SlotCache(slots)
        self.start = self.end = 0

    @property
    def free(self) -> int:
        """How many more rows may join."""
        return self.slots - len(self.live)

    def join(self, rows: Sequence[Row]) -> torch.Tensor:
        """The logits [m, V] behind rows that join, at least float32."""
        base, first = self.aside.length, len(self.live)
        self.asked = first + len(rows)
        own = [len(row.ids) - base for row in rows]
        given = max(len(row.ids) - max(row.known.length, base) for row in rows)
        size = max(own)
        self._make_room(size)
        at, begun = slice(first, first + len(rows)), self.end - given
        self.cache.clear(at, self.end)
        for place, row in enumerate(rows, start=first):
            if (copied := len(row.ids) - base - given) > 0:
                self.cache.fill(place, begun, row.known.between(base, base + copied))
        before = torch.tensor([size - count for count in own], device=self.model.device)[:, None]
        columns = torch.arange(size, device=self.model.device)[None]
        ids = [[0] * max(0, given - count) + row.ids[base:][-given:] for row, count in zip(rows, own, strict=True)]
        positions = base + (columns - before).clamp(min=0)[:, size - given :]
        logits = self._forward(ids, Place(at, self.end - size, begun), (columns >= before).long(), positions)
        self.live.extend(rows)
        for row, count in zip(rows, own, strict=True):
            row.filled = count
        self.start = self.end - max(row.filled for row in self.live)
        return logits

    def step(self) -> torch.Tensor:
        """The logits [n, V] behind the last token of each row, at least float32."""
        self.asked = len(self.live)
        if self.end == self.cache.capacity:
            self._move(self.end - self.start)
        filled = torch.tensor([row.filled for row in self.live], device=self.model.device)[:, None]
        width = self.end - self.start
        mask = torch.arange(width + 1, device=self.model.device)[None] >= width - filled
        place = Place(slice(0, len(self.live)), self.start, self.end)
        logits = self._forward([row.ids[-1:] for row in self.live], place, mask.long(), self.aside.length + filled)
        for row in self.live:
            row.filled += 1
        self.end += 1
        return logits

    def beside(self, places: Sequence[int], continued: Sequence[Sequence[int]]) -> torch.Tensor:
        """The logits [n, m, V] of tokens behind some rows, a row as often as it is named; the rows stay as they are."""
        size, width, device = max(map(len, continued)), self.end - self.start, self.model.device
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self.cache.columns(slice(None), self.start, self.end)):
            cache.update(keys[list(places)], values[list(places)], layer)
        filled = torch.tensor([self.live[place].filled for place in places], device=device)[:, None]
        seen = torch.arange(width + size, device=device)[None] >= width - filled
        ids = torch.tensor([[*row, *[0] * (size - len(row))] for row in continued], device=device)
        positions = self.aside.length + filled + torch.arange(size, device=device)[None]
        return at_least_float32(self._run(ids, cache, seen.long(), positions).logits)

    def _forward(self, ids: list[list[int]], place: Place, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The logits [n, V] of the last column. The columns given are in the cache then."""
        self.cache.place = place
        given = torch.tensor(ids, device=self.model.device)
        return at_least_float32(self._run(given, self.cache, mask, positions, logits_to_keep=1).logits[:, -1])

    def _run(self, ids: torch.Tensor, cache: Cache, mask: torch.Tensor, positions: torch.Tensor, **options: Any) -> Any:
        if self.aside.length:
            options["shared"] = Shared(self.aside.columns)
        places = {"attention_mask": mask, "position_ids": positions}
        return self.model(input_ids=ids, past_key_values=cache, use_cache=True, **places, **options)

    def leave(self, places: Sequence[int]) -> None:
        """Take rows out; the last rows move into their slots."""
        gone, left = set(places), len(self.live) - len(places)
        holes = [place for place in places if place < left]
        movers = [place for place in range(left, len(self.live)) if place not in gone]
        if holes:
            self.cache.put(movers, holes, self.start, self.end)
        for hole, mover in zip(holes, movers, strict=True):
            self.live[hole] = self.live[mover]
        del self.live[left:]
        self.start = self.end - max((row.filled for row in self.live), default=0)

    def columns(self, place: int) -> Known:
        """What is known of a row by now; views of the cache, which stay as they are."""
        filled = self.live[place].filled
        return Known(filled, self.cache.columns(slice(place, place + 1), self.end - filled, self.end))

    def _make_room(self, size: int) -> None:
        """See that so many columns lie before the one in which the rows end."""
        if size > self.end:
            self._move(max(size, self.end - self.start))

    def _move(self, to: int) -> None:
        """Let the rows end in column `to`, with room behind it; what no row uses any more is left behind."""
        self.cache.move(len(self.live), self.start, self.end, to=to)
        self.start, self.end = to - (self.end - self.start), to
