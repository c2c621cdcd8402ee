"""Too little memory, for real: a limit on the address space (RLIMIT_AS) at which four rows do not fit, and fewer do.

Without kernels: oneDNN, once it could not allocate the code of a product, creates no new one in the same thread, however much
is free by then (3.12 and before; uxlfoundation/oneDNN, pull request 5907), so that a run with kernels may end where one
without halves.
"""

from __future__ import annotations

import random
import resource
from pathlib import Path
from typing import Any

import torch
from faults.only_training import leave_evaluation
from faults.world import World, child, ended
from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

import pegbox
from pegbox.runs import checkpoint
from pegbox.runs.folder import RunFolder
from pegbox.training import loop
from pegbox.training.job import Job
from pegbox.training.measured import Cost
from pegbox.training.probe import Probe
from tiny_folder import write_rows

# Bytes beyond what the process holds when training begins; what its heap has not given back it may use as well, and each
# thread sets some aside. So "fewer rows fit" is the first of these limits, the widest first, that four rows do not fit in.
LIMITS = range(600 << 20, 0, -(50 << 20))


def run(world: World) -> dict[str, Any]:
    """What became of a run for which fewer rows fit, or not one; and with kernels."""
    make(world)
    return limits(world) | {"fewer rows fit, with kernels": tightened(world, "with kernels", kernels=True)}


def limits(world: World) -> dict[str, Any]:
    """What became of a run for which fewer rows fit, and of one for which not one does."""
    return {"fewer rows fit": tightened(world, "fewer"), "not one row fits": limited(world, "none", 0)}


def tightened(world: World, name: str, *, kernels: bool = False) -> dict[str, Any]:
    """The first run that does not fit as it is, under ever tighter limits."""
    for margin in LIMITS:
        found = limited(world, f"{name} {margin >> 20}", margin, kernels=kernels)
        if found["halved"] or found["exit_code"]:
            return found
    raise AssertionError("four rows fit into nothing")


def make(world: World) -> None:
    """A wide model and long rows, beside the world's."""
    wide = world.folder / "wide"
    draw = random.Random(0)
    numbers = [" ".join(str(draw.randrange(60)) for _ in range(120)) for _ in range(24)]
    write_rows(world.folder / "long.jsonl", [{"prompt": f"{i} and", "completion": n} for i, n in enumerate(numbers)])
    assert ended(child(lambda: _widened(world.folder / "model", wide), wide.with_suffix(".log"))) == 0


def _widened(model: Path, folder: Path) -> None:
    """The world's model with a feed-forward layer so wide that a token takes a quarter of a megabyte."""
    config = AutoConfig.from_pretrained(model)
    config.intermediate_size = 8192
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)


def limited(world: World, name: str, margin: int, *, kernels: bool = False) -> dict[str, Any]:
    """What became of a run that may take no more than so many bytes of address space once training begins."""
    folder = world.folder / name.replace(" ", "-")
    recipe = world.recipe("lora", max_steps=2, micro_batch_size=4)
    recipe |= {"model": str(world.folder / "wide"), "method": {"kind": "lora", "r": 4}}
    recipe["data"] = recipe["data"] | {"train": str(world.folder / "long.jsonl")}

    def learn() -> None:
        train = loop.train

        def begin(job: Job, state: checkpoint.TrainState) -> checkpoint.TrainState:
            resource.setrlimit(resource.RLIMIT_AS, (_held() + margin, resource.RLIM_INFINITY))
            try:
                return train(job, state)
            finally:
                resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

        loop.train = begin
        # a plan that has tried nothing: the limit is met unprepared, with a heap that has not grown yet
        Probe.update = lambda self, pieces: Cost(0.1, 1 << 20)  # type: ignore[method-assign]
        leave_evaluation()
        pegbox.train(recipe, run_dir=folder, kernels=kernels)

    log = folder.with_suffix(".log")
    code = ended(child(learn, log))
    receipt = RunFolder(folder).read_json("receipt.json")
    return {
        "exit_code": code,
        "halved": [line["micro_batch_tokens"] for line in RunFolder(folder).read_lines("events.jsonl")],
        "receipt": {name: receipt.get(name) for name in ("events", "micro_batch_tokens")},
        "said": [line for line in log.read_text().splitlines() if "out of memory" in line],
    }


def _held() -> int:
    """Bytes of address space of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmSize:"))) * 1024
