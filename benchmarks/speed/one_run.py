"""`python one_run.py prepare|share|floor|run FOLDER`: one step of the bench in a process of its own.

So the peak of memory and the time to the first update are its own, and nothing of another peer is imported or warm. What
is asked stands in FOLDER/asked.json, what was found is left in FOLDER/figures.json.
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder: its files are modules of `speed`

from pegbox.runs import environment  # noqa: E402

environment.settle()

from speed.workloads import Workload  # noqa: E402

from pegbox import runtime  # noqa: E402
from speed import workloads  # noqa: E402


def main(step: str, folder: Path) -> None:
    asked = json.loads((folder / "asked.json").read_text(encoding="utf-8"))
    found = STEPS[step](_workload(asked), asked, folder)
    (folder / "figures.json").write_text(json.dumps(found), encoding="utf-8")


def _workload(asked: dict[str, Any]) -> Workload:
    every = workloads.WORKLOADS | (workloads.for_gpus() if asked["device"] == "cuda" else {})
    one = every[asked["workload"]]
    return workloads.small(one) if asked["small"] else one


def share(workload: Workload, asked: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The rows and the model of a workload."""
    from speed import prepared

    prepared.share(workload, Path(asked["shared"]))
    return {}


def prepare(workload: Workload, asked: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What everybody is given for a seed; says what the rows are like."""
    from speed import given, prepared

    prepared.prepare(workload, Path(asked["shared"]), Path(asked["start"]), asked["seed"])
    return given.about(given.given(Path(asked["start"])))


def run(workload: Workload, asked: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A peer's updates, measured."""
    runtime.tune_allocator()
    from speed.clock import Clock
    from speed.judging import held_out_loss
    from speed.peer import Asked
    from speed.peers import PEERS

    clock = Clock(runtime.find_device())
    job = Asked(workload, Path(asked["shared"]), Path(asked["start"]), folder, asked["seed"])
    training = PEERS[asked["peer"]](job)
    training.run()
    clock.stop()
    ends = clock.ends[-workload.steps :]  # pegbox's plan tries an optimizer's step of its own before the first update
    return {
        "first_step": ends[0],
        "seconds": [after - before for before, after in pairwise(ends)][workload.warm_up - 1 :],
        "tokens": job.given.tokens[workload.warm_up :],
        "peak_memory": clock.peak,
        "evaluation_loss": held_out_loss(training.model, job.given.held_out),
    }


def floor(workload: Workload, asked: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The bare matrix products of an update of the workload, whose weights are not needed."""
    runtime.tune_allocator()
    import torch
    from floor import measure
    from speed.given import about, given

    from pegbox.models.load import load_model

    rows = given(Path(asked["start"]))
    told, head = about(rows), "embedding" if workload.task == "classification" else "causal_lm"
    device = runtime.find_device()
    dtype = torch.bfloat16 if runtime.use_bf16(device, None) else torch.float32
    model = load_model(rows.base, head, device=device, dtype=dtype, kernels=False)
    return measure(model, round(told["tokens_per_update"]), round(told["learnt_per_update"]), workload.method.get("r"))


STEPS = {"share": share, "prepare": prepare, "run": run, "floor": floor}

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
