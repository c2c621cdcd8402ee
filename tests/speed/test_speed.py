"""The bench: everybody takes the same updates, so that their speeds may be compared, and the figures say what was measured.

A tiny random Llama in float32; the oracle is Transformers' Trainer with PEFT.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks")]

import floor  # noqa: E402
from speed.clock import Clock  # noqa: E402
from speed.judging import held_out_loss  # noqa: E402
from speed.peer import Asked, Training  # noqa: E402
from speed.peers import PEERS, missing  # noqa: E402
from speed.targets import TARGETS, lines  # noqa: E402
from speed.workloads import TINY, Workload  # noqa: E402

from pegbox.methods import lora_files  # noqa: E402
from pegbox.methods.lora_layers import LoraLinear  # noqa: E402
from speed import figures, given, ours, packing, page, prepared, theirs, workloads  # noqa: E402
from tiny_models import tiny  # noqa: E402

PARITY = replace(workloads.PARITY, batch_size=8, at_once=4, packs=3, updates=1)

FEW = {"validation": 0.4, "test": 0.4}  # so that a hundred updates are more than an epoch


@dataclass(frozen=True)
class Bench:
    """A folder in which a workload is prepared."""

    folder: Path
    workload: Workload

    def asked(self, name: str, **changes: Any) -> Asked:
        """What a peer is asked; each has a folder to work in."""
        work = Path(tempfile.mkdtemp(prefix=name.replace(" ", "-"), dir=self.folder))
        return Asked(replace(self.workload, **changes), self.folder / "shared", self.folder / "start", work, seed=1)


def made(folder: Path, workload: Workload) -> Bench:
    prepared.share(workload, folder / "shared")
    prepared.prepare(workload, folder / "shared", folder / "start", seed=1)
    return Bench(folder, workload)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return made(tmp_path_factory.mktemp("bench"), PARITY)


# ---- the same updates ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class First:
    """A peer's first update: its loss as the program tells it, its gradients by PEFT's names, the loss afterwards."""

    loss: float
    gradients: dict[str, torch.Tensor]
    held_out: float


def training_of(asked: Asked, peer: str) -> Training:
    if peer == "pegbox, no shared prefix":
        ready = prepared.made_ready(asked.workload, asked.shared, asked.seed, kernels=True)
        assert ready.plan.packed and ready.plan.shared
        plan = replace(ready.plan, share_prefix=False)
        made = ours.job(replace(ready, plan=plan), asked.work)
        return Training(ready.model, lambda: ours.loop.train(made, ours.TrainState()))
    return PEERS[peer](asked)


def named_gradients(model: Any) -> dict[str, torch.Tensor]:
    """The gradients of all that learns, by the names that PEFT saves it by."""
    layers = [(name, part) for name, part in model.named_modules() if isinstance(part, LoraLinear)]
    if layers:
        found = {f"{name}.{own}": getattr(part, own) for name, part in layers for own in ("lora_A", "lora_B")}
        found = {f"{lora_files.PREFIX}{name}.weight": weight for name, weight in found.items()}
    else:
        learnt = ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)
        found = {name.replace(".default.", "."): weight for name, weight in learnt}
    return {name: weight.grad.clone() for name, weight in found.items() if weight.grad is not None}


def first_update(bench: Bench, peer: str) -> First:
    asked, seen = bench.asked(f"{peer} first"), list[dict[str, torch.Tensor]]()
    training = training_of(asked, peer)
    hook = register_optimizer_step_pre_hook(lambda *given: seen.append(named_gradients(training.model)))
    try:
        result = training.run()
    finally:
        hook.remove()
    return First(told_loss(asked, training, result), seen[0], held_out_loss(training.model, asked.given.held_out))


def told_loss(asked: Asked, training: Training, result: Any) -> float:
    """The loss of the first update, in the program's own words: pegbox's log, or the Trainer's."""
    log = [*asked.work.rglob("metrics.jsonl")]
    if log:
        return float(json.loads(log[0].read_text().splitlines()[0])["loss"])
    owner: Any = training.run.__self__  # type: ignore[attr-defined]
    return float(owner.state.log_history[0]["loss"])


def check_same_update(bench: Bench, peer: str, oracle: First) -> None:
    found = first_update(bench, peer)
    assert found.loss == pytest.approx(oracle.loss, rel=1e-6)
    assert found.gradients.keys() == oracle.gradients.keys()
    size = torch.cat([gradient.flatten() for gradient in oracle.gradients.values()]).norm()
    differences = [(found.gradients[name] - gradient).norm() for name, gradient in oracle.gradients.items()]
    assert torch.stack(differences).norm() <= 1e-5 * size
    assert size > 1e-3
    assert found.held_out == pytest.approx(oracle.held_out, rel=1e-6)


@pytest.fixture(scope="module")
def oracle(bench: Bench) -> First:
    return first_update(bench, "Trainer + PEFT")


@pytest.mark.parametrize("peer", [*(name for name in workloads.WRITERS), "pegbox, no shared prefix"])
def test_everybody_takes_the_same_first_update(bench: Bench, oracle: First, peer: str) -> None:
    check_same_update(bench, peer, oracle)


