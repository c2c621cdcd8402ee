"""The seam of the tasks. The same object serves training and evaluation.

A task says what a row is (`encode`), which head the model has, what the loss is, how to predict, and by which numbers
it is judged. The loop knows nothing of all this but `collate` and `update_loss`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from pegbox.data.records import Example, Record
from pegbox.data.render import Renderer
from pegbox.models.batch import Batch

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Predictions:
    """One answer a row, in the user's own terms; how many hung on less than rounding (see models.generation), and how
    many examples stood in front of each question."""

    answers: tuple[Any, ...]
    close: int = 0
    shots: int = 0


class Task(ABC):
    """One kind of task; a file and a row in the table. `head` is a key of `models.load.HEADS`."""

    kind: str
    head: str
    metrics: tuple[str, ...]
    zero_shot = True  # the untouched model can be asked, with and without examples
    permutes = True  # an answer can be given to another row, so that knowing only the form of answers can be priced

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of a new head's classes, in the order of its outputs; empty where the task adds no head."""
        return ()

    def observe(self, records: Sequence[Record]) -> None:  # noqa: B027, most tasks have nothing to find out
        """See all records once before any is encoded: label names, which form the rows have. Raises DataError."""

    def state(self) -> dict[str, Any]:
        """What `observe` found out, for the receipt."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Take over what `state` told of an earlier run."""

    @abstractmethod
    def encode(self, record: Record) -> Example:
        """The record in tokens. Raises ValueError, saying why, where the record cannot be learnt."""

    @abstractmethod
    def collate(self, examples: Sequence[Example], *, packed: bool, share_prefix: bool) -> Batch:
        """The examples of one micro-batch as tensors."""

    @abstractmethod
    def loss(self, model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, float]:
        """The loss *summed* over the batch (a scalar with a gradient) and the weight that it sums over."""

    def update_loss(
        self, model: PreTrainedModel, micro_batches: Sequence[Batch], backward: Callable[[torch.Tensor], None]
    ) -> tuple[float, float]:
        """The loss and weight of a whole update, `backward` called on every part.

        An objective that couples the rows of an update (in-batch negatives) overrides this.
        """
        total, weight = 0.0, 0.0
        for batch in micro_batches:
            part, part_weight = self.loss(model, batch)
            backward(part)
            total, weight = total + part.item(), weight + part_weight
        return total, weight

    @abstractmethod
    def primary(self, train: Sequence[Record]) -> str:
        """The metric of the verdict where the recipe names none; fixed before training, from the training rows."""

    @abstractmethod
    def shown(self, record: Record) -> str:
        """The input of a row, as a person reads it."""

    @abstractmethod
    def reference(self, record: Record) -> Any:
        """The right answer of a row, in the user's own terms."""

    def said(self, ids: Sequence[int], *, whole: bool = True) -> str:
        """The text of ids that a model generated; `whole=False`: as far as no id behind them can change it."""
        return self.renderer.answer(ids, whole=whole)

    @abstractmethod
    def predict(
        self,
        model: PreTrainedModel,
        records: Sequence[Record],
        *,
        shots: Sequence[Record] = (),
        max_new_tokens: int,
        advance: Advance = lambda rows: None,
    ) -> Predictions:
        """The model's answers; `shots` are rows of train shown to it first (where `zero_shot`)."""

    def prompt_length(self, record: Record, shots: Sequence[Record]) -> int:
        """The tokens that the model is given when a row is asked behind the shots."""
        return len(self.encode(record))

    @abstractmethod
    def trivial(self, train: Sequence[Record], test: Sequence[Record]) -> Predictions:
        """The best answers that need no look at the input: majority, mean, most frequent."""

    def rivals(
        self, base: PreTrainedModel, train: Sequence[Record], test: Sequence[Record], seed: int
    ) -> Mapping[str, Predictions]:
        """Other systems that a fine-tuned model should beat, by their name in the contract."""
        return {}

    def longest_answer(self, train: Sequence[Example]) -> int:
        """The number of tokens of the longest answer in train; sets `max_new_tokens` where the recipe does not."""
        return max(sum(weight > 0 for weight in example.loss_weights) for example in train)
