"""pegbox as `pegbox train` runs it: the pipeline's steps 1 and 2, and its loop, from its files to its checkpoints."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from speed.peer import Asked, Training
from speed.prepared import made_ready, whole_updates

from pegbox.ready import Ready
from pegbox.runs.checkpoint import TrainState
from pegbox.runs.folder import RunFolder
from pegbox.trackers import Log
from pegbox.training import loop
from pegbox.training.job import Job


def pegbox(asked: Asked, *, kernels: bool = True) -> Training:
    """It reads the rows itself: they are those of the others, in their order, by the seed."""
    ready = made_ready(asked.workload, asked.shared, asked.seed, kernels=kernels)
    folder = RunFolder.create(asked.work / "run")
    return Training(ready.model, partial(loop.train, job(ready, folder.path), TrainState()))


def job(ready: Ready, folder: Path) -> Job:
    """What the loop is given; one row of validation, which is scored once, after the last update."""
    run = RunFolder(folder)
    return Job(
        model=ready.model,
        task=ready.task,
        train=whole_updates(ready),
        validation=ready.data.validation[:1],
        settings=ready.recipe.train,
        plan=ready.plan,
        seed=ready.recipe.seed,
        run=run,
        recipe_hash="",
        log=Log(run),
        rate_factor=ready.rate_factor,
    )