def test_a_label_that_is_not_learnt_is_caught(bench: Bench, oracle: First, monkeypatch: pytest.MonkeyPatch) -> None:
    row = given.row

    def whole(example: Any) -> given.Row:
        return row(replace(example, loss_weights=(1.0,) * len(example)))

    monkeypatch.setattr(theirs, "row", whole)
    with pytest.raises(AssertionError):
        check_same_update(bench, "TRL", oracle)


def test_rows_of_a_pack_that_see_each_other_are_caught(
    bench: Bench, oracle: First, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL's packs, if Transformers did not find out where a row ends."""
    from transformers import masking_utils

    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", lambda position_ids: None)
    with pytest.raises(AssertionError):
        check_same_update(bench, "TRL, packed", oracle)


def test_another_order_of_rows_is_caught(bench: Bench, oracle: First, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours.Job, "examples_of", lambda job, step: list(job.train[:8]))
    with pytest.raises(AssertionError):
        check_same_update(bench, "pegbox", oracle)


def after_many(bench: Bench, peer: str, updates: int) -> float:
    asked = bench.asked(f"{peer} many")
    training = training_of(asked, peer)
    clock = Clock(torch.device("cpu"))
    training.run()
    clock.stop()
    assert len(clock.ends) == updates
    return held_out_loss(training.model, asked.given.held_out)


def test_after_a_hundred_updates_everybody_has_learnt_the_same(tmp_path: Path) -> None:
    many = made(tmp_path, replace(PARITY, data=FEW, batch_size=3, at_once=3, packs=1, updates=99))
    updates = many.asked("rows").given.updates
    assert {len(update) for update in updates} == {3}
    assert len({row.input_ids for update in updates for row in update}) < 300, "the next epoch has begun"
    untrained = held_out_loss(theirs.started(many.asked("untrained")), many.asked("untrained").given.held_out)
    wanted = after_many(many, "Trainer + PEFT", 100)
    assert wanted < untrained - 0.5
    for peer in ("pegbox", "TRL, packed"):
        assert after_many(many, peer, 100) == pytest.approx(wanted, abs=1e-4), peer


def test_what_is_for_a_gpu_runs_in_small_on_a_cpu(tmp_path: Path) -> None:
    """The workloads and peers that a GPU adds, their models shrunk; what must be compiled or installed apart is asked for."""
    for one in workloads.for_gpus().values():
        assert {"Trainer + PEFT, compiled", "Unsloth"} <= set(one.peers) <= PEERS.keys()
    giant = workloads.for_gpus()["8B"]
    shrunk = replace(giant, model=replace(TINY, tied=False), data={"max_length": 96}, updates=1, packs=2)
    bench = made(tmp_path, shrunk)
    assert {len(row) for update in bench.asked("rows").given.updates for row in update} == {96}
    check_same_update(bench, "pegbox", first_update(bench, "TRL, packed"))
    compiled = theirs.TrainingArguments(**theirs.arguments(bench.asked("compiled"), 1, 2), torch_compile=True)
    assert compiled.torch_compile
    assert missing("Unsloth") in (None, "unsloth") and missing("pegbox") is None


# ---- what is measured ---------------------------------------------------------------------------------------------------


def steps_with(clock: Clock, count: int, sleep: Callable[[], None]) -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight])
    for _ in range(count):
        sleep()
        weight.grad = torch.ones(1)
        optimizer.step()
    clock.stop()


def test_the_clock_counts_each_update_with_all_that_lies_before_it() -> None:
    clock = Clock(torch.device("cpu"))
    steps_with(clock, 4, lambda: time.sleep(0.02))
    steps_with(clock, 2, lambda: None)  # after it was stopped
    assert len(clock.ends) == 4
    assert all(after - before >= 0.02 for before, after in pairwise(clock.ends))
    assert clock.ends[0] > 0.5, "the process was there before: pytest and torch were imported"
    assert clock.peak > 50e6


def closed_form(tokens: int, learnt: int, rank: int | None) -> float:
    """Operations of the tiny Llama's update: 2 n m k a product."""
    hidden, inner, key_value, vocabulary = 32, 48, 16, 64
    shapes = 2 * [(hidden, hidden), (hidden, key_value), (hidden, key_value), (hidden, hidden)]
    shapes += 2 * [(hidden, inner), (hidden, inner), (inner, hidden)]
    frozen = 4 * tokens * sum(a * b for a, b in shapes)
    own = frozen / 2 if rank is None else 6 * tokens * rank * sum(a + b for a, b in shapes)
    return frozen + own + 4 * learnt * hidden * vocabulary


@pytest.mark.parametrize("rank", [4, None])
def test_the_floor_has_every_product_of_an_update_and_no_other(rank: int | None) -> None:
    model = tiny("llama")
    pairs = list(floor.every_product(model, 20, 6, rank))
    assert sum(2 * len(a) * a.shape[1] * len(b) for a, b in pairs) == closed_form(20, 6, rank)
    for a, b in pairs:
        torch.testing.assert_close(floor.product(a, b), floor.plain(a, b))
    found = floor.measure(model, 20, 6, rank)
    assert found["tokens_per_second"] == pytest.approx(20 / sorted(found["seconds"])[1])
    flops = found["tokens_per_second"] / 20 * closed_form(20, 6, rank)
    assert found["flops_per_second"] == pytest.approx(flops)


