"""The plan is found by trying, changes nothing, fits the memory there is, and all ranks have the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_update import make_job

import pegbox
from made_tasks import made_task
from pegbox import runtime
from pegbox.data.records import Example
from pegbox.data.render import Renderer
from pegbox.errors import RecipeError, TrainingError
from pegbox.kernels.attention import IMPLEMENTATION, register
from pegbox.methods import adapter, full, lora, peft
from pegbox.models import recomputation
from pegbox.recipe import Adapter, Full, Lora, Peft, Train
from pegbox.runs.checkpoint import TrainState
from pegbox.runtime import Ranks
from pegbox.training import measured, memory, planning, probe
from pegbox.training.job import Job
from pegbox.training.measured import Cost, measure
from pegbox.training.plan import Given, Plan
from pegbox.training.planning import MARGIN, make_plan
from pegbox.training.probe import Line, Piece, Probe
from tiny_folder import causal_folder, chat_recipe, sums, write_rows
from tiny_models import examples, save_tokenizer, tiny

ROWS = examples([3, 9, 4, 14, 6, 2, 11, 5, 7, 3, 12, 40], prefix=3, untrained=2)
METHODS: dict[str, Callable[[Any], None]] = {
    "full": lambda model: full.prepare(model, Full(), 0),
    "lora": lambda model: lora.prepare(model, Lora(r=4, lora_dropout=0.3), 0),
    "adapter": lambda model: adapter.prepare(model, Adapter(), 0),
}


def given(folder: Path, method: str = "lora", *, kind: str = "llama", packed: bool = False, **settings: Any) -> Given:
    model = tiny(kind)
    METHODS[method](model)
    if packed:
        register()
        model.set_attn_implementation(IMPLEMENTATION)
    task = made_task("chat", Renderer(save_tokenizer(folder)))
    train = Train(**{"batch_size": 4, "learning_rate": 1e-3, "max_steps": 6, **settings})
    return Given(model, task, ROWS, ROWS[:5], train, 7, packed=packed, share_prefix=packed)


def tried(made: Given) -> Probe:
    return Probe(made.model, made.task, made.seed, made.bf16, made.ranks)


def recomputes_alike(made: Given) -> bool:
    probe = tried(made)
    return probe.is_alike(probe.piece(ROWS[:3], draft(made)), partial(recomputation.recompute, made.model))


def draft(made: Given) -> Plan:
    return planning._counted(made, 0, 1 << 40, 4096)


# ---- it changes nothing ----------------------------------------------------------------------------------------------


def state(made: Given) -> list[Any]:
    model, generators = made.model, (torch.get_rng_state(), *np.random.get_state()[1:3], random.getstate())
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    told = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    return [told, generators, model.training, [parameter.grad for parameter in model.parameters()]]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor | np.ndarray):
        return bool((torch.as_tensor(one) == torch.as_tensor(other)).all())
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def check_nothing_is_changed(folder: Path, method: str) -> None:
    made = given(folder, method)
    before = state(made)
    make_plan(made)
    assert same(before, state(made))


@pytest.mark.parametrize("method", METHODS)
def test_a_probe_changes_nothing(tmp_path: Path, method: str) -> None:
    check_nothing_is_changed(tmp_path, method)


@pytest.mark.parametrize("left", ["noise", "gradients", "training"])
def test_what_a_probe_leaves_is_caught(tmp_path: Path, left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if left == "noise":
        monkeypatch.setattr(runtime, "draw_again", lambda state, device: None)
    elif left == "gradients":
        monkeypatch.setattr(probe, "drop_gradients", lambda model: None)
    else:

        @contextmanager
        def untouched(model: Any, right: Any = probe.untouched) -> Iterator[None]:
            with right(model):
                yield
            model.train()

        monkeypatch.setattr(probe, "untouched", untouched)
    with pytest.raises(AssertionError):
        check_nothing_is_changed(tmp_path, "lora")


def model_files(folder: Path, name: str) -> dict[str, str]:
    train = {"max_steps": 3, "batch_size": 8, "learning_rate": 1e-2, "report_to": "none"}
    method = {"kind": "lora", "r": 2, "lora_dropout": 0.3}
    recipe = chat_recipe(folder / "model", folder / "rows.jsonl", train=train, method=method)
    recipe["evaluate"] = {"few_shot": 0, "max_new_tokens": 2, "max_rows": 8}
    files: dict[str, str] = pegbox.train(recipe, run_dir=folder / name).receipt["model_files"]
    return files


def test_a_run_that_was_tried_ends_in_the_bytes_of_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    causal_folder(tmp_path / "model", spread=0.2)
    write_rows(tmp_path / "rows.jsonl", sums(40))
    after_trying = model_files(tmp_path, "tried")
    right = Probe.update

    def stepping(self: Probe, pieces: Sequence[Piece]) -> Cost:
        cost = right(self, pieces)
        with torch.no_grad():
            for parameter in self.model.parameters():
                if parameter.requires_grad:
                    parameter.add_(1e-3)
        return cost

    monkeypatch.setattr(Probe, "update", lambda self, pieces: Cost(0.01, 1000))
    monkeypatch.setattr(planning._Planning, "_measured", lambda self, asking, rows: 0)
    assert model_files(tmp_path, "untried") == after_trying
    monkeypatch.setattr(Probe, "update", stepping)
    assert model_files(tmp_path, "stepped") != after_trying


# ---- recomputation ---------------------------------------------------------------------------------------------------


def gradients_alike(made: Given, rows: Sequence[Example]) -> bool:
    """Whether the gradient of some rows is the same number by number with recomputation, and layers do keep less."""
    attempt, plan = tried(made), draft(made)
    pieces = [attempt.piece(rows[:5], plan), attempt.piece(rows[5:], plan)]
    plain = attempt._gradients(pieces)
    recomputation.recompute(made.model, True)
    assert recomputation.recomputes(made.model)
    again = attempt._gradients(pieces)
    return all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_recomputed_layers_give_the_same_gradient(tmp_path: Path, method: str, packed: bool) -> None:
    made = given(tmp_path, method, packed=packed and method != "lora")  # noise is not shared by a prefix
    assert gradients_alike(made, ROWS)


def test_noise_that_is_drawn_anew_on_the_way_back_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(*args: Any, right: Any = recomputation.checkpoint, **options: Any) -> Any:
        return right(*args, **options, preserve_rng_state=False)

    monkeypatch.setattr(recomputation, "checkpoint", careless)
    made = given(tmp_path, "lora")
    assert not gradients_alike(made, ROWS)
    recomputation.recompute(made.model, False)
    assert not recomputes_alike(made)
    assert not recomputation.recomputes(made.model)


def test_recomputation_is_switched_on_as_asked(tmp_path: Path) -> None:
    on, off = given(tmp_path, gradient_checkpointing=True), given(tmp_path, gradient_checkpointing=False)
    assert make_plan(on).gradient_checkpointing and recomputation.recomputes(on.model)
    assert not make_plan(off).gradient_checkpointing and not recomputation.recomputes(off.model)


@pytest.mark.filterwarnings("ignore:::peft")
def test_a_method_whose_layers_cannot_be_recomputed_is_refused(tmp_path: Path) -> None:
    made = given(tmp_path, gradient_checkpointing=True)
    model = tiny("llama")
    peft.prepare(model, Peft(peft_type="PREFIX_TUNING", num_virtual_tokens=4), 0)  # type: ignore[call-arg]
    with pytest.raises(RecipeError, match="train.gradient_checkpointing"):
        make_plan(replace(made, model=model))


# ---- what is chosen --------------------------------------------------------------------------------------------------


def machine(monkeypatch: pytest.MonkeyPatch, memory: int, *, token: int = 1000, recomputed: int = 300) -> list[int]:
    """A machine of so many bytes, on which a token takes so many; the tokens at once that were tried on it."""
    monkeypatch.setattr(planning, "KEPT", 0)
    seen = list[int]()

    def update(self: Probe, pieces: Sequence[Piece]) -> Cost:
        each = recomputed if recomputation.recomputes(self.model) else token
        most = max(piece.tokens for piece in pieces)
        seen.append(most * each)
        return Cost(
            0.001 * most, 2000 + most * each + 4 * sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        )

    monkeypatch.setattr(Probe, "update", update)
    monkeypatch.setattr(planning, "seconds_of", lambda *given: 1.0)
    monkeypatch.setattr(runtime, "release_memory", lambda: None)  # there is nothing to release, and it takes its time
    monkeypatch.setattr(runtime, "held_memory", lambda device: 10_000)
    monkeypatch.setattr(runtime, "available_memory", lambda device: memory)
    monkeypatch.setattr(runtime, "peak_memory", lambda device: 9_000)
    return seen


def learnt(made: Given) -> int:
    return 12 * sum(p.numel() for p in made.model.parameters() if p.requires_grad)


def check_it_fits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On machines that grow smaller: what is planned and what was tried fit; then layers are recomputed; then it is refused."""
    made = given(folder)
    monkeypatch.setattr(planning, "MOST_TOKENS", {"cpu": 120})
    found = list[tuple[int, bool]]()
    for room in (400_000, 120_000, 90_000, 70_000, 45_000, 30_000):
        memory = room + learnt(made)
        seen = machine(monkeypatch, memory)
        plan = make_plan(made)
        assert plan.memory <= MARGIN * plan.available_memory == MARGIN * (memory + 10_000)
        assert max(seen) <= memory
        found.append((plan.micro_batch_tokens, plan.gradient_checkpointing))
    tokens = [at_once for at_once, again in found if not again]
    assert tokens == sorted(tokens, reverse=True) and len(set(tokens)) > 1 and min(tokens) >= 43
    assert not found[0][1] and found[-1][1]
    machine(monkeypatch, 10_000 + learnt(made))
    with pytest.raises(TrainingError, match=r"43 tokens at once need about [\d,]+ bytes") as refused:
        make_plan(made)
    assert "data.max_length" in str(refused.value)


