"""Properties whose bugs no other quick test of a single function saw: ranks, going on, checkpoints, signals.

`benchmarks/faults/mutant_table.py` puts each of these bugs into the source; this file has to fail then. Whole runs hold most
of the same in `pipeline/test_going_on` and in the campaigns of `benchmarks/faults`.
"""

from __future__ import annotations

import errno
import math
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pegbox import runtime
from pegbox.errors import TrainingError
from pegbox.methods.lora_layers import LoraLinear
from pegbox.models.load import load_model
from pegbox.recipe import Train
from pegbox.runs import checkpoint, durable
from pegbox.runs.checkpoint import TrainState, trainable
from pegbox.runtime import ALONE, Ranks
from pegbox.training import gradient, loop, schedule, validation
from pegbox.training.job import Job, Judge
from pegbox.training.stops import Stopped
from source_tree import REPOSITORY
from tiny_folder import causal_folder

sys.path.insert(0, str(REPOSITORY / "tests" / "training"))

from test_update import ROWS, make_job

# ---- an update -------------------------------------------------------------------------------------------------------


def gradient_of(folder: Path, ranks: Ranks) -> tuple[torch.Tensor, float]:
    """The gradient of an update, unclipped, and its loss."""
    job = make_job(folder, micro_batch_rows=2)
    batches = list(gradient.micro_batches(job.task, job.plan, ROWS, 0))
    settings: dict[str, Any] = {"seed": 0, "step": 0, "max_grad_norm": 1e9, "ranks": ranks, "bf16": False}
    found = gradient.find_gradient(job.model, job.task, batches, loop._backward, **settings)
    return torch.cat([p.grad.flatten() for p in job.model.parameters() if p.grad is not None]), found.loss


def test_ranks_sum_and_divide_by_the_weight_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks with the same rows have the gradient and the loss of one: both sums are twice as large."""
    wanted, loss = gradient_of(tmp_path / "one", ALONE)
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: tensor.mul_(2))
    found, other = gradient_of(tmp_path / "two", Ranks(0, 2))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
    assert other == pytest.approx(loss, rel=1e-12)


def test_an_update_does_not_depend_on_the_gradient_before_it(tmp_path: Path) -> None:
    def after_an_update(folder: Path, *, left: bool) -> torch.Tensor:
        job = make_job(folder)
        if left:
            for parameter in trainable(job.model).values():
                parameter.grad = torch.ones_like(parameter)
        loop.take_update(job, schedule.adamw(trainable(job.model), job.settings), 0)
        return weights_of(job)

    assert torch.equal(after_an_update(tmp_path / "a", left=False), after_an_update(tmp_path / "b", left=True))


def test_an_update_of_weight_zero_takes_no_step_on_any_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among several ranks each weight has a gradient, if of zero: a step would go on by momentum, and shrink the weights."""
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: None)
    job = replace(make_job(tmp_path), ranks=Ranks(0, 2))
    job = replace(job, settings=job.settings.model_copy(update={"weight_decay": 0.5}))
    optimizer = schedule.adamw(trainable(job.model), job.settings)
    loop.take_update(job, optimizer, 0)
    before = weights_of(job)
    nothing = [replace(row, loss_weights=(0.0,) * len(row)) for row in job.train]
    assert loop.take_update(replace(job, train=nothing), optimizer, 1).loss == 0.0
    assert all(parameter.grad is not None for parameter in trainable(job.model).values())
    assert torch.equal(weights_of(job), before)


def test_validation_draws_no_noise(tmp_path: Path) -> None:
    """Whatever an update has left the model in."""
    job = noisy_job(tmp_path)
    loop.take_update(job, schedule.adamw(trainable(job.model), job.settings), 0)
    assert job.model.training
    found = validation.validation_loss(job)
    job.model.eval()
    assert found == validation.validation_loss(job)


def test_nothing_but_float32_is_chosen_on_a_cpu() -> None:
    assert not runtime.use_bf16(torch.device("cpu"), None)


