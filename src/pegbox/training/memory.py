"""Out of memory: compute less at once, and repeat the same update; and keep to the plan while there is enough.

A failed attempt changed nothing: its gradients are dropped, its noise is drawn again from the update's own seed. From then on
no micro-batch is larger than half of the largest, which changes no result but by the order of sums; where single rows
do not fit, their layers are computed once more on the way back. A run that resumes this one goes on so, too.

On a CPU freed blocks stay with the process, for the next update (`runtime.tune_allocator`). Between blocks of many sizes holes
come about, more with every update. Where the process has come to hold more than was planned, they are given back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from transformers import PreTrainedModel

from pegbox import runtime
from pegbox.data.records import Example
from pegbox.errors import TrainingError, first_line
from pegbox.models.recomputation import may_recompute, recompute
from pegbox.runs.checkpoint import TrainState, trainable
from pegbox.runtime import OutOfMemoryError
from pegbox.training.batching import tokens_of
from pegbox.training.gradient import parts
from pegbox.training.job import Job
from pegbox.training.plan import Plan
from pegbox.training.probe import Probe

log = logging.getLogger("pegbox")
T = TypeVar("T")


def take_over(model: PreTrainedModel, plan: Plan) -> None:
    """Let the model's layers be recomputed, or not, as the plan has it."""
    if may_recompute(model):
        recompute(model, plan.gradient_checkpointing)


def as_before(job: Job, state: TrainState) -> Job:
    """The job with as much at once as the run had when it was left, which is noted in the state."""
    if state.micro_batch_tokens:
        told = {name: getattr(state, name) for name in ("micro_batch_tokens", "gradient_checkpointing")}
        job = replace(job, plan=replace(job.plan, **told))
        take_over(job.model, job.plan)
    _note(job, state)
    return job


def _note(job: Job, state: TrainState) -> None:
    state.micro_batch_tokens = job.plan.micro_batch_tokens
    state.gradient_checkpointing = job.plan.gradient_checkpointing


def fitting(
    job: Job, state: TrainState, examples: Callable[[], Sequence[Example]], action: Callable[[Job], T]
) -> tuple[Job, T]:
    """The job, with as much at once as memory has room for, and what the action gives by it on the examples.

    Raises TrainingError where not even single rows fit.
    """
    while True:
        try:
            done = action(job)
            _keep_to_plan(job)
            return job, done
        except Exception as error:
            known = isinstance(error, OutOfMemoryError)  # to every rank
            if not known and (job.ranks.world > 1 or not runtime.is_out_of_memory(error)):
                raise
            said = first_line(error)
        _forget(job)
        job = _lighter(job, examples(), said)
        _note(job, state)
        again = ", layers recomputed" if state.gradient_checkpointing else ""
        log.warning("out of memory; from now on %d tokens at once%s, the same updates", state.micro_batch_tokens, again)
        less = {"micro_batch_tokens": state.micro_batch_tokens, "gradient_checkpointing": state.gradient_checkpointing}
        job.tell(state.step, "out_of_memory", **less, said=said)


def _keep_to_plan(job: Job) -> None:
    """Give back what the process holds beyond the plan of training."""
    planned = job.plan.peaks.get("training", 0)
    if planned and job.device.type == "cpu" and runtime.held_memory(job.device) > planned:
        runtime.trim_memory()


def _forget(job: Job) -> None:
    """Let go of what a failed attempt has left behind."""
    for parameter in trainable(job.model).values():
        parameter.grad = None
    # torch holds on to a graph whose way back failed until it goes another (pytorch/pytorch, issue 82218)
    torch.zeros((), device=job.device, requires_grad=True).backward()
    runtime.release_memory()


def _lighter(job: Job, examples: Sequence[Example], said: str) -> Job:
    """The job with less at once: of rows half, of single ones each layer once more on the way back, where that may be."""
    world, plan, probe = job.ranks.world, job.plan, Probe(job.model, job.task, job.seed, job.bf16, job.ranks)
    alone = all(len(part) == 1 for rank in range(world) for part in parts(plan, examples[rank::world]))
    may = job.settings.gradient_checkpointing == "auto" and not plan.gradient_checkpointing and may_recompute(job.model)
    shortest = min(examples, key=lambda example: example.room)
    if alone and may and probe.is_alike(probe.piece([shortest], plan), partial(recompute, job.model)):
        return replace(job, plan=replace(plan, gradient_checkpointing=True))
    return _halved(job, examples, said)


def _halved(job: Job, examples: Sequence[Example], said: str) -> Job:
    """The job with half as many tokens at once as its largest micro-batch of several rows has."""
    world, plan = job.ranks.world, job.plan
    cuts = [part for rank in range(world) for part in parts(plan, examples[rank::world])]
    several = [part for part in cuts if len(part) > 1]
    if not several:
        longest = max(map(len, examples))
        cure = (
            "shorten rows (data.max_length with data.truncation), take a smaller model or method: lora, or quantize it"
        )
        raise TrainingError(f"out of memory for one row of at most {longest} tokens alone: {said}", cure=cure)
    size = partial(tokens_of, packed=plan.packed, shared=plan.shared)
    largest = max(several, key=size)
    return replace(job, plan=replace(plan, micro_batch_tokens=max(size(largest[:1]), size(largest) // 2)))