def test_less_is_computed_at_once_until_it_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_it_fits(tmp_path, monkeypatch)


def test_a_plan_that_does_not_look_at_the_machine_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MARGIN", 100.0)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check_it_fits(tmp_path, monkeypatch)


def test_where_trying_runs_out_of_memory_less_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 10**9)
    costs, most = Probe.update, 60

    def update(self: Probe, pieces: Sequence[Piece]) -> Cost:
        if max(piece.tokens for piece in pieces) > most and not recomputation.recomputes(self.model):
            raise runtime.OutOfMemoryError("full")
        return costs(self, pieces)

    monkeypatch.setattr(Probe, "update", update)
    made = given(tmp_path)
    plan = make_plan(made)
    assert plan.micro_batch_tokens <= most and not plan.gradient_checkpointing
    most = 20
    assert make_plan(made).gradient_checkpointing
    most = 1
    assert make_plan(made).gradient_checkpointing


@pytest.mark.parametrize("packed", [False, True])
def test_the_dearest_batch_of_the_run_is_the_one_that_is_tried(tmp_path: Path, packed: bool) -> None:
    made = given(tmp_path, "full", packed=packed, max_steps=9)
    found = planning._Planning(replace(made, settings=made.settings.model_copy(update={"micro_batch_size": 3})))
    every = [
        piece.tokens for step in range(9) for piece in (found.probe.piece(p, found.draft) for p in found.cuts(step))
    ]
    assert found._dearest()[-1].tokens >= max(every) - 6 * packed  # of shared prefixes it does not know


