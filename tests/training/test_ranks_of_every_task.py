"""INVARIANTS row 2 for every task, and for losses that weigh: several ranks take the updates of one process.

An update has 5 rows, the last of an epoch 3, so that one of four ranks has none of it. After 10 updates weights and losses
are equal: to 1e-10 in float64, unclipped, and weights to 5e-5 in float32, clipped. Every row is one rank's, once an epoch.

All is made ready once and read by all ranks: torchrun's launcher, called from Python, forks them from the process that has
it. `test_ranks.py` starts them as a user does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_every_loss import (
    BALANCED,
    BATCH,
    BINARY,
    BRIER,
    CROSS,
    EPOCH,
    EXACT,
    FOCAL,
    FORMS,
    MODELS,
    PARTS,
    ROUNDED,
    THINGS,
    UPDATES,
    Loss,
    book_losses,
    gradient,
    job_of,
    learn,
    made_models,
    made_ready,
    named,
    settled,
    with_loss,
)
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from pegbox.data.records import Example
from pegbox.models.batch import Batch
from pegbox.pipeline import Ready
from pegbox.runtime import ALONE, Ranks, joined_ranks
from pegbox.training import loop
from pegbox.training.job import Job

HERE = Path(__file__).resolve()
PATHS = (HERE.parent, HERE.parents[1], HERE.parents[1] / "data")
CASES: Sequence[tuple[str, Loss]] = [
    *((form, None) for form in FORMS),
    ("classification", CROSS | BALANCED),
    ("classification", FOCAL | {"class_weights": THINGS}),
    ("multilabel", BINARY | BALANCED),
    ("multilabel", FOCAL | {"class_weights": PARTS}),
    ("token_classification", FOCAL | BALANCED),
    ("chat", BRIER),
]
NAMES = [named(*case) for case in CASES]
WORLDS = (2, 4)
Learnt = tuple[torch.Tensor, list[float]]
Rows = list[list[str]]  # where the rows of each update stand


def all_ready(models: Path, folder: Path) -> dict[str, Ready]:
    kinds = {kind: models / kind for kind in MODELS}
    return {form: made_ready(form, kinds, folder / form) for form in FORMS}


def job_in(dtype: torch.dtype, ready: Ready, folder: Path, ranks: Ranks = ALONE, **plan: Any) -> Job:
    ready.model.to(dtype)
    job = job_of(ready, folder, **plan)
    clipped = {"max_grad_norm": 1.0 if dtype == torch.float32 else 1e9}
    return replace(job, ranks=ranks, settings=job.settings.model_copy(update=clipped))


# ---- a rank ----------------------------------------------------------------------------------------------------------


def launch(models: Path, folder: Path) -> None:
    """Two ranks, then four, in a folder each."""
    runs = all_ready(models, folder)
    for world in WORLDS:
        (folder / str(world)).mkdir()
        config = LaunchConfig(
            *(1, 1, world),
            logs_specs=DefaultLogsSpecs(log_dir=str(folder)),
            run_id=f"{world} ranks",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            start_method="fork",
        )
        elastic_launch(config, work)(models, folder / str(world), runs)


def work(models: Path, folder: Path, runs: Mapping[str, Ready]) -> None:
    """One rank: all cases, and of two ranks each form with averaged gradients too. The first rank writes what was learnt."""
    learnt, rows = dict[str, Learnt](), dict[str, Rows]()
    with joined_ranks() as ranks:
        for (form, loss), name in zip(CASES, NAMES, strict=True):
            ready = with_loss(runs[form], loss, models)
            exact = job_in(torch.float64, ready, folder, ranks, micro_batch_rows=2)
            with noted(exact, rows.setdefault(name, [])):
                learnt[f"{name}, float64"] = learn(exact)
            if loss is None and ranks.world == 2:
                with averaged():
                    learnt[f"{name}, averaged"] = learn(exact)
            learnt[f"{name}, float32"] = learn(job_in(torch.float32, ready, folder, ranks, micro_batch_rows=2))
        (folder / f"rows-{ranks.rank}.json").write_text(json.dumps(rows))
        if ranks.is_first:
            save_file({name: weights for name, (weights, _) in learnt.items()}, folder / "weights.safetensors")
            (folder / "losses.json").write_text(json.dumps({name: losses for name, (_, losses) in learnt.items()}))


@contextmanager
def averaged() -> Iterator[None]:
    """Bug: every rank divides by the weight of all, and then the mean is taken, as DistributedDataParallel does."""
    right = Ranks.sum_gradients

    def average(self: Ranks, parameters: Iterable[torch.nn.Parameter]) -> None:
        given = list(parameters)
        right(self, given)
        for parameter in given:
            parameter.grad /= self.world

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ranks, "sum_gradients", average)
        yield


@contextmanager
def noted(job: Job, rows: Rows) -> Iterator[None]:
    """Note which rows this rank computes in each update."""
    take, collate = loop.take_update, job.task.collate

    def collating(examples: Sequence[Example], **how: bool) -> Batch:
        rows[-1] += [Path(example.where).name for example in examples]
        return collate(examples, **how)

    def taking(job: Job, optimizer: torch.optim.Optimizer, step: int) -> loop.Update:
        rows.append([])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(job.task, "collate", collating)
            return take(job, optimizer, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "take_update", taking)
        yield


# ---- one process, and several ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Alone:
    """What one process learns; `settled` [P]: which weights float32 can be told by."""

    exact: Learnt
    rounded: Learnt
    settled: torch.Tensor


@dataclass(frozen=True)
class Together:
    """What several ranks learnt, by case and kind of run, and the rows that each of them computed."""

    learnt: Mapping[str, Learnt]
    rows: Sequence[Mapping[str, Rows]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models' folders, made once: a tokenizer that is trained again is another one."""
    folder = tmp_path_factory.mktemp("models")
    made_models(folder)
    return folder


