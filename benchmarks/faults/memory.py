"""Allocation failures: less is computed at once, the same update is repeated, and nothing else of the run changes.

What is raised says what torch's allocators and Python say. It comes in a forward pass, on the way back, in the optimizer before
anything is changed, or in a validation; with several micro-batches also behind gradients that lie there already. The oracle is
a run that computes as little from the same update on, and meets no failure: weights, moments and log are its, bit for bit, with
dropout, too. Beside the run that always computes all at once the sums are in another order: without dropout the weights are
its up to rounding, with it other noise is drawn. Limits that are real are in address_space.py.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from faults.only_training import learn
from faults.world import (
    METHODS,
    SAVE_STEPS,
    STEPS,
    World,
    child,
    ended,
    left_by,
    print_figures,
    side_by_side,
)
from safetensors.numpy import load_file

from faults import address_space
from pegbox.runs import checkpoint
from pegbox.runs.folder import RunFolder
from pegbox.training import loop
from pegbox.training.job import Job

PLACES = ("forward", "backward", "optimizer", "validation")
CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4849664 bytes. Error code 12 (Cannot allocate memory)"
)
ERRORS: Mapping[str, Callable[[], Exception]] = {
    "GPU": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "CPU": lambda: RuntimeError(CPU),
    "C++": lambda: RuntimeError("std::bad_alloc"),
    "Python": MemoryError,
}
EVAL_STEPS = 4
KILLED = 3  # how a child ends that shall be resumed
ROUNDING = 5e-5  # how far weights may be that were learnt by sums in another order
CHECKS = ("finished", "all_met", "told", "receipt", "same_bytes", "as_without_failure")


@dataclass(frozen=True)
class Failure:
    """An allocation that fails once: at update `step` (from 0) or in the validation after `step` updates."""

    place: str
    step: int
    part: int  # in which micro-batch, or the last
    error: str

    @property
    def saved(self) -> int:
        """After how many updates the first checkpoint behind it is written."""
        return self.step if self.place == "validation" else (self.step // SAVE_STEPS + 1) * SAVE_STEPS


@dataclass(frozen=True)
class Trial:
    """One run with one or two failures; `killed`: before which update it is, to be resumed."""

    number: int
    method: str
    dropout: bool
    micro_batch_size: int | str
    failures: tuple[Failure, ...]
    killed: int | None

    def recipe(self, world: World) -> dict[str, Any]:
        """Updates of eight rows: they can be halved three times."""
        sizes = {"batch_size": 8, "micro_batch_size": self.micro_batch_size, "eval_steps": EVAL_STEPS}
        made = world.recipe(self.method, learning_rate=1e-3, **sizes)
        return made | {
            "method": made["method"] | ({"lora_dropout": 0.1 * self.dropout} if self.method == "lora" else {})
        }

    @property
    def kind(self) -> tuple[str, bool, int | str]:
        """What a run without failures hangs on."""
        return self.method, self.dropout, self.micro_batch_size


def drawn(seed: int, count: int) -> list[Trial]:
    """Runs that meet `count` failures together: the places in turn, with dropout every second run."""
    trials: list[Trial] = []
    while coming := count - sum(len(trial.failures) for trial in trials):
        number = len(trials)
        draw, dropout = random.Random(f"memory {seed} {number}"), number % 2 == 1
        places = [PLACES[(count - coming + more) % len(PLACES)] for more in range(min(coming, draw.choice((1, 1, 2))))]
        failures = tuple(sorted((_failure(place, draw) for place in places), key=_when))
        first = failures[-1].saved
        killed = draw.randint(first, STEPS - 1) if first < STEPS and draw.random() < 0.5 else None
        method = "lora" if dropout else draw.choice(list(METHODS))
        trials.append(Trial(number, method, dropout, draw.choice(("auto", 4)), failures, killed))
    return trials


def _failure(place: str, draw: random.Random) -> Failure:
    step = draw.choice(range(EVAL_STEPS, STEPS + 1, EVAL_STEPS)) if place == "validation" else draw.randrange(STEPS)
    return Failure(place, step, draw.randrange(2), draw.choice(list(ERRORS)))


def _when(failure: Failure) -> tuple[int, bool, int]:
    """The order in which failures come: the validation after n updates before update n."""
    return failure.step, failure.place != "validation", PLACES.index(failure.place)


class Shortage:
    """In a child: the failures of a trial, each of which comes once. `behind`: how many came behind other gradients."""

    def __init__(self, failures: tuple[Failure, ...]) -> None:
        self.coming, self.step, self.parts, self.part, self.behind = list(failures), -1, 1, -1, 0

    def raise_at(self, place: str) -> None:
        """Raise what is to fail here, at this update, in this micro-batch."""
        for failure in self.coming:
            if (failure.place, failure.step) == (place, self.step) and self.part == min(failure.part, self.parts - 1):
                self.coming.remove(failure)
                self.behind += self.part > 0
                raise ERRORS[failure.error]()

    def plant(self, job: Job) -> None:
        """Watch every forward pass, the way back from it, and how many there are in an update."""
        module, update_loss = job.model.get_submodule("model.layers.1.mlp"), job.task.update_loss

        def counted(model: Any, batches: Any, *given: Any) -> Any:
            self.parts, self.part = len(batches), -1
            return update_loss(model, batches, *given)

        def after(module: Any, inputs: Any, output: torch.Tensor) -> None:
            self.part += 1
            if module.training:
                self.raise_at("forward")
                output.register_hook(lambda grad: self.raise_at("backward"))
            else:
                self.raise_at("validation")

        module.register_forward_hook(after)
        job.task.update_loss = counted  # type: ignore[method-assign]


def let_fail(trial: Trial, told: Path) -> None:
    """In a child: let its run meet the failures, and write into `told` which it did not meet, and how."""
    shortage, train, step_of = Shortage(trial.failures), loop.train, torch.optim.AdamW.step
    take_update, validate = loop.take_update, loop.validation.score

    def tell() -> None:
        told.write_text(json.dumps({"not_met": len(shortage.coming), "behind": shortage.behind}))

    def begin(job: Job, state: checkpoint.TrainState) -> checkpoint.TrainState:
        shortage.plant(job)
        done = train(job, state)
        tell()
        return done

    def take(job: Job, optimizer: torch.optim.Optimizer, step: int) -> loop.Update:
        if step == trial.killed:
            tell()
            os._exit(KILLED)
        shortage.step = step
        return take_update(job, optimizer, step)

    def score(job: Job) -> dict[str, float]:
        shortage.parts, shortage.part, shortage.step = 1, -1, shortage.step + 1
        try:
            return validate(job)
        finally:
            shortage.step -= 1

    def step(optimizer: torch.optim.Optimizer, *given: Any) -> Any:
        shortage.parts, shortage.part = 1, 0
        shortage.raise_at("optimizer")
        return step_of(optimizer, *given)

    loop.train, loop.take_update, loop.validation.score, torch.optim.AdamW.step = begin, take, score, step


def compute_less(changes: list[tuple[Failure, int]]) -> None:
    """In a child: let its run take so many tokens at once from where a failure would be on, without one."""
    take_update, validate, done = loop.take_update, loop.validation.score, [0]

    def less(job: Job, now: tuple[int, bool]) -> Job:
        sizes = [size for failure, size in changes if _when(failure)[:2] <= now]
        return replace(job, plan=replace(job.plan, micro_batch_tokens=sizes[-1])) if sizes else job

    def take(job: Job, optimizer: torch.optim.Optimizer, step: int) -> loop.Update:
        done[0] = step + 1
        return take_update(less(job, (step, True)), optimizer, step)

    def score(job: Job) -> dict[str, float]:
        return validate(less(job, (done[0], False)))

    loop.take_update, loop.validation.score = take, score


# ---- failures that are put in ------------------------------------------------------------------------------------------


def run(world: World, count: int = 50, seed: int = 0, workers: int = 2) -> dict[str, Any]:
    """`count` failures that are put in, the bytes that an optimizer's step takes, and real limits."""
    return {
        "failures": failures(world, drawn(seed, count), workers),
        "bytes_of_a_step": {method: bytes_of_a_step(world, method) for method in METHODS},
        "address_space": address_space.run(world),
    }


