"""How long training will take, from what was tried.

    seconds = updates * (sum over micro-batches (fixed + work / rate) + step) + validations + checkpoints

Two batches that were tried, a small and a large one, give `fixed` and `rate`; the micro-batches are those of updates spread over
the run, made as they will be. A validation is the way forward alone. A checkpoint goes at the rate of the disk, which is tried,
too.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from pegbox.data.records import Example
from pegbox.recipe import Train
from pegbox.runs import durable
from pegbox.training.gradient import parts
from pegbox.training.measured import measure
from pegbox.training.plan import Given, Plan
from pegbox.training.probe import Line, Probe, Tried, Work, some_of
from pegbox.training.schedule import adamw

UPDATES, ROWS = 32, 512  # updates, and rows of validation, whose batches are counted
WRITTEN = 64 << 20  # bytes by which the disk is tried, at most
STEPPED = 1 << 23  # parameters by which the optimizer's step is timed
MOMENTS = 3  # a checkpoint holds the weights and two moments


def seconds_of(
    plan: Plan, probe: Probe, given: Given, small: Tried, large: Tried, cuts: Callable[[int], list[list[Example]]]
) -> float:
    """Seconds of training, with its validations and checkpoints; `cuts`: the micro-batches of an update."""
    work = Work.of(probe.model, recomputed=plan.gradient_checkpointing)
    line = Line.through(sorted(tried.last(work) for tried in (small, large)))
    steps, began = some_of(plan.updates, UPDATES), time.perf_counter()
    pieces = [probe.piece(part, plan) for step in steps for part in cuts(step)]
    made = time.perf_counter() - began
    updates = plan.updates * (made + sum(line(work(piece)) for piece in pieces)) / len(steps)
    updates += plan.updates * _step(plan.trainable_parameters, probe.model.device, given.settings)
    validations, saves = _times(plan.updates, given.settings)
    return (
        updates
        + validations * _validation(plan, probe, given, work, line)
        + _saving(saves, 4 * plan.trainable_parameters)
    )


def _times(updates: int, settings: Train) -> tuple[int, int]:
    """How often a run validates and saves, as the loop has it."""
    every = settings.eval_steps or math.ceil(updates / 10)
    return math.ceil(updates / every), math.ceil(updates / (settings.save_steps or every))


def _validation(plan: Plan, probe: Probe, given: Given, work: Work, line: Line) -> float:
    """Seconds of one validation."""
    rows: Sequence[Example] = given.validation
    if not rows:
        return 0.0
    some = [rows[place] for place in some_of(len(rows), ROWS)]
    mine = some[:: given.ranks.world]
    seconds = sum(line(work(probe.piece(part, plan))) for part in parts(plan, mine))
    return work.forward * seconds * len(rows) / len(some)


def _saving(saves: int, weights: int) -> float:
    """Seconds of all checkpoints, and of the model at the end, of so many bytes of weights that learn."""
    written = min(WRITTEN, max(1, MOMENTS * weights))
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        durable.write(Path(folder) / "tried", [bytes(written)])
        seconds = time.perf_counter() - began
    return (saves * MOMENTS + 1) * weights * seconds / written


def _step(learnt: int, device: torch.device, settings: Train) -> float:
    """Seconds of what an update does once, to all weights that learn: division, norm, clipping, the optimizer's step."""
    weight = torch.nn.Parameter(torch.zeros(min(STEPPED, learnt), device=device))
    weight.grad = gradient = torch.ones_like(weight)
    optimizer = adamw({"weight": weight}, settings)

    def step() -> None:
        gradient.div_(1.0)
        torch.nn.utils.clip_grad_norm_([weight], settings.max_grad_norm).item()
        optimizer.step()

    return measure(device, step, times=2).seconds * learnt / weight.numel()
