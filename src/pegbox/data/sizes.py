"""How long examples are, without reading them: of prepared rows it was written down, of others it is counted."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pegbox.data.records import Example
from pegbox.data.store import Stored


@dataclass(frozen=True)
class Sizes:
    """Of each example, int64 [n]: its `tokens`, the `room` it takes of a padded batch, the tokens that are `learnt`."""

    tokens: NDArray[np.int64]
    room: NDArray[np.int64]
    learnt: NDArray[np.int64]


class Tally:
    """The sizes of examples, taken as they come: 24 bytes of each."""

    def __init__(self) -> None:
        self._tokens, self._room, self._learnt = array("q"), array("q"), array("q")

    def see(self, example: Example) -> None:
        """Take note of one example."""
        self._tokens.append(len(example))
        self._room.append(example.room)
        self._learnt.append(len(example.loss_weights) - example.loss_weights.count(0.0))

    def columns(self) -> Mapping[str, NDArray[np.int64]]:
        """Those seen, by the names of `Sizes`."""
        return {
            "tokens": np.array(self._tokens, np.int64),
            "room": np.array(self._room, np.int64),
            "learnt": np.array(self._learnt, np.int64),
        }


def sizes_of(examples: Sequence[Example]) -> Sizes:
    """The sizes of examples, in their order."""
    if isinstance(examples, Stored) and examples.columns:
        return Sizes(**{name: column[examples.rows] for name, column in examples.columns.items()})
    tally = Tally()
    for example in examples:
        tally.see(example)
    return Sizes(**tally.columns())


def shared_beginning(examples: Iterable[Example]) -> int:
    """How many first tokens all examples have in common, leaving each one of its own; 0 of one alone. One is held at a time."""
    first: tuple[int, ...] = ()
    shared, count = 0, 0
    for count, example in enumerate(examples, start=1):
        ids = example.input_ids
        if count == 1:
            first, shared = ids, len(ids) - 1
        shared = min(shared, len(ids) - 1)
        if ids[:shared] != first[:shared]:
            shared = next(place for place in range(shared) if ids[place] != first[place])
        if shared <= 0:
            return 0
    return shared if count > 1 else 0
