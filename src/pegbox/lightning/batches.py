"""What the loaders yield: the examples of one update (or some validation rows), this rank's share of them.

The loaders are no DataLoaders. Which rows an update has follows from its number, so no sampler may cut it otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch

from pegbox.data.records import Example
from pegbox.models.batch import Batch
from pegbox.ready import Ready
from pegbox.runtime import Ranks
from pegbox.training.gradient import micro_batches

T = TypeVar("T")


@dataclass(frozen=True)
class UpdateBatch:
    """This rank's share of the examples that go together, and the names of the rows of all ranks.

    `step`: the number of the update, from 0; -1 for validation rows.
    """

    step: int
    rows: tuple[str, ...]
    micro_batches: tuple[Batch, ...]

    def to(self, device: torch.device) -> UpdateBatch:
        """The batch on a device."""
        return replace(self, micro_batches=tuple(batch.to(device) for batch in self.micro_batches))


def share(ready: Ready, step: int, examples: Sequence[Example], ranks: Ranks) -> UpdateBatch:
    """This rank's share of the examples, cut into micro-batches as the plan says."""
    mine = examples[ranks.share(len(examples))]
    rows = tuple(example.where for example in examples)
    return UpdateBatch(step, rows, tuple(micro_batches(ready.task, ready.plan, mine, step)))


def share_of_group(ready: Ready, index: int, examples: Sequence[Example], ranks: Ranks) -> UpdateBatch:
    """This rank's share of validation rows; of a joint task the ranks take turns, and one has the whole group."""
    if ready.task.joint:
        rows = tuple(example.where for example in examples)
        mine = examples if index % ranks.world == ranks.rank else []
        return UpdateBatch(-1, rows, tuple(micro_batches(ready.task, ready.plan, mine, -1)))
    return share(ready, -1, examples, ranks)


class Loader(Generic[T]):
    """`length` batches, made when they are asked for. (A list Lightning takes for as many loaders.)"""

    def __init__(self, length: int, make: Callable[[int], T]) -> None:
        self.length, self.make = length, make

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[T]:
        return map(self.make, range(self.length))


class ResumedLoader(Loader[T]):
    """The same from a number on that is asked for when the first batch is: an epoch goes on where a checkpoint stopped."""

    def __init__(self, length: int, make: Callable[[int], T], first: Callable[[], int]) -> None:
        super().__init__(length, make)
        self.first = first

    def __iter__(self) -> Iterator[T]:
        first = self.first()
        yield from map(self.make, range(first, first + self.length))

    def state_dict(self) -> dict[str, int]:
        """Tells Lightning that this loader can be resumed."""
        return {"first": self.first()}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Nothing to do: whoever tells `first` has been put back already."""
        assert state["first"] == self.first()