def failures(world: World, trials: Sequence[Trial], workers: int = 2) -> dict[str, Any]:
    """In how many runs, each with a failure or two, what should be was so."""
    kinds = {trial.kind: trial for trial in trials}
    wholes = {kind: world.folder / f"memory-{'-'.join(map(str, kind))}" for kind in kinds}

    def whole(index: int) -> None:
        kind = list(kinds)[index]
        log, recipe = wholes[kind].with_suffix(".log"), kinds[kind].recipe(world)
        assert ended(child(lambda: learn(recipe, wholes[kind]), log)) == 0, log.read_text()

    side_by_side(whole, len(kinds), workers)
    found = side_by_side(lambda number: _fail(world, trials[number], wholes[trials[number].kind]), len(trials), workers)
    every = [failure for trial in trials for failure in trial.failures]
    quiet = [one["distance"] for trial, one in zip(trials, found, strict=True) if not trial.dropout]
    return {
        "failures": len(every),
        "by_place": {place: sum(failure.place == place for failure in every) for place in PLACES},
        "by_error": {error: sum(failure.error == error for failure in every) for error in ERRORS},
        "behind_other_gradients": sum(one["behind"] for one in found),
        "runs": len(trials),
        "with_dropout": sum(trial.dropout for trial in trials),
        "killed_and_resumed": sum(trial.killed is not None for trial in trials),
        **{check: sum(one[check] for one in found) for check in CHECKS},
        "farthest_without_dropout": max(quiet, default=None),
        "wrong": [
            str(trial) for trial, one in zip(trials, found, strict=True) if not all(one[name] for name in CHECKS)
        ],
    }


