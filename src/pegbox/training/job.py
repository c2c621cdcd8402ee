"""What a training run is given: nothing of it changes while it runs, but for how much is computed at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from pegbox import runtime
from pegbox.data.records import Example
from pegbox.recipe import Train
from pegbox.runs.folder import RunFolder
from pegbox.runtime import ALONE, Ranks
from pegbox.tasks import Task
from pegbox.trackers import Log
from pegbox.training.batching import rows_of_update
from pegbox.training.plan import Plan


@dataclass(frozen=True)
class Judge:
    """By which number of the validation rows the best weights are chosen; `score` asks the model as it is now."""

    metric: str
    greater_is_better: bool
    score: Callable[[], float]


@dataclass(frozen=True)
class Job:
    """All that a training run needs. `judge`: by what the best weights are chosen; None: by the loss of validation."""

    model: PreTrainedModel
    task: Task
    train: Sequence[Example]
    validation: Sequence[Example]
    settings: Train
    plan: Plan
    seed: int
    run: RunFolder
    recipe_hash: str
    log: Log
    ranks: Ranks = ALONE
    rate_factor: Callable[[str], float] = lambda name: 1.0  # how many times as fast as others a parameter learns
    judge: Judge | None = None

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def bf16(self) -> bool:
        """Whether the forward pass computes in bfloat16."""
        return runtime.use_bf16(self.device, self.settings.bf16)

    @property
    def peak_learning_rate(self) -> float:
        """The recipe's learning rate, made explicit by the pipeline."""
        assert self.settings.learning_rate is not None
        return self.settings.learning_rate

    def examples_of(self, step: int) -> list[Example]:
        """The examples of update `step` (from 0), of all ranks."""
        return [self.train[row] for row in rows_of_update(step, len(self.train), self.settings.batch_size, self.seed)]

    def tell(self, step: int, event: str, **facts: object) -> None:
        """Note in the run's `events.jsonl` what happened after `step` updates (the first rank does)."""
        if self.ranks.is_first:
            self.run.tell(step, event, **facts)
