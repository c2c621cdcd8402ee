"""The gradient of one update, for whoever drives it: our loop, or a Lightning Trainer.

    gradient = clip( sum over ranks and micro-batches of grad(loss sum) / total weight )

The loss of an update is the weighted sum over all its trained tokens (or rows) divided by their total weight, over all
micro-batches and ranks: never a mean of means. An update of weight zero has no gradient, and no step is to be taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from pegbox import runtime
from pegbox.data.records import Example
from pegbox.errors import TrainingError
from pegbox.models.batch import Batch
from pegbox.runs.checkpoint import trainable
from pegbox.runtime import Ranks
from pegbox.tasks import Task
from pegbox.training.batching import cut
from pegbox.training.plan import Plan


@dataclass(frozen=True)
class Gradient:
    """What lies in the parameters' `.grad`: the loss (nats a unit of weight), the norm before clipping, the weight."""

    loss: float
    norm: float
    weight: float

    @property
    def is_finite(self) -> bool:
        """Whether a step may be taken by it."""
        return math.isfinite(self.loss) and math.isfinite(self.norm)


def parts(plan: Plan, examples: Sequence[Example]) -> list[list[Example]]:
    """The examples cut into micro-batches, as the plan says."""
    limits = {"tokens": plan.micro_batch_tokens, "rows": plan.micro_batch_rows}
    return cut(examples, **limits, packed=plan.packed, shared=plan.shared)


def micro_batches(task: Task, plan: Plan, examples: Sequence[Example], step: int) -> Iterator[Batch]:
    """The examples as batches, cut as the plan says. `step`: the number of the update, from 0; -1 for validation."""
    for part in parts(plan, [task.drawn(example, step) for example in examples]):
        yield task.collate(part, packed=plan.packed, share_prefix=plan.share_prefix)


def find_gradient(
    model: PreTrainedModel,
    task: Task,
    batches: Sequence[Batch],
    backward: Callable[[torch.Tensor], None],
    *,
    seed: int,
    step: int,
    max_grad_norm: float,
    ranks: Ranks,
    bf16: bool,
) -> Gradient:
    """The clipped gradient of the update, into `.grad` (which holds none yet); `batches` are this rank's share.

    `seed` and `step` (from 0) fix the noise that is drawn. Raises OutOfMemoryError, on every rank, where one has too little.
    """
    model.train()
    runtime.seed_noise(seed, step, ranks.rank)
    with runtime.autocast(model.device, bf16):
        part, part_weight = ranks.attempt(lambda: task.update_loss(model, batches, backward, ranks))
    loss, weight = ranks.sum(part, part_weight)
    parameters = list(trainable(model).values())
    ranks.sum_gradients(parameters)
    if weight == 0:
        return Gradient(0.0, 0.0, 0.0)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.div_(weight)
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm).item()
    return Gradient(loss / weight, norm, weight)


def refuse_non_finite(gradient: Gradient, step: int, rows: Sequence[str]) -> None:
    """Raise TrainingError, naming the update (from 0) and its rows, where its loss or gradient is not finite."""
    if gradient.is_finite:
        return
    what = f"the loss ({gradient.loss}) or its gradient ({gradient.norm}) is not finite; the weights were not changed"
    cure = "look at these rows; else lower train.learning_rate"
    raise TrainingError(f"update {step + 1}: {what}", where=", ".join(rows), cure=cure)