def test_a_line_goes_through_its_points_and_never_below_zero() -> None:
    line = Line.through([(10, 30.0), (20, 50.0)])
    assert (line(10), line(20), line(0)) == (30, 50, 10)
    assert Line.through([(10, 5.0), (20, 50.0)])(0) == 0 and Line.through([(10, 50.0), (20, 5.0)])(5) == 5
    assert Line.through([(10, 30.0)])(20) == 60


# ---- while it trains -------------------------------------------------------------------------------------------------


def only_recomputed(job: Job) -> str:
    """What has room only where layers are recomputed."""
    if not recomputation.recomputes(job.model):
        raise MemoryError("can't allocate memory")
    return "done"


def test_a_single_row_without_room_is_recomputed_and_a_run_that_goes_on_does_so_too(tmp_path: Path) -> None:
    job, left = make_job(tmp_path / "a", method="lora", micro_batch_rows=1), TrainState()
    after, done = memory.fitting(job, left, lambda: ROWS, only_recomputed)
    assert done == "done" and after.plan.gradient_checkpointing and left.gradient_checkpointing
    (event,) = job.run.read_lines("events.jsonl")
    assert event["event"] == "out_of_memory" and event["gradient_checkpointing"]
    again = memory.as_before(make_job(tmp_path / "b", method="lora", micro_batch_rows=1), left)
    assert again.plan.gradient_checkpointing and only_recomputed(again) == "done"


