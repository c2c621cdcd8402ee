"""Out of memory: compute less at once, and repeat the same update.

A failed attempt changed nothing: its gradients are dropped, its noise is drawn again from the update's own seed. From then on
no micro-batch is larger than half the rows of the largest, which changes no result but by the order of sums; a run that
resumes this one goes on so, too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import torch

from pegbox import runtime
from pegbox.data.records import Example
from pegbox.errors import TrainingError, first_line
from pegbox.runs.checkpoint import TrainState, trainable
from pegbox.runtime import OutOfMemoryError
from pegbox.training.gradient import parts
from pegbox.training.job import Job

log = logging.getLogger("pegbox")
T = TypeVar("T")


def fitting(
    job: Job, state: TrainState, examples: Callable[[], Sequence[Example]], action: Callable[[Job], T]
) -> tuple[Job, T]:
    """The job, with as much at once as memory has room for, and what the action gives by it on the examples.

    Raises TrainingError where not even single rows fit.
    """
    while True:
        try:
            return job, action(job)
        except Exception as error:
            known = isinstance(error, OutOfMemoryError)  # to every rank
            if not known and (job.ranks.world > 1 or not runtime.is_out_of_memory(error)):
                raise
            said = first_line(error)
        _forget(job)
        job = _halved(job, examples(), said)
        state.micro_batch_tokens = job.plan.micro_batch_tokens
        log.warning("out of memory; from now on %d tokens at once, the same updates", state.micro_batch_tokens)
        job.tell(state.step, "out_of_memory", micro_batch_tokens=state.micro_batch_tokens, said=said)


def _forget(job: Job) -> None:
    """Let go of what a failed attempt has left behind."""
    for parameter in trainable(job.model).values():
        parameter.grad = None
    # torch holds on to a graph whose way back failed until it goes another (pytorch/pytorch, issue 82218)
    torch.zeros((), device=job.device, requires_grad=True).backward()
    runtime.release_memory()


def _halved(job: Job, examples: Sequence[Example], said: str) -> Job:
    """The job with at most as many tokens at once as half the rows of its largest micro-batch of several rows."""
    world, plan = job.ranks.world, job.plan
    cuts = [part for rank in range(world) for part in parts(plan, examples[rank::world])]
    # as `batching.cut` counts
    several = [(max(one.room for one in part) - plan.shared, len(part)) for part in cuts if len(part) > 1]
    if not several:
        longest = max(map(len, examples))
        cure = (
            "shorten rows (data.max_length with data.truncation), take a smaller model or method: lora, or quantize it"
        )
        raise TrainingError(f"out of memory for one row of at most {longest} tokens alone: {said}", cure=cure)
    size, rows = max(several, key=lambda part: part[0] * part[1])
    return replace(job, plan=replace(plan, micro_batch_tokens=plan.shared + size * (rows // 2)))
