"""The validation rows: how they are scored, and what follows for the best weights and for stopping early.

The best is the highest or lowest value of one metric, by default the lowest loss. Of equal values the first is the best; one
that is not finite never is. A validation without gain is one that is not better than the best by more than the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from pegbox import runtime
from pegbox.data.records import Example
from pegbox.models.batch import Batch
from pegbox.runs.checkpoint import TrainState
from pegbox.training import gradient
from pegbox.training.job import Job

LOSS = "loss"
COMPARED = 64  # rows of which the loss is computed in float32 as well


def micro_batches(job: Job, examples: Sequence[Example], step: int) -> Iterator[Batch]:
    """The examples as batches on the device, cut as the plan says."""
    return (batch.to(job.device) for batch in gradient.micro_batches(job.task, job.plan, examples, step))


def groups(job: Job) -> Iterator[Sequence[Example]]:
    """This rank's validation rows, in parts that are scored together.

    All of them; where a row's loss hangs on the rows beside it, as many as an update has, in their order: the same
    groups in every validation, on however many ranks.
    """
    rows, size, ranks = job.validation, job.settings.batch_size, job.ranks
    if not job.task.joint:
        yield rows[ranks.share(len(rows))]
        return
    starts = range(0, len(rows), size)
    yield from (rows[start : start + size] for start in starts[ranks.share(len(starts))])


@torch.no_grad()
def validation_loss(job: Job) -> float:
    """The loss over all validation examples: one sum over one weight, never a mean of batches."""
    job.model.eval()

    def summed() -> tuple[float, float]:
        total = weight = 0.0
        with runtime.autocast(job.device, job.bf16):
            for group in groups(job):
                part, part_weight = job.task.group_loss(job.model, micro_batches(job, group, step=-1))
                total, weight = total + part, weight + part_weight
        return total, weight

    total, weight = job.ranks.sum(*job.ranks.attempt(summed))
    return total / weight if weight else math.nan


def score(job: Job) -> dict[str, float]:
    """The loss over the validation rows, and the metric by which the best is chosen, on every rank the same."""
    scored = {LOSS: validation_loss(job)}
    judge = job.judge
    if judge is not None:  # the first rank asks, the others wait
        (scored[judge.metric],) = job.ranks.sum(job.ranks.attempt(judge.score if job.ranks.is_first else float))
    return scored


def remember(job: Job, state: TrainState, scored: Mapping[str, float]) -> None:
    """Note a validation in the state, and in the log."""
    metric, sign = (job.judge.metric, -1 if job.judge.greater_is_better else 1) if job.judge else (LOSS, 1)
    value, best = scored[metric], state.best_value
    threshold = job.settings.early_stopping_threshold
    gained = math.isfinite(value) and (best is None or sign * value < sign * best - threshold)
    if math.isfinite(value) and (best is None or sign * value < sign * best):
        state.best_value, state.best_step = value, state.step
    state.validations_without_gain = 0 if gained else state.validations_without_gain + 1
    state.validated = state.step
    if job.ranks.is_first:
        told = {name: number if math.isfinite(number) else None for name, number in scored.items()}
        job.log({"step": state.step, "split": "validation", **told})


def is_over(job: Job, state: TrainState) -> bool:
    """Whether the run has taken its last update: all of them, all its time, or no gain for as long as is waited."""
    settings = job.settings
    patience, seconds = settings.early_stopping_patience, settings.max_time
    return (
        state.step >= job.plan.updates
        or (patience is not None and state.validations_without_gain >= patience)
        or (seconds is not None and state.seconds >= seconds)
    )


def precision_gap(job: Job) -> dict[str, float]:
    """The loss over the first validation rows as the run computes it, and with all weights and sums in float32.

    The weights are what they were afterwards: float32 holds every number of bfloat16. Raises OutOfMemoryError.
    """
    some = replace(job, validation=job.validation[:COMPARED])
    exact = replace(some, settings=job.settings.model_copy(update={"bf16": False}))
    held = [(tensor, tensor.dtype) for tensor in (*job.model.parameters(), *job.model.buffers())]
    found = {"bfloat16": validation_loss(some)}
    try:
        job.ranks.attempt(job.model.float)
        found["float32"] = validation_loss(exact)
    finally:
        for tensor, dtype in held:
            tensor.data = tensor.data.to(dtype)
    return found
