"""INVARIANTS row 2: several processes take the same updates as one, a rank without a row included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_update import make_job, parameters_after

from pegbox import runtime

HERE = Path(__file__).resolve()
MUTANT = "average"  # as DistributedDataParallel does it: every rank divides, then the mean is taken


def work(folder: Path, mutant: str) -> None:
    """One rank of a run of ten updates; the first rank writes what came out."""
    with runtime.joined_ranks() as ranks:
        if mutant == MUTANT:
            right = runtime.Ranks.sum_gradients

            def average(self: runtime.Ranks, parameters: list[torch.nn.Parameter]) -> None:
                right(self, parameters)
                for parameter in parameters:
                    if parameter.grad is not None:
                        parameter.grad.div_(self.world)

            runtime.Ranks.sum_gradients = average  # type: ignore[method-assign,assignment]
        job = replace(make_job(folder / f"rank-{ranks.rank}", micro_batch_rows=2), ranks=ranks)
        found, losses = parameters_after(job, 10)
        if ranks.is_first:
            save_file({"parameters": found}, folder / "found.safetensors")
            (folder / "losses.json").write_text(json.dumps(losses))


def check_ranks_agree(folder: Path, processes: int, mutant: str = "") -> None:
    wanted, losses = parameters_after(make_job(folder / "one"), 10)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    paths = {
        "PYTHONPATH": os.pathsep.join([*map(str, (HERE.parent, HERE.parent.parent)), os.environ.get("PYTHONPATH", "")])
    }
    subprocess.run([*command, str(HERE), str(folder), mutant], check=True, timeout=120, env={**os.environ, **paths})
    found = load_file(folder / "found.safetensors")["parameters"]
    assert (found - wanted).abs().max() < 1e-10
    assert json.loads((folder / "losses.json").read_text()) == pytest.approx(losses, abs=1e-10)


@pytest.mark.parametrize("processes", [2, 4])
def test_several_ranks_take_the_updates_of_one(tmp_path: Path, processes: int) -> None:
    check_ranks_agree(tmp_path, processes)


def test_averaged_gradients_are_caught(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check_ranks_agree(tmp_path, 2, MUTANT)


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
