"""The one loop: update by update, from a state to a state.

    theta <- theta - AdamW( clip( sum over ranks and micro-batches of grad(loss sum) / total weight ) )

The loss of an update is the weighted sum over all its trained tokens (or rows) divided by their total weight, over all
micro-batches and ranks: never a mean of means. An update of weight zero takes no step; a gradient that is not finite
stops the run before the weights change. What a task, a method or a schedule is, the loop does not know.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import torch
from transformers import PreTrainedModel

from pegbox import runtime
from pegbox.data.records import Example
from pegbox.errors import PegboxError
from pegbox.models.batch import Batch
from pegbox.progress import Bar, bar
from pegbox.recipe import Train
from pegbox.runs import checkpoint
from pegbox.runs.checkpoint import TrainState
from pegbox.runs.folder import RunFolder
from pegbox.runtime import ALONE, Ranks
from pegbox.tasks import Task
from pegbox.trackers import Log
from pegbox.training import gradient
from pegbox.training.batching import rows_of_update, updates_per_epoch
from pegbox.training.plan import Plan
from pegbox.training.schedule import adamw, learning_rate, set_rate


class Stopped(PegboxError):
    """A signal asked the run to stop; it saved a checkpoint first. Exit code 130 (SIGINT) or 143 (SIGTERM)."""

    def __init__(self, signum: int, where: str) -> None:
        super().__init__("stopped with a checkpoint saved", where=where, cure="go on with `pegbox train --resume`")
        self.exit_code = 128 + signum


@dataclass(frozen=True)
class Job:
    """All that a training run needs; nothing here changes while it runs."""

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


@dataclass(frozen=True)
class Update:
    """What one update was: its loss (nats a unit of weight), gradient norm before clipping, tokens and rows."""

    loss: float
    grad_norm: float
    tokens: int
    rows: int


def train(job: Job, state: TrainState) -> TrainState:
    """Run the updates after `state.step`; the chosen weights are in the model at the end.

    Raises TrainingError where a loss or gradient is not finite, Stopped after a signal.
    """
    runtime.seed_everything(job.seed + job.ranks.rank)
    optimizer = adamw(checkpoint.trainable(job.model), job.settings, job.rate_factor)
    if state.step:
        state = checkpoint.load(job.run.checkpoints / f"step-{state.step}", job.model, optimizer)
    total = job.plan.updates
    eval_steps = job.settings.eval_steps or math.ceil(total / 10)
    save_steps = job.settings.save_steps or eval_steps
    with bar("training", total, "updates", shown=job.ranks.is_first) as shown, _signals() as asked:
        shown.advance(state.step)
        while state.step < total and not state.finished:
            update = take_update(job, optimizer, state.step)
            state.step, state.tokens = state.step + 1, state.tokens + update.tokens
            _log_update(job, state, update, shown)
            if state.step % eval_steps == 0 or state.step == total:
                validate(job, state)
            stop = job.ranks.sum(float(asked[0] if asked else 0))[0]
            if state.step % save_steps == 0 or state.best_step == state.step or state.step == total or stop:
                save(job, state, optimizer)
            if stop:
                raise Stopped(int(asked[0] if asked else signal.SIGTERM), str(job.run.path))
    if state.best_step is not None and state.best_step != state.step:
        checkpoint.load(job.run.checkpoints / f"step-{state.best_step}", job.model)
    return state


def take_update(job: Job, optimizer: torch.optim.Optimizer, step: int) -> Update:
    """One optimizer update on this rank's share of the update's examples."""
    began = time.perf_counter()
    rows = rows_of_update(step, len(job.train), job.settings.batch_size, job.seed)
    examples = [job.train[row] for row in rows]
    optimizer.zero_grad(set_to_none=True)
    mine = examples[job.ranks.share(len(examples))]
    batches, limit = list(micro_batches(job, mine, step)), job.settings.max_grad_norm
    found = gradient.find_gradient(
        job.model, job.task, batches, _backward, max_grad_norm=limit, ranks=job.ranks, bf16=job.bf16
    )
    if found.weight > 0:
        gradient.refuse_non_finite(found, step, [example.where for example in examples])
        set_rate(optimizer, learning_rate(step, job.plan.updates, job.peak_learning_rate, job.settings))
        optimizer.step()
    tokens = sum(map(len, examples))
    if job.ranks.is_first:
        seconds = time.perf_counter() - began
        memory = runtime.peak_memory(job.device)
        timing = {"step": step + 1, "seconds": seconds, "tokens_per_second": tokens / seconds, "memory": memory}
        job.run.append("timing.jsonl", timing)
    return Update(found.loss, found.norm, tokens, len(examples))


def _backward(loss: torch.Tensor) -> None:
    loss.backward()


def micro_batches(job: Job, examples: Sequence[Example], step: int) -> Iterator[Batch]:
    """The examples as batches on the device, cut as the plan says."""
    return (batch.to(job.device) for batch in gradient.micro_batches(job.task, job.plan, examples, step))


@torch.no_grad()
def validation_loss(job: Job) -> float:
    """The loss over all validation examples: one sum over one weight, never a mean of batches."""
    job.model.eval()
    total = weight = 0.0
    mine = job.validation[job.ranks.share(len(job.validation))]
    with runtime.autocast(job.device, job.bf16):
        for batch in micro_batches(job, mine, step=-1):
            part, part_weight = job.task.loss(job.model, batch)
            total, weight = total + part.item(), weight + part_weight
    total, weight = job.ranks.sum(total, weight)
    return total / weight if weight else math.nan


def validate(job: Job, state: TrainState) -> None:
    """Score the validation rows, remember the best step (of equals the first; NaN is never best), stop if it is time."""
    loss = validation_loss(job)
    best = state.best_loss
    if math.isfinite(loss) and (best is None or loss < best):
        gained = best is None or loss < best - job.settings.early_stopping_threshold
        state.best_loss, state.best_step = loss, state.step
        state.validations_without_gain = 0 if gained else state.validations_without_gain + 1
    else:
        state.validations_without_gain += 1
    patience = job.settings.early_stopping_patience
    state.finished = patience is not None and state.validations_without_gain >= patience
    if job.ranks.is_first:
        job.log({"step": state.step, "split": "validation", "loss": _number(loss)})


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def save(job: Job, state: TrainState, optimizer: torch.optim.Optimizer) -> None:
    """Write a checkpoint (the first rank), then delete what `save_total_limit` allows; never the best."""
    if job.ranks.is_first:
        checkpoint.save(job.run.checkpoints, state, job.model, optimizer, job.recipe_hash)
        checkpoint.prune(job.run.checkpoints, job.settings.save_total_limit, state.best_step)
    job.ranks.wait()


def _log_update(job: Job, state: TrainState, update: Update, shown: Bar) -> None:
    if job.ranks.is_first:
        epoch = state.step / updates_per_epoch(len(job.train), job.settings.batch_size)
        rate = learning_rate(state.step - 1, job.plan.updates, job.peak_learning_rate, job.settings)
        line = {"step": state.step, "epoch": epoch, "loss": update.loss, "learning_rate": rate}
        line |= {"grad_norm": update.grad_norm, "tokens": update.tokens, "rows": update.rows}
        job.log(line)
    shown.advance(1, f"loss {update.loss:.3f}")


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The list of SIGINT and SIGTERM received; the update goes on to its end. A second one kills at once."""
    asked: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        asked.append(signum)
        signal.signal(signum, signal.SIG_DFL)

    here = threading.current_thread() is threading.main_thread()  # elsewhere signals cannot be received
    before = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM) if here}
    try:
        yield asked
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
