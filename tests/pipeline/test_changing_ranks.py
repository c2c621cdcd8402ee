"""INVARIANTS rows 2 and 16: a run that goes on with two processes, then with one again, takes the updates of one.

Killed in update 5, gone on with by two processes under torchrun, killed in update 9, gone on with by one. Sums over two
processes are rounded otherwise: the weights stay within 1e-6, the rows of every update are the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import pegbox
from pegbox import pipeline
from pegbox.runs import checkpoint
from pegbox.training import loop
from tiny_folder import chat_home, chat_recipe

HERE = Path(__file__).resolve()
UPDATES = 12


def recipe_of(home: Path) -> dict[str, Any]:
    train = {"max_steps": UPDATES, "batch_size": 7, "learning_rate": 1e-3, "save_steps": 4, "eval_steps": 4}
    evaluate = {"max_new_tokens": 2, "few_shot": 0, "max_rows": 4}
    return chat_recipe(home / "model", home / "rows.jsonl", train=train | {"report_to": []}, evaluate=evaluate)


def work(home: Path, run: Path, last: int) -> None:
    """Train or go on until update `last`, then be killed; every rank notes the rows that it took."""
    right = loop.take_update

    def update(job: Any, optimizer: Any, step: int) -> Any:
        if step == last:
            os._exit(0)
        examples = job.examples_of(step)
        rows = [example.where for example in examples[job.ranks.share(len(examples))]]
        with (home / f"rows-{run.name}.jsonl").open("a") as log:
            log.write(json.dumps([step, job.ranks.rank, rows]) + "\n")
        return right(job, optimizer, step)

    loop.take_update = update
    if (run / "recipe.yaml").exists():
        pipeline.resume(run)
    else:
        pegbox.train(recipe_of(home), run_dir=run)


def told(home: Path, run: Path, last: int, processes: int) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    paths = {
        "PYTHONPATH": os.pathsep.join(
            map(str, (HERE.parents[1], HERE.parents[1] / "data", os.environ.get("PYTHONPATH", "")))
        )
    }
    words = [*(command if processes > 1 else [sys.executable]), str(HERE), str(home), str(run), str(last)]
    done = subprocess.run(words, env={**os.environ, **paths}, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr


def rows_of(home: Path, run: Path) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for line in (home / f"rows-{run.name}.jsonl").read_text().splitlines():
        step, _, rows = json.loads(line)
        found[step] = sorted({*found.get(step, []), *rows})
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_home(tmp_path_factory.mktemp("home"))


def test_one_then_two_then_one_process_take_the_updates_of_one(home: Path) -> None:
    whole, mixed = home / "whole", home / "mixed"
    told(home, whole, UPDATES + 1, 1)
    for last, processes in ((5, 1), (9, 2), (UPDATES + 1, 1)):
        told(home, mixed, last, processes)
    assert rows_of(home, mixed) == rows_of(home, whole)
    one, other = (load_file(run / "checkpoints" / f"step-{UPDATES}" / checkpoint.WEIGHTS) for run in (whole, mixed))
    assert max((one[name] - other[name]).abs().max().item() for name in one) < 1e-6
    assert any(not torch.equal(one[name], other[name]) for name in one), "two processes had no part in it"
    first, second = (
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (whole, mixed)
    )
    for name in ("loss", "step", "tokens", "learning_rate"):
        assert [line.get(name, 0) for line in first] == pytest.approx([line.get(name, 0) for line in second], abs=1e-5)
    events = [json.loads(line) for line in (mixed / "events.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events] == [4, 8]


if __name__ == "__main__":
    work(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