def test_layers_are_not_recomputed_where_the_recipe_says_so(tmp_path: Path) -> None:
    job = make_job(tmp_path, method="lora", micro_batch_rows=1)
    settings = job.settings.model_copy(update={"gradient_checkpointing": False})
    with pytest.raises(TrainingError, match="one row of at most"):
        memory.fitting(replace(job, settings=settings), TrainState(), lambda: ROWS, only_recomputed)


def test_freed_pages_are_given_back_beyond_the_plan_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, swept = make_job(tmp_path), list[int]()
    job = replace(job, plan=replace(job.plan, peaks={"training": 100}))
    monkeypatch.setattr(runtime, "trim_memory", lambda: swept.append(1))
    for held in (90, 100, 101):
        monkeypatch.setattr(runtime, "held_memory", lambda device, held=held: held)
        memory.fitting(job, TrainState(), lambda: ROWS, lambda job: None)
        assert len(swept) == (held > 100)


# ---- measuring -------------------------------------------------------------------------------------------------------


def check_a_block_is_seen() -> None:
    """64 MB that are there for a moment are seen, to a few, and what is there before and after is not."""
    kept = torch.ones(1 << 22)

    def action() -> None:
        block = torch.ones(1 << 24)
        block.mul_(2)

    cost = measure(torch.device("cpu"), action)
    assert abs(cost.memory - (64 << 20)) < 6 << 20 and kept[0] == 1


def test_what_is_held_for_a_moment_is_measured() -> None:
    check_a_block_is_seen()


def test_a_watch_that_looks_only_before_and_after_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "LOOK_EVERY", 1000.0)
    runtime.trim_memory()
    monkeypatch.setattr(runtime, "held_memory", lambda device: 0)
    with pytest.raises(AssertionError):
        check_a_block_is_seen()


# ---- ranks -----------------------------------------------------------------------------------------------------------


class Beside(Ranks):
    """The first of two ranks; the second's values are so many times as large."""

    times = 1.0

    def gather(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """As the second rank would give it."""
        return [rows, rows * self.times]

    def sum(self, *values: float) -> tuple[float, ...]:
        """Twice the own."""
        return tuple(2 * value for value in values)


def test_ranks_plan_with_the_dearest_and_the_smallest_of_them() -> None:
    ranks = Beside(0, 2)
    ranks.__class__.times = 3.0
    assert measured.dearest(ranks, Cost(2.0, 100)) == Cost(6.0, 300)
    ranks.__class__.times = 0.5
    assert measured.dearest(ranks, Cost(2.0, 100)) == Cost(2.0, 100)
    assert ranks.least(800) == 400
