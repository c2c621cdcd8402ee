"""Spikes: the loss or the gradient of an update many times as large, or a row of wild text in it; and updates that are none.

Told is to be what the rule says, which is computed here once more: over the mean and six deviations of the 128 updates before.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faults.only_training import learn, updates
from faults.world import METHODS, World, child, ended, side_by_side

from pegbox.data.records import Example
from pegbox.runs import checkpoint
from pegbox.runs.folder import RunFolder
from pegbox.training import loop
from pegbox.training.job import Job

SPIKES = ("loss", "gradient", "wild text")
SHORT, LONG = 48, 200  # updates; a row can only be wild to a model that has learnt the others
FIRST_TOLD = 33  # there must be 32 updates before


def run(world: World, count: int = 100, seed: int = 0, workers: int = 2) -> dict[str, Any]:
    """`count` spikes that are put in, and what is told in runs without any."""
    return {"spikes": spikes(world, count, seed, workers), "no_spikes": no_spikes(world, count // 5, seed, workers)}


@dataclass(frozen=True)
class Spike:
    """One update's loss or gradient times `factor`, or a row of wild text in it."""

    kind: str
    method: str
    step: int
    factor: float
    number: int

    @classmethod
    def drawn(cls, seed: int, number: int) -> Spike:
        """The kinds in turn, the rest drawn."""
        draw, kind = random.Random(f"spikes {seed} {number}"), SPIKES[number % len(SPIKES)]
        first, last = (LONG - 20, LONG) if kind == "wild text" else (FIRST_TOLD, SHORT)
        method = "full" if kind == "wild text" else draw.choice(list(METHODS))
        return cls(kind, method, draw.randint(first, last), draw.choice((10.0, 100.0, 1000.0)), number)


def let_spike(spike: Spike, rows: Path) -> None:
    """In a child: let its run have the spike, and write into `rows` those of that update."""
    train, take_update, examples_of, now = loop.train, loop.take_update, Job.examples_of, [0]

    def begin(job: Job, state: checkpoint.TrainState) -> checkpoint.TrainState:
        right = job.task.loss

        def loss(*given: Any) -> tuple[torch.Tensor, float]:
            total, weight = right(*given)
            return (total * spike.factor if now[0] == spike.step else total), weight

        if spike.kind == "loss":
            job.task.loss = loss  # type: ignore[method-assign]
        if spike.kind == "gradient":
            for parameter in checkpoint.trainable(job.model).values():
                parameter.register_hook(lambda grad: grad * spike.factor if now[0] == spike.step else grad)
        return train(job, state)

    def examples(job: Job, step: int) -> list[Example]:
        found = examples_of(job, step)
        if spike.kind == "wild text" and step == spike.step - 1:
            draw = random.Random(f"wild {spike.number}")
            ids = tuple(draw.randrange(job.model.config.vocab_size) for _ in range(60))
            found[0] = replace(found[0], input_ids=ids, loss_weights=(1.0,) * len(ids))
        return found

    def take(job: Job, optimizer: torch.optim.Optimizer, step: int) -> loop.Update:
        now[0] = step + 1
        if now[0] == spike.step:
            rows.write_text(json.dumps([example.where for example in job.examples_of(step)]))
        return take_update(job, optimizer, step)

    loop.train, loop.take_update, Job.examples_of = begin, take, examples  # type: ignore[method-assign]


def _trained(folder: Path, recipe: Mapping[str, Any], before: Callable[[], None]) -> None:
    def act() -> None:
        before()
        learn(recipe, folder)

    log = folder.with_suffix(".log")
    assert ended(child(act, log)) == 0, log.read_text()


def _recipe(world: World, method: str, steps: int, seed: int) -> dict[str, Any]:
    often = {"max_steps": steps, "save_steps": steps, "eval_steps": steps, "lr_scheduler_type": "constant"}
    return world.recipe(method, **often) | {"seed": seed}


def told(folder: Path) -> list[dict[str, Any]]:
    """The spikes that a run told of."""
    return [line for line in RunFolder(folder).read_lines("events.jsonl") if line["event"] == "spike"]


def by_the_rule(lines: Sequence[Mapping[str, Any]]) -> set[tuple[int, str]]:
    """The updates, and what of them, that are over the mean and six deviations of the 128 before, of at least 32."""
    found = set()
    for index, line in enumerate(lines):
        for name in ("loss", "grad_norm"):
            before = np.array([other[name] for other in lines[max(0, index - 128) : index]])
            if len(before) >= FIRST_TOLD - 1 and 0 < 6 * before.std() < line[name] - before.mean():
                found.add((line["step"], name))
    return found


def spikes(world: World, count: int, seed: int = 0, workers: int = 2) -> dict[str, Any]:
    """How many of `count` spikes are told, with their rows; and whether nothing else is than what the rule says."""

    def trial(number: int) -> dict[str, Any]:
        spike, folder = Spike.drawn(seed, number), world.folder / f"spike-{number}"
        recipe = _recipe(world, spike.method, LONG if spike.kind == "wild text" else SHORT, seed + number)
        _trained(folder, recipe, lambda: let_spike(spike, folder.with_suffix(".json")))
        here = [event for event in told(folder) if event["step"] == spike.step]
        rows, log = json.loads(folder.with_suffix(".json").read_text()), folder.with_suffix(".log").read_text()
        return {
            "kind": spike.kind,
            "told": bool(here),
            "rows": bool(here) and all(event["rows"] == rows for event in here) and all(row in log for row in rows),
            "as_the_rule": {(event["step"], event["of"]) for event in told(folder)} == by_the_rule(updates(folder)),
            "is_one": any(step == spike.step for step, _ in by_the_rule(updates(folder))),
            "spike": asdict(spike),
        }

    found = side_by_side(trial, count, workers)
    figures = {name: sum(one[name] for one in found) for name in ("is_one", "told", "rows", "as_the_rule")}
    by_kind = {kind: [sum(one["told"] for one in found if one["kind"] == kind)] for kind in SPIKES}
    for kind, numbers in by_kind.items():
        numbers.append(sum(one["kind"] == kind for one in found))
    missed = [one["spike"] for one in found if not one["told"]]
    return {"spikes": count, **figures, "told_of_planted_by_kind": by_kind, "not_told": missed}


def no_spikes(world: World, count: int, seed: int = 0, workers: int = 2) -> dict[str, Any]:
    """What `count` runs without any fault tell of: for each update that is watched, its loss and its gradient."""
    methods = list(METHODS)

    def trial(number: int) -> tuple[int, Counter[str]]:
        folder = world.folder / f"no-spike-{number}"
        _trained(folder, _recipe(world, methods[number % len(methods)], LONG, seed + number), lambda: None)
        return len(updates(folder)) - FIRST_TOLD + 1, Counter(event["of"] for event in told(folder))

    found = side_by_side(trial, count, workers)
    events = sum((counted for _, counted in found), Counter())
    watched = sum(number for number, _ in found)
    return {"runs": len(found), "updates": watched, "false_alarms": events.total(), "of": dict(events)}