def test_weights_are_not_the_files(tmp_path: Path) -> None:
    """A file that is written over while a model is in use changes nothing of it."""
    file = causal_folder(tmp_path) / "model.safetensors"
    model = load_model(tmp_path, "causal_lm")
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.seek(size // 2)
        stream.write(b"\1" * (size - size // 2))
    now = {name: weight.clone() for name, weight in model.named_parameters()}
    causal_folder(tmp_path)
    before = load_model(tmp_path, "causal_lm")
    assert all(torch.equal(now[name], weight) for name, weight in before.named_parameters())


# ---- going on --------------------------------------------------------------------------------------------------------

UPDATES, KILLED = 8, 4


class KilledError(Exception):
    pass


def weights_of(job: Job) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in trainable(job.model).values()])


def noisy_job(folder: Path, **train: Any) -> Job:
    """LoRA with dropout; validation after every second update, a checkpoint after every third."""
    job = make_job(folder, method="lora")
    for module in job.model.modules():
        if isinstance(module, LoraLinear):
            module.dropout = 0.3
    settings = job.settings.model_copy(update={"save_steps": 3, "eval_steps": 2, "batch_size": 4, **train})
    return replace(job, settings=settings, plan=replace(job.plan, updates=UPDATES))


def go_on(job: Job) -> TrainState:
    newest = checkpoint.newest(job.run.checkpoints)
    assert newest is not None
    state = checkpoint.state_of(newest)
    job.run.truncate_logs(state.logs)
    return loop.train(job, state)


def killed_at(step: int, patch: pytest.MonkeyPatch) -> None:
    right = loop.take_update

    def update(job: Job, optimizer: Any, at: int) -> Any:
        if at == step:
            raise KilledError
        return right(job, optimizer, at)

    patch.setattr(loop, "take_update", update)


def test_a_loop_that_was_killed_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, moments, log, and which update was the best: it was the first validation, long before the kill.

    It is killed in its fifth update; the newest checkpoint is of the third, so that the fourth and its validation are repeated.
    """
    given: Iterator[float] = iter(())
    monkeypatch.setattr(validation, "validation_loss", lambda job: next(given))
    given, whole = iter((1.0, 3.0, 2.0, 4.0)), noisy_job(tmp_path / "whole")
    wanted = loop.train(whole, TrainState())
    given, killed = iter((1.0, 3.0, 3.0, 2.0, 4.0)), noisy_job(tmp_path / "killed")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        killed_at(KILLED, patch)
        loop.train(killed, TrainState())
    torch.rand(5)  # what else a process has drawn
    job = noisy_job(tmp_path / "killed")
    state = go_on(job)
    assert (state.step, state.best_step, state.best_value) == (UPDATES, 2, 1.0)
    assert (state.tokens, state.validations_without_gain) == (wanted.tokens, wanted.validations_without_gain)
    assert torch.equal(weights_of(job), weights_of(whole))
    for name in (checkpoint.WEIGHTS, checkpoint.MOMENTS):
        files = [one.run.checkpoints / f"step-{UPDATES}" / name for one in (whole, job)]
        assert checkpoint.sha256(files[0]) == checkpoint.sha256(files[1])
    assert list(job.run.read_lines("metrics.jsonl")) == list(whole.run.read_lines("metrics.jsonl"))


def test_what_is_computed_at_once_is_taken_from_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right, seen = loop.take_update, set[int]()

    def update(job: Job, *given: Any) -> Any:
        seen.add(job.plan.micro_batch_tokens)
        return right(job, *given)

    monkeypatch.setattr(loop, "take_update", update)
    state = loop.train(noisy_job(tmp_path), TrainState(micro_batch_tokens=24))
    assert seen == {24} and state.micro_batch_tokens == 24


@pytest.mark.parametrize("greater_is_better", [True, False])
def test_the_best_validation_is_that_of_the_metrics_direction(greater_is_better: bool, tmp_path: Path) -> None:
    job, state = replace(make_job(tmp_path), judge=Judge("metric", greater_is_better, lambda: 0.0)), TrainState()
    for state.step, value in enumerate((0.3, 0.5, 0.5, math.nan, 0.1, 0.1), start=1):
        validation.remember(job, state, {"loss": 1.0, "metric": value})
    assert (state.best_step, state.best_value) == ((2, 0.5) if greater_is_better else (5, 0.1))


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_the_update_and_saves(
    signum: signal.Signals, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = loop.take_update

    def update(job: Job, optimizer: Any, step: int) -> Any:
        if step == 2:
            os.kill(os.getpid(), signum)
        return right(job, optimizer, step)

    monkeypatch.setattr(loop, "take_update", update)
    job = noisy_job(tmp_path, save_steps=100, eval_steps=100)
    with pytest.raises(Stopped) as told:
        loop.train(job, TrainState())
    assert told.value.exit_code == code
    saved = checkpoint.newest(job.run.checkpoints)
    assert saved is not None and checkpoint.state_of(saved).step == 3


# ---- checkpoints -----------------------------------------------------------------------------------------------------


class Disk:
    """What is asked of the disk, in order; `synced`: the paths that it has wholly."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.opened: dict[int, Path] = {}
        self.synced: set[Path] = set()
        self.renamed: list[tuple[Path, set[str], bool]] = []  # each target, what was synced of it, whether it was whole
        self._right = {name: getattr(os, name) for name in ("open", "write", "fsync", "rename")}
        for name in self._right:
            patch.setattr(os, name, getattr(self, name))

    def open(self, path: Any, *given: Any, **more: Any) -> int:
        descriptor: int = self._right["open"](path, *given, **more)
        self.opened[descriptor] = Path(path)
        return descriptor

    def write(self, descriptor: int, data: Any) -> int:
        self.synced.discard(self.opened[descriptor])
        return int(self._right["write"](descriptor, data))

    def fsync(self, descriptor: int) -> None:
        self.synced.add(self.opened[descriptor])
        self._right["fsync"](descriptor)

    def rename(self, source: Any, target: Any) -> None:
        source = Path(source)
        whole = checkpoint.verifies(source) and {*source.iterdir(), source} <= self.synced
        self.renamed.append((Path(target), {file.name for file in source.iterdir()}, whole))
        self.synced.discard(Path(target).parent)
        self._right["rename"](source, target)


def saved(folder: Path, *steps: int) -> None:
    """Checkpoints of a tiny model."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = schedule.adamw(dict(model.named_parameters()), Train())
    for step in steps:
        checkpoint.save(folder, TrainState(step=step), model, optimizer, "hash")


def test_a_checkpoint_has_its_name_when_all_of_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    saved(tmp_path, 1)
    files = {checkpoint.WEIGHTS, checkpoint.MOMENTS, checkpoint.STATE, checkpoint.MANIFEST}
    assert disk.renamed == [(tmp_path / "step-1", files, True)]
    assert tmp_path in disk.synced, "the name itself is not on the disk"


def test_a_checkpoint_with_another_byte_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved(tmp_path, 1, 2)
    assert checkpoint.newest(tmp_path) == tmp_path / "step-2"
    for file in sorted((tmp_path / "step-2").iterdir()):
        sound = file.read_bytes()
        for place in range(0, len(sound), 7):
            file.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
            assert checkpoint.newest(tmp_path) == tmp_path / "step-1", f"byte {place} of {file.name}"
        file.write_bytes(sound[:-1])
        assert checkpoint.newest(tmp_path) == tmp_path / "step-1", f"{file.name} without its last byte"
        file.write_bytes(sound)
    assert "step-2 is damaged" in caplog.text
    assert checkpoint.newest(tmp_path) == tmp_path / "step-2"


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    """After 4 updates; 5 and 6 are damaged and were gone back from: they take no place of a good one."""
    for step in range(1, 7):
        (tmp_path / f"step-{step}").mkdir()
    checkpoint.prune(tmp_path, 2, TrainState(step=4, best_step=1))
    assert [checkpoint.step_of(path) for path in checkpoint.by_step(tmp_path)] == [6, 5, 4, 3, 1]


def test_a_save_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes no byte more; with one checkpoint to be kept."""
    job = noisy_job(tmp_path, save_total_limit=1)
    optimizer, state = schedule.adamw(trainable(job.model), job.settings), TrainState(step=1)
    loop.save(job, state, optimizer)

    def full(descriptor: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(TrainingError, match="the disk is full"):
        loop.save(job, replace(state, step=2), optimizer)
    monkeypatch.undo()
    assert [path.name for path in job.run.checkpoints.iterdir()] == ["step-1"]
    assert checkpoint.newest(job.run.checkpoints) == job.run.checkpoints / "step-1"


def test_a_disk_with_too_little_left_is_not_written_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "free", lambda path: 100)
    with pytest.raises(TrainingError, match=r"bytes are needed, 100 are free"):
        saved(tmp_path / "checkpoints", 1)
    assert list(tmp_path.iterdir()) == []
