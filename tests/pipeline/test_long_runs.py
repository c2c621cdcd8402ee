"""A long run costs as much at its end as at its beginning, and one that is resumed repeats no work on its rows."""

from __future__ import annotations

import gc
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import pegbox
from pegbox import pipeline
from pegbox.data.codec import Codec
from pegbox.data.preparing import Preparation
from pegbox.runs.folder import RunFolder
from pegbox.training import batching, loop
from pegbox.training.job import Job
from tiny_folder import causal_folder, chat_recipe, sums, write_rows

ROWS, BATCH, UPDATES = 120, 4, 150
LEARNT = 50  # rows, at least


def recipe(folder: Path, steps: int) -> dict[str, Any]:
    train = {"max_steps": steps, "batch_size": BATCH, "eval_steps": 10_000, "report_to": []}
    return chat_recipe(causal_folder(folder / "model"), write_rows(folder / "rows.jsonl", sums(ROWS)), train=train)


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often rows are prepared and encoded meanwhile."""
    found: Counter[str] = Counter()

    def counting(owner: type, name: str) -> None:
        plain = getattr(owner, name)

        def told(*given: Any, **named: Any) -> Any:
            found[name] += 1
            return plain(*given, **named)

        monkeypatch.setattr(owner, name, told)

    with monkeypatch.context():
        for owner, name in ((Preparation, "build"), (Preparation, "_encoded"), (Codec, "look_ahead")):
            counting(owner, name)
        yield found


def test_a_run_that_is_resumed_prepares_and_encodes_no_row_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEGBOX_CACHE", str(tmp_path / "cache"))
    with counted(monkeypatch) as first:
        run = pegbox.train(recipe(tmp_path, 2), run_dir=tmp_path / "run")
    assert first["build"] == 1 and first["_encoded"] == ROWS and first["look_ahead"] > 0
    shutil.rmtree(run.folder.checkpoints / "step-2")
    shutil.rmtree(run.folder.checkpoints / "step-1", ignore_errors=True)
    with counted(monkeypatch) as again:
        pipeline.resume(run.path)
    assert again == Counter()


def test_work_that_is_repeated_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget = pipeline.resume

    def forgetful(run_dir: Path) -> pegbox.Run:
        shutil.rmtree(tmp_path / "cache")
        return forget(run_dir)

    monkeypatch.setattr(pipeline, "resume", forgetful)
    with pytest.raises(AssertionError):
        test_a_run_that_is_resumed_prepares_and_encodes_no_row_again(tmp_path, monkeypatch)


class Costs:
    """Of every update: how often a file of rows was read, an epoch's order drawn, a log read; and the objects alive behind it.

    Bytes would tell less: the kernels that the processor's library keeps for each shape are many at first.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.updates: list[Counter[str]] = [Counter()]
        self.objects: list[int] = []
        self._count(monkeypatch, os, "pread")
        self._count(monkeypatch, torch, "randperm")
        self._count(monkeypatch, RunFolder, "read_lines")
        logged: Callable[..., None] = loop._log_update

        def measured(*given: Any) -> None:
            logged(*given)
            if len(self.updates) in (UPDATES // 2, UPDATES - 1):
                gc.collect()
                self.objects.append(len(gc.get_objects()) - len(self.updates))
            self.updates.append(Counter())

        monkeypatch.setattr(loop, "_log_update", measured)

    def _count(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        plain = getattr(owner, name)

        def told(*given: Any, **named: Any) -> Any:
            self.updates[-1][name] += 1
            return plain(*given, **named)

        monkeypatch.setattr(owner, name, told)


class Trained(Exception):
    """What comes behind the training is left out."""


def costs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Costs:
    """What the updates of several epochs cost."""
    monkeypatch.setenv("PEGBOX_CACHE", str(folder / "cache"))

    def judged(*_: object) -> None:
        raise Trained

    monkeypatch.setattr(pipeline, "_judge", judged)
    seen = Costs(monkeypatch)
    with pytest.raises(Trained):
        pegbox.train(recipe(folder, UPDATES), run_dir=folder / "run")
    return seen


def flaws(seen: Costs) -> set[str]:
    """What is not flat: rows read by an update, orders drawn, logs read again, objects that pile up."""
    after = seen.updates[1:UPDATES]
    found = {
        "rows": any(one["pread"] > BATCH for one in after),
        "orders": sum(one["randperm"] for one in after) > UPDATES * BATCH / LEARNT + 1,
        "logs": any(one["read_lines"] for one in after),
        "objects": seen.objects[1] - seen.objects[0] > UPDATES // 4,
    }
    return {name for name, there in found.items() if there}


def test_the_updates_of_a_long_run_cost_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert flaws(costs(tmp_path, monkeypatch)) == set()


def test_updates_that_cost_more_and_more_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[list[int]] = []
    right = loop.take_update

    def careless(job: Job, *rest: Any) -> loop.Update:
        kept.append([len(kept)])
        list(job.run.read_lines("metrics.jsonl"))
        list(job.train[: BATCH + 1])
        return right(job, *rest)

    monkeypatch.setattr(loop, "take_update", careless)
    monkeypatch.setattr(batching, "_order", batching._order.__wrapped__)
    assert flaws(costs(tmp_path, monkeypatch)) == {"rows", "orders", "logs", "objects"}
