"""Numbers that are not finite, spikes, and memory that is not enough: told, in the same update, and survived.

Short forms of the campaigns in benchmarks/faults, which must run in a process that has computed nothing (this file, as a
program); and the pieces that they rest on.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("benchmarks", "tests", "tests/data", "tests/training")]

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from test_update import ROWS, make_job  # noqa: E402

from pegbox import runtime  # noqa: E402
from pegbox.data.records import Example  # noqa: E402
from pegbox.errors import TrainingError  # noqa: E402
from pegbox.methods import lora  # noqa: E402
from pegbox.recipe import Lora  # noqa: E402
from pegbox.runs.checkpoint import TrainState, trainable  # noqa: E402
from pegbox.training import diagnosis, gradient, loop, memory, schedule, spikes  # noqa: E402
from pegbox.training.job import Job  # noqa: E402
from pegbox.training.spikes import Spikes, limit_of  # noqa: E402
from tiny_models import examples, tiny  # noqa: E402

FULL = "can't allocate memory: you tried to allocate 8 bytes"
PART = "model.layers.1.mlp.up_proj"

# ---- the campaigns, in a process of their own ---------------------------------------------------------------------------


def main(folder: Path) -> dict[str, Any]:
    """What the campaigns find in a few trials, and two ranks of which one fails."""
    from faults import address_space, memory, not_finite, spiking, world

    step, validation = memory.Failure("backward", 5, 1, "CPU"), memory.Failure("validation", 8, 0, "Python")
    first = memory.Trial(0, "lora", False, 4, (step, validation), 10)
    failures = (memory.Failure("forward", 3, 0, "GPU"), memory.Failure("optimizer", 6, 0, "C++"))
    trials = [first, memory.Trial(1, "lora", True, "auto", failures, None)]
    gradient = not_finite.Fault("gradient", math.nan, "chat", "lora", step=4, alone=True, number=4)
    weight = not_finite.Fault("weight", -math.inf, "chat", "lora", step=8, alone=False, number=5)
    with world.made_world() as made:
        found: dict[str, Any] = {
            "numbers": not_finite.not_finite(made, [gradient, weight]),
            "spikes": spiking.spikes(made, 2),
            "memory": memory.failures(made, trials),
            "bytes_of_a_step": memory.bytes_of_a_step(made, "full"),
            "ranks": in_children(world, folder),
        }
        address_space.make(made)
        found |= address_space.limits(made)
        diagnosis.refuse = lambda *given: None  # type: ignore[assignment]
        found["applied"] = not_finite.meet(made, replace(gradient, number=99), made.folder / "numbers-chat-lora")
    return found


def in_children(world: Any, folder: Path) -> dict[str, Any]:
    """The same updates by one process, and by two of which the second has not enough memory once."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    started = [world.child(lambda: work(folder, 1, 0), folder / "one.log")]
    started += [world.child(lambda rank=rank: work(folder, 2, rank), folder / f"{rank}.log") for rank in range(2)]
    assert [world.ended(process) for process in started] == [0, 0, 0], [log.read_text() for log in folder.glob("*.log")]
    return {file.stem: json.loads(file.read_text()) for file in folder.glob("*.json")}


def work(folder: Path, ranks: int, rank: int) -> None:
    """Four updates of one of so many ranks; the second of several fails in the third, with half its gradients there."""
    os.environ |= {"WORLD_SIZE": str(ranks), "RANK": str(rank)}
    with runtime.joined_ranks() as joined:
        job = replace(make_job(folder / f"{ranks}-{rank}", micro_batch_rows=2), ranks=joined)
        job = learn(job, 4, Failing(job, at=2 if rank else None))
        vector = torch.cat([parameter.detach().flatten() for parameter in trainable(job.model).values()])
        events = [line["event"] for line in job.run.read_lines("events.jsonl")]
        facts = {"tokens": job.plan.micro_batch_tokens, "events": events, "parameters": vector.tolist()}
        (folder / f"{ranks}-{rank}.json").write_text(json.dumps(facts))