def test_what_is_told_of_the_rows(bench: Bench) -> None:
    told = given.about(bench.asked("rows").given)
    updates = bench.asked("rows").given.updates
    assert told["rows"] == 16 and told["shared_prefix"] >= 10
    assert told["tokens_per_update"] == sum(len(row) for update in updates for row in update) / 2
    padded = sum(8 * max(map(len, update)) for update in updates)
    assert told["share_not_padding"] == pytest.approx(2 * told["tokens_per_update"] / padded)


def test_packs_hold_every_row_once_in_as_many_packs_as_asked(bench: Bench) -> None:
    for count in (1, 2, 5, 8):
        for update in bench.asked("packs").given.updates:
            found = packing.packed(update, count)
            assert len(found) == count
            lengths = [size for pack in found for size in pack["seq_lengths"]]
            assert sorted(lengths) == sorted(map(len, update))
            assert all(len(pack["input_ids"]) == sum(pack["seq_lengths"]) for pack in found)


# ---- what is told of it -------------------------------------------------------------------------------------------------


def a_run(rate: float, loss: float, memory: float = 1e9) -> dict[str, Any]:
    tokens = [900, 1000, 1100]
    seconds = [count / rate for count in tokens]
    return {
        "tokens": tokens,
        "seconds": seconds,
        "peak_memory": memory,
        "first_step": 9.0,
        "evaluation_loss": loss,
    }


def results(**rates: float) -> dict[str, Any]:
    """A campaign of one workload, with such rates (`packed` is TRL's) and floors of 1,000 tokens/s."""
    names = {"pegbox": "pegbox", "padded": "TRL", "packed": "TRL, packed"}
    runs: dict[str, Any] = {
        names[key]: [a_run(0.9 * rate, 2.0), a_run(rate, 2.25), a_run(1.2 * rate, 2.5)] for key, rate in rates.items()
    }
    runs["floor"] = [{"tokens_per_second": 1000.0, "flops_per_second": 3e11}] * 3
    rows = {"tokens_per_row": 1, "tokens_per_update": 2, "learnt_per_update": 1, "share_not_padding": 0.5}
    rows["shared_prefix"] = 3
    about = {"about": "rows & <more>", "rows": rows, "runs": runs, "failed": {"Unsloth": "unsloth is not installed"}}
    return {
        "date": "2026-01-02",
        "command": "python benchmarks/speed/bench.py",
        "seconds": 60,
        "hardware": {"device": "cpu", "processor": "P", "cores": 2, "flags": ["avx2"], "memory": 8e9},
        "versions": {"torch": "1", "transformers": "2"},
        "workloads": {"short": about | {"figures": figures.of(runs)}},
    }


def test_figures_are_medians_over_updates_and_repetitions() -> None:
    found = results(pegbox=500, packed=250)["workloads"]["short"]["figures"]
    assert found["pegbox"]["tokens_per_second"] == pytest.approx({"value": 500, "low": 450, "high": 600})
    assert found["pegbox"]["share_of_floor"] == pytest.approx(0.5)
    uneven = a_run(100, 1.0) | {"seconds": [9.0, 10.0, 1100.0]}
    assert figures.rate(uneven) == 100


def reached(**rates: float) -> dict[str, bool]:
    found = results(**rates)["workloads"]
    return {target.what: target.reached(value) for target, value in lines(found)}


def test_a_target_is_reached_or_not_and_one_that_nobody_measured_is_not_told() -> None:
    assert reached(pegbox=500, packed=250, padded=100) == {
        "tokens/s, times TRL packed": True,
        "tokens/s, times TRL padded": True,
        "peak memory, share of TRL packed's": True,
    }
    assert not reached(pegbox=400, packed=250)["tokens/s, times TRL packed"]
    assert "tokens/s, times TRL padded" not in reached(pegbox=400, packed=250)
    assert len(TARGETS) > 3


def test_the_pages_hold_the_figures_and_load_nothing(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "speed.md").write_text(f"old\n{page.WRITTEN}\n\nkept words\n")
    found = results(pegbox=500, packed=250)
    page.write(found, tmp_path)
    text = (tmp_path / "speed.md").read_text()
    assert "kept words" in text and "old" not in text
    assert "500 (450 .. 600)" in text and "2.00" in text and "unsloth is not installed" in text
    name = tmp_path / "results" / "speed-2026-01-02-cpu"
    shown = name.with_suffix(".html").read_text()
    assert "<svg" in shown and "rows &amp; &lt;more&gt;" in shown
    assert not {"src=", "@import", 'href="http'} & {part for part in ("src=", "@import", 'href="http') if part in shown}
    assert name.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(name.with_suffix(".json").read_text()) == found


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """For models so small, several threads wait for each other longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
