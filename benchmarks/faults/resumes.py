"""A run resumed at every update, however it was cut, scheduled and computed: the same bytes each time.

Updates x micro-batches {1, 4} x {padded, packed} x every schedule x {float32, bfloat16} x {full, lora with dropout}. One child
for each combination: a whole run that keeps every checkpoint, then one run from each of them in a folder of its own.
"""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from faults.world import World, child, ended, side_by_side

from pegbox import pipeline
from pegbox.kernels.attention import IMPLEMENTATION
from pegbox.recipe import load
from pegbox.runs import checkpoint
from pegbox.runs.checkpoint import TrainState
from pegbox.runs.folder import RunFolder
from pegbox.trackers import Log
from pegbox.training import loop
from pegbox.training.job import Job
from pegbox.training.schedule import SCHEDULES

UPDATES = 8  # over two epochs, the last update of each a short one
AXES: dict[str, tuple[Any, ...]] = {
    "method": ("full", "lora"),
    "lr_scheduler_type": tuple(SCHEDULES),
    "bf16": (False, True),
    "packed": (False, True),
    "micro_batches": (1, 4),
}


def run(world: World, count: int | None = None, seed: int = 0, workers: int = 2) -> dict[str, Any]:
    """How many of all resumes end in the same bytes; `count`: of the first so many combinations."""
    ways = [dict(zip(AXES, values, strict=True)) for values in itertools.product(*AXES.values())][:count]

    def trial(number: int) -> dict[str, Any]:
        folder = world.folder / f"resumes-{number}"
        folder.mkdir()
        log = folder.with_suffix(".log")
        code = ended(child(lambda: _all_resumes(world, folder, seed, **ways[number]), log), limit=600)
        assert code == 0, log.read_text()
        found: dict[str, Any] = json.loads((folder / "found.json").read_text())
        shutil.rmtree(folder)
        return found

    found = side_by_side(trial, len(ways), workers)
    differ = [{**way, "step": step} for way, one in zip(ways, found, strict=True) for step in one["differ"]]
    return {
        "combinations": len(ways),
        "resumes": sum(one["resumes"] for one in found),
        "same_bytes": sum(one["resumes"] - len(one["differ"]) for one in found),
        "differ": differ,
    }


def _all_resumes(
    world: World, folder: Path, seed: int, *, method: str, packed: bool, micro_batches: int, **train: Any
) -> None:
    """In a child: train once, then from every checkpoint; what came out, as `found.json`."""
    settings = {"max_steps": UPDATES, "batch_size": 8, "save_steps": 1, "eval_steps": 3, "save_total_limit": UPDATES}
    recipe = load(world.recipe(method, **settings, **train) | {"seed": seed})
    ready = pipeline.get_ready(recipe)
    ready.model.set_attn_implementation(IMPLEMENTATION if packed else "sdpa")
    plan = replace(ready.plan, packed=packed, share_prefix=False, prefix=0, micro_batch_rows=8 // micro_batches)
    rows = ready.data.train[:29]  # three updates of 8 and one of 5 an epoch

    def learn(name: str, step: int, before: Path | None = None) -> Path:
        place = RunFolder.create(folder / name)
        if before is not None:
            whole = RunFolder(before)
            shutil.copytree(whole.checkpoints / f"step-{step}", place.checkpoints / f"step-{step}")
            best = checkpoint.state_of(place.checkpoints / f"step-{step}").best_step
            if best not in (None, step):
                shutil.copytree(whole.checkpoints / f"step-{best}", place.checkpoints / f"step-{best}")
            shutil.copy(before / "metrics.jsonl", place.path)
            place.truncate_logs(checkpoint.state_of(place.checkpoints / f"step-{step}").logs)
        job = Job(ready.model, ready.task, rows, ready.data.validation, recipe.train, plan, seed, place, "", Log(place))
        loop.train(job, TrainState(step=step))
        return place.path

    # the state before the first update, to begin the whole run from: the model is used again and again
    start = {name: parameter.detach().clone() for name, parameter in checkpoint.trainable(ready.model).items()}
    whole = learn("whole", 0)
    wanted, differ = _left(whole), []
    for step in range(1, UPDATES):
        for name, parameter in checkpoint.trainable(ready.model).items():
            parameter.data.copy_(start[name])
        if _left(learn(f"from-{step}", step, whole)) != wanted:
            differ.append(step)
    (folder / "found.json").write_text(json.dumps({"resumes": UPDATES - 1, "differ": differ}))


def _left(run: Path) -> list[str]:
    last = run / "checkpoints" / f"step-{UPDATES}"
    files = (last / checkpoint.WEIGHTS, last / checkpoint.MOMENTS, run / "metrics.jsonl")
    return [checkpoint.sha256(file) for file in files]