class Failing:
    """Lets the way back through the second micro-batch of update `at` fail, once; counts how often each was tried.

    It fails in a branch, while torch has another at hand.
    """

    def __init__(self, job: Job, at: int | None) -> None:
        self.at, self.step, self.part, self.tried = at, 0, 0, [0] * 10
        job.model.get_submodule(PART).register_forward_hook(self._after)

    def begin(self, step: int) -> None:
        self.step, self.part = step, 0
        self.tried[step] += 1

    def _after(self, module: Any, inputs: Any, output: torch.Tensor) -> None:
        self.part += 1
        if self.step == self.at and self.part == 2 and self.tried[self.step] == 1:
            output.register_hook(self._fail)

    def _fail(self, grad: torch.Tensor) -> None:
        raise RuntimeError(FULL)


def learn(job: Job, updates: int, failing: Failing) -> Job:
    """As `loop.train` does it."""
    state, optimizer = TrainState(), schedule.adamw(trainable(job.model), job.settings)

    def take(job: Job) -> loop.Update:
        failing.begin(state.step)
        return loop.take_update(job, optimizer, state.step)

    for state.step in range(updates):
        job, _ = memory.fitting(job, state, partial(job.examples_of, state.step), take)
    return job


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What this file finds as a program."""
    folder = tmp_path_factory.mktemp("campaigns")
    done = subprocess.run([sys.executable, str(HERE), str(folder)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_what_is_not_finite_is_told_in_its_update_and_never_applied(found: dict[str, Any]) -> None:
    figures = found["numbers"]
    assert figures["by_place"] == {"gradient": 1, "weight": 1}
    assert figures["wrong"] == []


def test_an_update_applied_in_spite_of_nan_is_caught(found: dict[str, Any]) -> None:
    assert not found["applied"]["same_update"] and not found["applied"]["not_applied"]


def test_a_spike_is_told_with_the_rows_of_its_update(found: dict[str, Any]) -> None:
    figures = found["spikes"]
    assert figures["spikes"] == figures["told"] == figures["rows"] == figures["as_the_rule"] == 2


def test_an_update_that_had_no_room_is_repeated_with_the_same_result(found: dict[str, Any]) -> None:
    figures = found["memory"]
    assert figures["wrong"] == [] and set(figures["by_place"].values()) == {1}
    assert figures["behind_other_gradients"] == figures["killed_and_resumed"] == figures["with_dropout"] == 1
    assert figures["farthest_without_dropout"] < 5e-5


def test_a_step_of_the_optimizer_takes_no_memory(found: dict[str, Any]) -> None:
    assert 0 < found["bytes_of_a_step"] < 1000


@pytest.mark.skipif(sys.platform != "linux", reason="the address space is read from /proc")
def test_a_run_that_has_no_room_computes_less_or_says_why_it_cannot(found: dict[str, Any]) -> None:
    fewer, none = found["fewer rows fit"], found["not one row fits"]
    assert fewer["exit_code"] == 0, fewer
    assert fewer["halved"] and fewer["receipt"]["events"] == {"out_of_memory": len(fewer["halved"])}
    assert fewer["receipt"]["micro_batch_tokens"] == fewer["halved"][-1]
    assert none["exit_code"] == 4 and "out of memory for one row of at most" in none["said"][-1]


def test_where_one_rank_has_no_room_all_repeat_the_update(found: dict[str, Any]) -> None:
    one, first, second = (found["ranks"][name] for name in ("1-0", "2-0", "2-1"))
    assert one["events"] == [] and first["events"] == ["out_of_memory"]
    assert first["tokens"] == second["tokens"] < one["tokens"]
    assert first["parameters"] == second["parameters"]
    assert np.abs(np.subtract(first["parameters"], one["parameters"])).max() < 1e-10


# ---- computing less ------------------------------------------------------------------------------------------------------

ALL_AT_ONCE = {
    "padded": {},
    "by three": {"micro_batch_rows": 3},
    "by tokens": {"micro_batch_tokens": 40},
    "packed": {"packed": True},
    "behind a shared prefix": {"packed": True, "share_prefix": True, "prefix": 40},
}


def check_halving_ends_at_single_rows(folder: Path, plan: dict[str, Any], halve: Callable[..., Job]) -> None:
    """Each time less is computed at once, by half or more of the rows, until no row has another beside it."""
    job, rows = make_job(folder, **plan), examples([3, 9, 4, 14, 6, 2, 11, 5], prefix=plan.get("prefix", 3))
    sizes = []
    while max(sizes[-1:] or [2]) > 1:
        sizes.append(max(map(len, gradient.parts(job.plan, rows))))
        if sizes[-1] > 1:
            job = halve(job, rows, "full")
        assert len(sizes) < 9
    with pytest.raises(TrainingError, match="out of memory for one row of at most (17|54) tokens alone: full"):
        halve(job, rows, "full")


@pytest.mark.parametrize("plan", ALL_AT_ONCE.values(), ids=ALL_AT_ONCE)
def test_halving_ends_at_single_rows(tmp_path: Path, plan: dict[str, Any]) -> None:
    check_halving_ends_at_single_rows(tmp_path, plan, memory._halved)


def test_counting_a_shared_prefix_with_every_row_is_caught(tmp_path: Path) -> None:
    def halved(job: Job, rows: list[Example], said: str) -> Job:
        parts = [part for part in gradient.parts(job.plan, rows) if len(part) > 1]
        most = max(max(map(len, part)) * len(part) for part in parts)
        return replace(job, plan=replace(job.plan, micro_batch_tokens=most // 2))

    with pytest.raises(AssertionError):
        check_halving_ends_at_single_rows(tmp_path, ALL_AT_ONCE["behind a shared prefix"], halved)


def check_nothing_is_left_behind(folder: Path) -> None:
    """When an update is tried again there are no gradients, and no numbers of the attempt that failed."""
    job, seen, inside = make_job(folder, micro_batch_rows=2), [], list[weakref.ref[torch.Tensor]]()
    failing = Failing(job, at=0)
    job.model.get_submodule("model.layers.0.mlp.act_fn").register_forward_hook(
        lambda module, inputs, output: inside.append(weakref.ref(output))
    )

    def action(job: Job) -> None:
        gradients = sum(parameter.grad is not None for parameter in job.model.parameters())
        seen.append((sum(each() is not None for each in inside), gradients))
        failing.begin(0)
        job.task.update_loss(job.model, list(loop.micro_batches(job, ROWS, 0)), loop._backward)

    memory.fitting(job, TrainState(), lambda: ROWS, action)
    assert seen == [(0, 0), (0, 0)] and inside


def test_a_failed_attempt_leaves_nothing_behind(tmp_path: Path) -> None:
    check_nothing_is_left_behind(tmp_path)


def test_gradients_that_are_kept_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "trainable", lambda model: {})
    with pytest.raises(AssertionError):
        check_nothing_is_left_behind(tmp_path)


def test_a_graph_that_is_kept_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def drop_gradients(job: Job) -> None:
        for parameter in job.model.parameters():
            parameter.grad = None

    monkeypatch.setattr(memory, "_forget", drop_gradients)
    with pytest.raises(AssertionError):
        check_nothing_is_left_behind(tmp_path)


def check_the_repeated_update_is_the_same(folder: Path, *, dropout: float = 0.0) -> None:
    """A failure with half the gradients there, and a run that from then on computes as little without one."""

    def job_of(name: str, **plan: Any) -> Job:
        job = make_job(folder / name, micro_batch_rows=2, **plan)
        if dropout:
            model = tiny("llama", dtype=torch.float64)
            lora.prepare(model, Lora(r=4, lora_dropout=dropout), 0)
            job = replace(job, model=model.double())
        return job

    job = job_of("failed")
    failing = Failing(job, at=0)
    failed = learn(job, 3, failing)
    other = job_of("less", micro_batch_tokens=failed.plan.micro_batch_tokens)
    less = learn(other, 3, Failing(other, at=None))
    assert failing.tried[:3] == [2, 1, 1]
    for one, two in zip(failed.model.parameters(), less.model.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_repeated_update_is_the_same(tmp_path: Path, dropout: float) -> None:
    check_the_repeated_update_is_the_same(tmp_path, dropout=dropout)


def test_noise_that_goes_on_where_it_was_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right, seeded = runtime.seed_noise, set[int]()

    def once(seed: int, step: int, rank: int = 0) -> None:
        if step not in seeded:
            right(seed, step, rank)
        seeded.add(step)

    def check() -> None:
        monkeypatch.setattr(runtime, "seed_noise", once)
        check_the_repeated_update_is_the_same(tmp_path, dropout=0.3)

    with pytest.raises(AssertionError):
        check()


@pytest.mark.parametrize("error", [ValueError(FULL), RuntimeError("a size is wrong"), KeyError("row")])
def test_another_error_is_no_lack_of_memory(tmp_path: Path, error: Exception) -> None:
    def action(job: Job) -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        memory.fitting(make_job(tmp_path), TrainState(), lambda: ROWS, action)
    assert raised.value is error


# ---- why it is not finite ----------------------------------------------------------------------------------------------

GUILTY = 3  # the longest row of all, known by its length
LENGTH = len(ROWS[GUILTY])


def spoilt(tensor: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.arange(tensor.shape[-1]) == 5, math.inf, tensor)


def spoil_forward(job: Job) -> Job:
    module = job.model.get_submodule(PART)
    module.register_forward_hook(lambda m, i, output: spoilt(output) if output.shape[1] == LENGTH else output)
    return job


def spoil_backward(job: Job) -> Job:
    def after(module: Any, inputs: Any, output: torch.Tensor) -> None:
        if output.shape[1] == LENGTH:
            output.register_hook(spoilt)

    job.model.get_submodule(PART).register_forward_hook(after)
    return job


def spoil_target(job: Job) -> Job:
    rows = list(job.train)
    rows[GUILTY] = replace(rows[GUILTY], loss_weights=(*rows[GUILTY].loss_weights[:-1], math.inf))
    return replace(job, train=rows)


def spoil_weight(job: Job) -> Job:
    with torch.no_grad():
        job.model.get_submodule(PART).weight[2, 3] = math.nan
    return job


PLANTED: dict[str, tuple[Callable[[Job], Job], str, bool]] = {
    "forward": (spoil_forward, f"the output of {PART}", True),
    "backward": (spoil_backward, f"the gradient behind {PART}", True),
    "target": (spoil_target, "the loss", True),
    "weight": (spoil_weight, f"the weights {PART}.weight", False),
}


def check_the_row_and_the_part_are_named(folder: Path, where: str) -> None:
    plant, first, alone = PLANTED[where]
    job = plant(make_job(folder))
    every = [row.where for row in ROWS]
    assert diagnosis.examine(job, job.train, 0) == ([ROWS[GUILTY].where] if alone else every, first)
    assert all(parameter.grad is None for parameter in job.model.parameters())


@pytest.mark.parametrize("where", PLANTED)
def test_the_row_and_the_part_are_named(tmp_path: Path, where: str) -> None:
    check_the_row_and_the_part_are_named(tmp_path, where)


def test_a_wrong_target_is_named_where_the_loss_is_made_by_chunks(tmp_path: Path) -> None:
    job = spoil_target(make_job(tmp_path, packed=True))
    assert diagnosis.examine(job, job.train, 0) == ([ROWS[GUILTY].where], "the loss")


def test_a_loss_that_is_looked_at_too_late_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "_backward", lambda seen, loss: loss.backward())
    with pytest.raises(AssertionError):
        check_the_row_and_the_part_are_named(tmp_path, "target")


def test_rows_that_are_looked_at_together_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = gradient.micro_batches
    monkeypatch.setattr(gradient, "micro_batches", lambda task, plan, rows, step: right(task, plan, ROWS, step))
    with pytest.raises(AssertionError):
        check_the_row_and_the_part_are_named(tmp_path, "forward")


def test_where_every_row_is_finite_none_is_accused(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    assert diagnosis.examine(job, ROWS, 0) == ([], "the sum over its rows, each of which is finite")


# ---- spikes ----------------------------------------------------------------------------------------------------------


def check_the_limit(values: list[float]) -> None:
    wanted = np.mean(values) + 6 * np.std(values) if len(values) >= 32 and np.std(values) > 0 else math.inf
    assert limit_of(values) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 128])
def test_the_limit_is_six_deviations_over_the_mean_of_enough_values_that_vary(count: int) -> None:
    check_the_limit(np.random.default_rng(count).normal(3, 1, count).tolist())
    check_the_limit([2.5] * count)


def test_too_few_values_taken_for_enough_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spikes, "LEAST", 31)
    with pytest.raises(AssertionError):
        check_the_limit(np.random.default_rng(31).normal(3, 1, 31).tolist())


def lines_of(values: Iterable[float]) -> Iterator[dict[str, Any]]:
    return ({"step": step, "loss": value, "grad_norm": 1.0} for step, value in enumerate(values, 1))


def check_only_the_last_updates_count(folder: Path) -> None:
    """A hundred wild losses, 128 quiet ones, and one that is far over these, and far below the wild ones."""
    draw = np.random.default_rng(0)
    before = [*draw.normal(50, 10, 100), *draw.normal(3, 0.1, 128)]
    job = make_job(folder)
    Spikes(lines_of(before)).look(job, {"step": 229, "loss": 5.0, "grad_norm": 1.0})
    (told,) = job.run.read_lines("events.jsonl")
    assert (told["step"], told["of"], told["value"]) == (229, "loss", 5.0)
    assert told["limit"] == pytest.approx(np.mean(before[-128:]) + 6 * np.std(before[-128:]))
    assert told["rows"] == [row.where for row in job.examples_of(228)]


def test_only_the_last_updates_count(tmp_path: Path) -> None:
    check_only_the_last_updates_count(tmp_path)


def test_a_window_without_end_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spikes, "WINDOW", 10_000)
    with pytest.raises(ValueError):
        check_only_the_last_updates_count(tmp_path)


def test_a_run_that_goes_on_tells_of_the_same_spikes(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(3, 0.2, 90)
    values[[40, 70, 85]] *= 3
    whole, resumed = make_job(tmp_path / "whole"), make_job(tmp_path / "resumed")
    lines = list(lines_of(values.tolist()))
    for job, begins in ((whole, [0, 90]), (resumed, [0, 60, 90])):
        for since, until in pairwise(begins):
            watch = Spikes([*lines[:since], {"step": since, "split": "validation", "loss": 99.0}])
            for line in lines[since:until]:
                watch.look(job, line)
    told = list(whole.run.read_lines("events.jsonl"))
    assert [line["step"] for line in told] == [41, 71, 86]
    assert told == list(resumed.run.read_lines("events.jsonl"))


def test_of_many_rows_a_few_are_named_and_all_are_in_the_events(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = make_job(tmp_path)
    job = replace(job, settings=job.settings.model_copy(update={"batch_size": len(ROWS)}))
    quiet = np.random.default_rng(0).normal(3, 0.1, 40).tolist()
    with caplog.at_level(logging.WARNING, "pegbox"):
        Spikes(lines_of(quiet)).look(job, {"step": 41, "loss": 9.0, "grad_norm": 1.0})
    assert f"and {len(ROWS) - diagnosis.NAMED} more" in caplog.text
    (told,) = job.run.read_lines("events.jsonl")
    assert sorted(told["rows"]) == sorted(row.where for row in ROWS)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