@pytest.fixture(scope="module")
def alone(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Alone]:
    folder, made = tmp_path_factory.mktemp("alone"), dict[str, Alone]()
    runs = all_ready(models, folder)
    for (form, loss), name in zip(CASES, NAMES, strict=True):
        ready = with_loss(runs[form], loss, models)
        exact = job_in(torch.float64, ready, folder)
        known = settled([gradient(book_losses(exact, step).sum(), exact) for step in range(EPOCH)])
        made[name] = Alone(learn(exact), learn(job_in(torch.float32, ready, folder)), known)
    return made


@pytest.fixture(scope="module")
def launched(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*map(str, PATHS), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }
    subprocess.run([sys.executable, str(HERE), str(models), str(folder)], check=True, timeout=300, env=environment)
    return folder


@pytest.fixture(scope="module", params=WORLDS, ids="{} ranks".format)
def together(request: pytest.FixtureRequest, launched: Path) -> Together:
    folder = launched / str(request.param)
    rows = [json.loads((folder / f"rows-{rank}.json").read_text()) for rank in range(request.param)]
    return Together(learnt_in(folder), rows)


def learnt_in(folder: Path) -> Mapping[str, Learnt]:
    losses = json.loads((folder / "losses.json").read_text())
    return {name: (weights, losses[name]) for name, weights in load_file(folder / "weights.safetensors").items()}


def check_exact(found: Learnt, wanted: Learnt) -> None:
    assert (found[0] - wanted[0]).abs().max() < EXACT, "weights"
    assert found[1] == pytest.approx(wanted[1], abs=EXACT)


def check_each_row_once(of_ranks: Sequence[Rows]) -> None:
    """All rows of an epoch, in updates of 5 rows and a last one of 3, are each computed by one rank."""
    updates = [[row for part in parts for row in part] for parts in zip(*of_ranks, strict=True)]
    sizes = [BATCH] * (EPOCH - 1) + [3]
    assert [len(rows) for rows in updates] == [sizes[step % EPOCH] for step in range(UPDATES)]
    for first in range(0, UPDATES - EPOCH + 1, EPOCH):
        used = Counter(row for rows in updates[first : first + EPOCH] for row in rows)
        assert used == {f"train.jsonl:{line}": 1 for line in range(1, 14)}


# ---- what holds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_several_ranks_learn_what_one_process_learns(name: str, alone: Mapping[str, Alone], together: Together) -> None:
    check_exact(together.learnt[f"{name}, float64"], alone[name].exact)
    (found, losses), (wanted, right) = together.learnt[f"{name}, float32"], alone[name].rounded
    assert ((found - wanted) * alone[name].settled).abs().max() < ROUNDED
    assert losses == pytest.approx(right, rel=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_averaged_gradients_are_caught(form: str, alone: Mapping[str, Alone], launched: Path) -> None:
    name = named(form, None)
    with pytest.raises(AssertionError, match="weights"):
        check_exact(learnt_in(launched / "2")[f"{name}, averaged"], alone[name].exact)


@pytest.mark.parametrize("name", NAMES)
def test_every_row_is_computed_by_one_rank_once_an_epoch(name: str, together: Together) -> None:
    of_ranks = [rows[name] for rows in together.rows]
    check_each_row_once(of_ranks)
    idle = [sum(not rows[step] for rows in of_ranks) for step in range(UPDATES)]
    assert idle == [int(len(of_ranks) == 4 and step % EPOCH == EPOCH - 1) for step in range(UPDATES)]


@pytest.mark.parametrize("rows", [[], ["train.jsonl:1"] * 2], ids=["lost", "computed twice"])
def test_a_row_that_is_not_computed_once_is_caught(rows: list[str], together: Together) -> None:
    of_ranks = [[list(update) for update in given[NAMES[0]]] for given in together.rows]
    of_ranks[1][0] = rows + of_ranks[1][0][1:]
    with pytest.raises(AssertionError):
        check_each_row_once(of_ranks)


if __name__ == "__main__":
    launch(Path(sys.argv[1]), Path(sys.argv[2]))
