"""The one loop: update by update, from a state to a state.

    theta <- theta - AdamW( clip( sum over ranks and micro-batches of grad(loss sum) / total weight ) )

The loss of an update is the weighted sum over all its trained tokens (or rows) divided by their total weight, over all
micro-batches and ranks: never a mean of means. An update of weight zero takes no step; a gradient that is not finite
stops the run before the weights change. What a task, a method or a schedule is, the loop does not know.

Whatever is due after an update (validation, checkpoint) is due by the state alone: a run that was stopped between the two
goes on with what it had not done.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass

import torch

from pegbox import runtime
from pegbox.progress import Bar, bar
from pegbox.runs import checkpoint
from pegbox.runs.checkpoint import TrainState, trainable
from pegbox.training import diagnosis, gradient, validation
from pegbox.training.batching import updates_per_epoch
from pegbox.training.job import Job
from pegbox.training.memory import as_before, fitting
from pegbox.training.schedule import adamw, learning_rate, set_rate
from pegbox.training.spikes import Spikes
from pegbox.training.stops import Stopped, Stops
from pegbox.training.validation import is_over, micro_batches

log = logging.getLogger("pegbox")


@dataclass(frozen=True)
class Update:
    """What one update was: its loss (nats a unit of weight), gradient norm before clipping, tokens and rows."""

    loss: float
    grad_norm: float
    tokens: int
    rows: int


def train(job: Job, state: TrainState) -> TrainState:
    """Run the updates after `state.step`; the chosen weights are in the model at the end.

    Raises TrainingError where a loss or gradient is not finite, memory or disk is not enough; Stopped after a signal.
    """
    optimizer = adamw(trainable(job.model), job.settings, job.rate_factor)
    if state.step:
        state = checkpoint.load(job.run.checkpoints / f"step-{state.step}", job.model, optimizer)
    job = as_before(job, state)
    eval_steps = job.settings.eval_steps or math.ceil(job.plan.updates / 10)
    save_steps = job.settings.save_steps or eval_steps
    spikes, saved = Spikes(job.run.read_lines("metrics.jsonl")), state.step
    with bar("training", job.plan.updates, "updates", shown=job.ranks.is_first) as shown, Stops(job.ranks) as stops:
        shown.advance(state.step)
        while True:
            stops.look(state)
            validating = is_over(job, state) or state.step % eval_steps == 0
            if validating and state.validated < state.step and not stops.signum:
                job = _validate(job, state, stops)
            over = is_over(job, state)
            saving = over or stops.signum or state.step % save_steps == 0 or state.best_step == state.step
            if saving and saved < state.step:
                save(job, state, optimizer)
                saved = state.step
            if stops.signum:
                job.tell(state.step, "stopped", signal=stops.signum)
                raise Stopped(stops.signum, str(job.run.path))
            if over:
                break
            job, update = _take_next(job, state, optimizer)
            state.step, state.tokens = state.step + 1, state.tokens + update.tokens
            _log_update(job, state, update, shown, spikes)
    _take_best(job, state)
    return state


def _take_next(job: Job, state: TrainState, optimizer: torch.optim.Optimizer) -> tuple[Job, Update]:
    step = state.step
    return fitting(job, state, lambda: job.examples_of(step), lambda job: take_update(job, optimizer, step))


def take_update(job: Job, optimizer: torch.optim.Optimizer, step: int) -> Update:
    """One optimizer update (`step` from 0) on this rank's share of the update's examples."""
    began, examples = time.perf_counter(), job.examples_of(step)
    optimizer.zero_grad(set_to_none=True)
    found = gradient.find_gradient(
        job.model,
        job.task,
        list(micro_batches(job, examples[job.ranks.share(len(examples))], step)),
        _backward,
        seed=job.seed,
        step=step,
        max_grad_norm=job.settings.max_grad_norm,
        ranks=job.ranks,
        bf16=job.bf16,
    )
    if found.weight != 0:  # NaN is not
        if not found.is_finite:
            diagnosis.refuse(job, found, step)
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


def _validate(job: Job, state: TrainState, stops: Stops) -> Job:
    """Score the validation rows, unless a signal breaks it off; the job, with what is computed at once."""
    scored = None
    with stops.breaking_off():
        job, scored = fitting(job, state, lambda: job.validation, validation.score)
    if scored is not None:
        validation.remember(job, state, scored)
    return job


def save(job: Job, state: TrainState, optimizer: torch.optim.Optimizer) -> None:
    """Write a checkpoint (the first rank), then delete what `save_total_limit` allows; never the best."""
    if job.ranks.is_first:
        state.logs = job.run.sync_logs()
        checkpoint.save(job.run.checkpoints, state, job.model, optimizer, job.recipe_hash)
        checkpoint.prune(job.run.checkpoints, job.settings.save_total_limit, state)
    job.ranks.wait()


def _take_best(job: Job, state: TrainState) -> None:
    """The weights of the best validation; where their checkpoint is damaged, the last ones."""
    if state.best_step in (None, state.step):
        return
    best = job.run.checkpoints / f"step-{state.best_step}"
    if checkpoint.verifies(best):
        checkpoint.load(best, job.model)
        return
    log.warning("the checkpoint %s, the best, is damaged; the weights of the last update are taken", best.name)
    job.tell(state.step, "best_lost", checkpoint=best.name)
    state.best_step = state.step


def _log_update(job: Job, state: TrainState, update: Update, shown: Bar, spikes: Spikes) -> None:
    if job.ranks.is_first:
        epoch = state.step / updates_per_epoch(len(job.train), job.settings.batch_size)
        rate = learning_rate(state.step - 1, job.plan.updates, job.peak_learning_rate, job.settings)
        line = {"step": state.step, "epoch": epoch, "loss": update.loss, "learning_rate": rate}
        line |= {"grad_norm": update.grad_norm, "tokens": update.tokens, "rows": update.rows}
        job.log(line)
        spikes.look(job, line)
    shown.advance(1, f"loss {update.loss:.3f}")
