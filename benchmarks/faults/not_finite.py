"""NaN, inf and spikes, put where numbers come from: told in the same update, with its rows, and never applied.

Not finite, at a drawn update: the target of a row (a number, or the weight of a token), what its embedding gives, the output of
a module, the gradient behind one, the gradient of a weight, or an entry of a weight, learnt or frozen. Where a fault is of one
row, it comes whenever that row is computed, alone or with others, and that row alone is to be named. Spikes are in spiking.py.

Left out is what enters no number of the update: a loss weight of NaN or -inf (such a token is not learnt), the embedding of a
token that no row has, a bias of -inf before a relu, and the queries and keys of a first layer below which nothing learns: on a
CPU torch's attention takes NaN in them for zero where rows are short (pytorch/pytorch, issue 141128).
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # Python puts this folder first; its files are modules of `faults`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
import math
import random
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from faults.only_training import learn, updates
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

from faults import spiking
from pegbox.data.records import Example
from pegbox.errors import TrainingError
from pegbox.runs import checkpoint
from pegbox.runs.folder import RunFolder
from pegbox.training import loop
from pegbox.training.job import Job
from tiny_folder import sums, write_rows

PLACES = ("target", "input", "output", "gradient behind", "gradient", "weight")
VALUES = (math.nan, math.inf, -math.inf)
TASKS = ("chat", "regression")
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "layernorm", "model.norm")
HIDDEN = ("layers.0.self_attn.q_proj", "layers.0.self_attn.k_proj")
CHECKS = ("exit_4", "same_update", "not_applied", "checkpoint_whole", "rows", "first", "message", "resumed_same_bytes")


@dataclass(frozen=True)
class Fault:
    """A number that is not finite. `alone`: it comes with one row of the update, else with every one."""

    place: str
    value: float
    task: str
    method: str
    step: int
    alone: bool
    number: int

    @classmethod
    def drawn(cls, seed: int, number: int) -> Fault:
        """The places in turn, the rest drawn."""
        draw, place = random.Random(f"numbers {seed} {number}"), PLACES[number % len(PLACES)]
        task, value, alone = draw.choice(TASKS), draw.choice(VALUES), draw.random() < 0.5
        if place == "target" and task == "chat":
            value = math.inf
        alone = place in ("target", "input") or (alone and place != "weight")
        return cls(place, value, task, draw.choice(list(METHODS)), draw.randint(1, STEPS), alone, number)


class Trap:
    """A fault in a job, for as long as `active`. `first`: the part of the model that it begins in; `rows`: of which."""

    def __init__(self, fault: Fault, job: Job, examples: Sequence[Example]) -> None:
        self.fault, self.model, self.active, self.met = fault, job.model, False, False
        self.draw = random.Random(f"trap {fault}")
        used = {token for example in job.train for token in example.input_ids}
        self.mark = max(set(range(job.model.config.vocab_size)) - used)
        self.guilty = self.draw.randrange(len(examples))
        self.embedding = job.model.get_input_embeddings()
        self.embedding.register_forward_hook(self._look)
        self.weight = self.draw.choice([pair for pair in job.model.named_parameters() if self._enters(pair[0])])
        self.token = self.draw.choice(examples[self.guilty].input_ids)
        plant = {"output": self._plant_output, "gradient behind": self._plant_behind, "gradient": self._plant_gradient}
        self.first = plant.get(fault.place, self._named)()
        self.rows = [example.where for example in examples if self._spoils(example, examples[self.guilty])]

    @property
    def acts(self) -> bool:
        """Whether what is computed now is to be spoilt."""
        return self.active and (self.met or not self.fault.alone)

    def changed(self, example: Example) -> Example:
        """The guilty row: with a token that no other row has, by which it is known, or a wrong target."""
        if self.fault.place != "target":
            middle = len(example) // 2
            return replace(
                example, input_ids=(*example.input_ids[:middle], self.mark, *example.input_ids[middle + 1 :])
            )
        if example.targets:
            return replace(example, targets=(self.fault.value,))
        last = max(at for at, weight in enumerate(example.loss_weights) if weight > 0)
        weights = [self.fault.value if at == last else weight for at, weight in enumerate(example.loss_weights)]
        return replace(example, loss_weights=tuple(weights))

    def spoil(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy with one entry of the last dimension (everywhere in the others) of the fault's value."""
        spoilt = tensor.clone()
        spoilt[..., self.fault.number % tensor.shape[-1]] = self.fault.value
        return spoilt

    def set_weight(self) -> None:
        """Just before the update: one entry of a weight."""
        name, parameter = self.weight
        flat, last = parameter.detach().view(-1), parameter.shape[-1]
        place = self.draw.randrange(flat.numel())
        if parameter is self.embedding.weight:
            place = self.token * last + place % last
        flat[place] = abs(self.fault.value) if name.endswith("down.bias") else self.fault.value

    def _spoils(self, example: Example, guilty: Example) -> bool:
        """Whether the fault comes with this row of its update."""
        tied = self.model.get_output_embeddings()  # none where the outputs are numbers
        if self.fault.place == "weight" and self.weight[1] is self.embedding.weight and tied is None:
            return self.token in example.input_ids
        return example is guilty or not self.fault.alone

    def _look(self, module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        marked = inputs[0] == self.mark
        self.met = bool(marked.any())
        if not (self.active and self.fault.place == "input"):
            return output
        return torch.where(marked[..., None], self.spoil(output), output)

    def _named(self) -> str:
        if self.fault.place == "target":
            return "the loss"
        return "the output of model.embed_tokens" if self.fault.place == "input" else f"the weights {self.weight[0]}"

    def _enters(self, name: str) -> bool:
        return self.fault.method != "adapter" or not any(part in name for part in HIDDEN)

    def _module(self, among: str) -> tuple[str, torch.nn.Module]:
        every = [pair for pair in self.model.named_modules() if pair[0].endswith(MODULES) and self._enters(pair[0])]
        return self.draw.choice([(name, module) for name, module in every if among in name])

    def _plant_output(self) -> str:
        name, module = self._module("")
        module.register_forward_hook(lambda module, inputs, output: self.spoil(output) if self.acts else output)
        return f"the output of {name}"

    def _plant_behind(self) -> str:
        name, module = self._module("layers.1.")  # before it, with frozen weights, is nothing that has a gradient

        def after(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
            if self.acts and output.requires_grad:
                output.register_hook(self.spoil)

        module.register_forward_hook(after)
        return f"the gradient behind {name}"

    def _plant_gradient(self) -> str:
        name, parameter = self.draw.choice(list(checkpoint.trainable(self.model).items()))
        parameter.register_hook(lambda grad: self.spoil(grad) if self.acts else grad)
        return f"the gradient of {name}"


def plant(fault: Fault, told: Path) -> None:
    """In a child: let its run meet the fault, and write into `told` what should be said of it, and what it changed."""
    train, take_update, examples_of, traps = loop.train, loop.take_update, Job.examples_of, []

    def begin(job: Job, state: checkpoint.TrainState) -> checkpoint.TrainState:
        traps.append(Trap(fault, job, examples_of(job, fault.step - 1)))
        return train(job, state)

    def examples(job: Job, step: int) -> list[Example]:
        found = examples_of(job, step)
        if step == fault.step - 1 and fault.alone:
            found[traps[0].guilty] = traps[0].changed(found[traps[0].guilty])
        return found

    def take(job: Job, optimizer: torch.optim.Optimizer, step: int) -> loop.Update:
        trap = traps[0]
        trap.active = step == fault.step - 1
        if trap.active and fault.place == "weight":
            trap.set_weight()
        before = bits(job, optimizer)
        try:
            return take_update(job, optimizer, step)
        except TrainingError:
            facts = {"not_applied": bits(job, optimizer) == before, "first": trap.first, "rows": trap.rows}
            told.write_text(json.dumps(facts))
            raise
        finally:
            trap.active = False

    loop.train, loop.take_update, Job.examples_of = begin, take, examples  # type: ignore[method-assign]


def bits(job: Job, optimizer: torch.optim.Optimizer) -> list[bytes]:
    """Every weight, buffer and moment, bit by bit: so that NaN is equal to itself."""
    moments = [value for state in optimizer.state.values() for value in state.values()]
    held = [*job.model.parameters(), *job.model.buffers(), *moments]
    return [tensor.detach().numpy().tobytes() for tensor in held]


# ---- not finite ------------------------------------------------------------------------------------------------------


def run(world: World, count: int = 100, seed: int = 0, workers: int = 2) -> dict[str, Any]:
    """`count` numbers that are not finite, as many spikes, and what is told where there is none."""
    faults = [Fault.drawn(seed, number) for number in range(count)]
    return {"not_finite": not_finite(world, faults, workers), **spiking.run(world, count, seed, workers)}


def recipe_of(world: World, task: str, method: str) -> dict[str, Any]:
    """The world's run in two micro-batches an update, or one of the same texts with a number each."""
    recipe = world.recipe(method, micro_batch_size=2)
    if task == "chat":
        return recipe
    return recipe | {
        "task": task,
        "data": {"train": str(world.folder / "scores.jsonl"), "validation": 0.2, "test": 0.3},
    }


def not_finite(world: World, faults: Sequence[Fault], workers: int = 2) -> dict[str, Any]:
    """In how many runs, each with one fault, what should be was so."""
    draw = random.Random(0)
    write_rows(world.folder / "scores.jsonl", [{"text": row["prompt"], "score": draw.gauss(3, 2)} for row in sums(60)])
    kinds = sorted({(fault.task, fault.method) for fault in faults})
    folders = [world.folder / f"numbers-{task}-{method}" for task, method in kinds]

    def whole(index: int) -> None:
        log, recipe = folders[index].with_suffix(".log"), recipe_of(world, *kinds[index])
        assert ended(child(lambda: learn(recipe, folders[index]), log)) == 0, log.read_text()

    side_by_side(whole, len(kinds), workers)
    unharmed = dict(zip(kinds, folders, strict=True))
    pairs = [(fault, unharmed[fault.task, fault.method]) for fault in faults]
    found = side_by_side(lambda index: meet(world, *pairs[index]), len(faults), workers)
    return {
        "faults": len(faults),
        **{check: sum(one[check] for one in found) for check in CHECKS},
        "by_place": dict(Counter(fault.place for fault in faults)),
        "of_one_row": sum(fault.alone for fault in faults),
        "wrong": [_wrong(fault, one) for fault, one in zip(faults, found, strict=True) if not all(one.values())],
    }


def _wrong(fault: Fault, found: Mapping[str, bool]) -> dict[str, Any]:
    return asdict(fault) | {"value": str(fault.value), "wrong": [check for check in CHECKS if not found[check]]}


def meet(world: World, fault: Fault, whole: Path) -> dict[str, bool]:
    """What of all that should be was so in a run with the fault, and when it went on without."""
    folder = world.folder / f"numbers-{fault.number}"
    log, told = folder.with_suffix(".log"), folder.with_suffix(".json")
    recipe = recipe_of(world, fault.task, fault.method)

    def fail() -> None:
        plant(fault, told)
        learn(recipe, folder)

    code = ended(child(fail, log))
    wanted = json.loads(told.read_text()) if told.is_file() else {"not_applied": False, "rows": None, "first": None}
    before = [line for line in updates(whole) if line["step"] < fault.step]
    events = [line for line in RunFolder(folder).read_lines("events.jsonl") if line["event"] == "not_finite"]
    event: dict[str, Any] = events[-1] if events else {"step": None, "rows": (), "first": ""}
    newest = checkpoint.newest(folder / "checkpoints")
    found = {
        "exit_4": code == 4,
        "same_update": updates(folder) == before and event["step"] == fault.step,
        "not_applied": wanted["not_applied"],
        "checkpoint_whole": (checkpoint.step_of(newest) if newest else 0)
        == (fault.step - 1) // SAVE_STEPS * SAVE_STEPS,
        "rows": event["rows"] == wanted["rows"],
        "first": event["first"] == wanted["first"],
        "message": _is_said(fault, log.read_text(), event, before, updates(whole)[fault.step - 1]["learning_rate"]),
    }
    again = ended(child(lambda: learn(recipe, folder), log))
    found["resumed_same_bytes"] = again == 0 and left_by(folder) == left_by(whole)
    if all(found.values()):
        shutil.rmtree(folder)
    return found


def _is_said(
    fault: Fault, log: str, event: Mapping[str, Any], before: Sequence[Mapping[str, Any]], rate: float
) -> bool:
    norms = ", ".join(f"{line['grad_norm']:.3g}" for line in before[-5:]) or "none"
    said = f"First in {event['first']}; learning rate {rate:.3g}; gradient norms before: {norms}"
    return f"update {fault.step}: " in log and said in log and all(row in log for row in event["rows"])


if __name__ == "__main__":
    print_figures(run, __doc__, 100)