def _fail(world: World, trial: Trial, whole: Path) -> dict[str, Any]:
    """What of all that should be was so in a run with failures."""
    folder, recipe = world.folder / f"memory-{trial.number}", trial.recipe(world)
    log, told = folder.with_suffix(".log"), folder.with_suffix(".json")

    def fail() -> None:
        let_fail(trial, told)
        learn(recipe, folder)

    code = ended(child(fail, log))
    if trial.killed is not None and code == KILLED:
        code = ended(child(lambda: learn(recipe, folder), log))
    if code:
        return dict.fromkeys(CHECKS, False) | {"distance": 1.0, "behind": 0}
    events = [line for line in RunFolder(folder).read_lines("events.jsonl") if line["event"] == "out_of_memory"]
    receipt, sizes = RunFolder(folder).read_json("receipt.json"), [event["micro_batch_tokens"] for event in events]
    distance, met = _distance(folder, whole), json.loads(told.read_text())
    found = {
        "finished": True,
        "all_met": met["not_met"] == 0,
        "told": _is_told(trial, events, log.read_text()),
        "receipt": receipt["events"].get("out_of_memory") == len(trial.failures)
        and receipt["micro_batch_tokens"] == sizes[-1],
        "same_bytes": left_by(folder) == left_by(_oracle(world, trial, sizes)),
        "as_without_failure": trial.dropout or distance <= ROUNDING,
        "distance": distance,
        "behind": met["behind"],
    }
    if all(found[name] for name in CHECKS):
        shutil.rmtree(folder)
    return found


def _is_told(trial: Trial, events: list[dict[str, Any]], log: str) -> bool:
    """Whether every failure is in the events, with what was said and ever less at once, and in the log.

    Less is half of the tokens, or as many single rows with their layers recomputed.
    """
    said = [(failure.step, str(ERRORS[failure.error]())) for failure in trial.failures]
    less = [(event["micro_batch_tokens"], not event["gradient_checkpointing"]) for event in events]
    return (
        [(event["step"], event["said"] if words else "") for event, (_, words) in zip(events, said, strict=False)]
        == said
        and less == sorted(set(less), reverse=True)
        and all(
            f"out of memory; from now on {size} tokens at once{', layers recomputed' * (not kept)}, the same" in log
            for size, kept in less
        )
    )


def _oracle(world: World, trial: Trial, sizes: list[int]) -> Path:
    """A run that computes as little at once from the same updates on."""
    folder, recipe = world.folder / f"memory-{trial.number}-oracle", trial.recipe(world)

    def less() -> None:
        compute_less(list(zip(trial.failures, sizes, strict=False)))
        learn(recipe, folder)

    log = folder.with_suffix(".log")
    assert ended(child(less, log)) == 0, log.read_text()
    return folder


def _distance(one: Path, other: Path) -> float:
    """How far the weights of the last update of two runs are apart, at most."""
    weights = [load_file(checkpoint.by_step(run / "checkpoints")[0] / checkpoint.WEIGHTS) for run in (one, other)]
    return max(float(abs(weights[0][name] - weights[1][name]).max()) for name in weights[1])


# ---- the optimizer's step ------------------------------------------------------------------------------------------------


def bytes_of_a_step(world: World, method: str) -> int:
    """What the first step of a run takes of torch's allocator, also where it gives it back."""
    folder = world.folder / f"step-{method}"
    told, log = folder.with_suffix(".json"), folder.with_suffix(".log")

    def only_a_step() -> None:
        right = torch.optim.AdamW.step

        def step(optimizer: torch.optim.Optimizer) -> None:
            with taken() as found:
                right(optimizer)
            told.write_text(json.dumps(found[0]))

        torch.optim.AdamW.step = step
        learn(world.recipe(method, max_steps=1), folder)

    assert ended(child(only_a_step, log)) == 0, log.read_text()
    return int(json.loads(told.read_text()))


@contextmanager
def taken() -> Iterator[list[int]]:
    """How many bytes torch's allocator gives inside, filled in afterwards."""
    found: list[int] = []
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        yield found
    events = seen.profiler.kineto_results.events()
    found.append(sum(max(0, event.nbytes()) for event in events if event.name() == "[memory]"))


if __name__ == "__main__":
    print_figures(run, __doc__, 50)
