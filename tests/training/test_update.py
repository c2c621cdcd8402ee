"""The update is the maths: however it is cut, over micro-batches, padding, packing or ranks, it is the same update.

INVARIANTS rows 1, 2, 3, 15, 17, 18, 23, 24 and 34; each property is a function, shown to hold and shown to fail with
its bug put in.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from made_tasks import made_task
from pegbox.data.records import Example
from pegbox.data.render import Renderer
from pegbox.errors import TrainingError
from pegbox.kernels.attention import IMPLEMENTATION, register
from pegbox.methods import full, lora
from pegbox.recipe import Full, Lora, Train
from pegbox.runs.checkpoint import TrainState
from pegbox.runs.folder import RunFolder
from pegbox.tasks import language
from pegbox.tasks.chat import Chat
from pegbox.trackers import Log
from pegbox.training import batching, loop, schedule, validation
from pegbox.training.job import Job
from pegbox.training.plan import Plan
from tiny_models import examples, save_tokenizer, tiny

ROWS = examples([3, 9, 4, 14, 6, 2, 11, 5, 7, 3, 12], prefix=3, untrained=2)
CUTS = {
    "one by one": {"micro_batch_rows": 1},
    "by two": {"micro_batch_rows": 2},
    "by three, packed": {"micro_batch_rows": 3, "packed": True},
    "all at once": {},
    "all at once, packed": {"packed": True},
    "all at once, packed behind a shared prefix": {"packed": True, "share_prefix": True, "prefix": 3},
    "by tokens": {"micro_batch_tokens": 24},
}


def make_job(folder: Path, *, method: str = "full", dtype: torch.dtype = torch.float64, **plan: Any) -> Job:
    folder.mkdir(parents=True, exist_ok=True)
    model = tiny("llama", dtype=dtype)
    if method == "full":
        full.prepare(model, Full(), 0)
    else:
        lora.prepare(model, Lora(r=4), 0)
        model.to(dtype)
    settings = Train(batch_size=8, learning_rate=1e-3, max_steps=10, warmup_ratio=0.2)
    if plan.get("packed"):
        register()
        model.set_attn_implementation(IMPLEMENTATION)
    made = Plan(
        updates=10,
        micro_batch_tokens=plan.pop("micro_batch_tokens", 10_000),
        micro_batch_rows=plan.pop("micro_batch_rows", 100),
        packed=plan.pop("packed", False),
        share_prefix=plan.pop("share_prefix", False),
        prefix=plan.pop("prefix", 0),
        tokens=0,
        trainable_parameters=1,
        parameters=1,
        memory=0,
        available_memory=1,
        seconds=0,
    )
    assert not plan
    task = made_task("chat", Renderer(save_tokenizer(folder)))
    run = RunFolder(folder)
    return Job(model, task, ROWS, ROWS[:5], settings, made, 7, run, "hash", Log(run))


def parameters_after(job: Job, updates: int) -> tuple[torch.Tensor, list[float]]:
    """All trained parameters in one vector, and the losses on the way."""
    optimizer = schedule.adamw(loop.checkpoint.trainable(job.model), job.settings)
    losses = [loop.take_update(job, optimizer, step).loss for step in range(updates)]
    learnt = loop.checkpoint.trainable(job.model).values()
    return torch.cat([parameter.detach().flatten() for parameter in learnt]), losses


def check_cuts_agree(folder: Path, method: str) -> None:
    wanted, losses = parameters_after(make_job(folder / "all", method=method), 10)
    for name, plan in CUTS.items():
        found, other = parameters_after(make_job(folder / name, method=method, **plan), 10)
        assert (found - wanted).abs().max() < 1e-10, name
        assert other == pytest.approx(losses, abs=1e-10), name


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_update_does_not_depend_on_how_it_is_cut(tmp_path: Path, method: str) -> None:
    check_cuts_agree(tmp_path, method)


def test_a_mean_of_means_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Chat.loss

    def mean(self: Chat, model: Any, batch: Any) -> tuple[torch.Tensor, float]:
        loss, weight = right(self, model, batch)
        return loss / weight, 1.0

    monkeypatch.setattr(Chat, "loss", mean)
    with pytest.raises(AssertionError):
        check_cuts_agree(tmp_path, "full")


def test_clipping_each_micro_batch_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model: list[Any] = []

    def backward(loss: torch.Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model[-1].parameters(), 0.5)

    original = loop.take_update
    monkeypatch.setattr(loop, "take_update", lambda job, *rest: (model.append(job.model), original(job, *rest))[1])
    monkeypatch.setattr(loop, "_backward", backward)
    with pytest.raises(AssertionError):
        check_cuts_agree(tmp_path, "full")


@pytest.mark.parametrize("plan", CUTS.values(), ids=CUTS)
def test_float32_gradients_agree_to_rounding(tmp_path: Path, plan: dict[str, Any]) -> None:
    def gradients(folder: Path, **plan: Any) -> torch.Tensor:
        job = make_job(folder, dtype=torch.float32, **plan)
        job.task.update_loss(job.model, list(loop.micro_batches(job, ROWS, 0)), loop._backward)
        return torch.cat([p.grad.flatten() for p in job.model.parameters() if p.grad is not None])

    wanted, found = gradients(tmp_path / "a"), gradients(tmp_path / "b", **plan)
    assert (found - wanted).norm() / wanted.norm() < 1e-6


def reference_loss(model: Any, rows: list[Example]) -> float:
    """Cross-entropy by hand, token by token: the logits after t predict token t + 1."""
    total = weight = 0.0
    for row in rows:
        logits = model(torch.tensor([row.input_ids])).logits[0].double()
        for t in range(len(row) - 1):
            chances = logits[t].exp() / logits[t].exp().sum()
            total -= row.loss_weights[t + 1] * math.log(chances[row.input_ids[t + 1]])
            weight += row.loss_weights[t + 1]
    return total / weight


def check_loss_is_next_token(job: Job) -> None:
    with torch.no_grad():
        wanted = reference_loss(job.model, list(job.validation))
    assert validation.validation_loss(job) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("plan", CUTS.values(), ids=CUTS)
def test_the_loss_is_that_of_the_next_token_over_the_whole_set(tmp_path: Path, plan: dict[str, Any]) -> None:
    check_loss_is_next_token(make_job(tmp_path, **plan))


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_shifted_target_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: int) -> None:
    right = language.learnt_logits
    monkeypatch.setattr(
        language, "learnt_logits", lambda model, batch: right(model, replace(batch, places=(batch.places + shift) % 60))
    )
    with pytest.raises(AssertionError):
        check_loss_is_next_token(make_job(tmp_path))


def test_a_mean_of_batch_means_is_caught_in_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(tmp_path, micro_batch_rows=2)
    right = job.task.loss

    def mean(model: Any, batch: Any) -> tuple[torch.Tensor, float]:
        loss, weight = right(model, batch)
        return loss / weight, 1.0

    monkeypatch.setattr(job.task, "loss", mean)
    with pytest.raises(AssertionError):
        check_loss_is_next_token(job)


def test_an_update_of_weight_zero_takes_no_step(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    nothing = [replace(row, loss_weights=tuple(0.0 for _ in row.loss_weights)) for row in ROWS]
    job = replace(job, train=nothing, settings=job.settings.model_copy(update={"weight_decay": 0.5}))
    before = copy.deepcopy(job.model.state_dict())
    _, losses = parameters_after(job, 1)
    assert losses == [0.0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in job.model.state_dict().items())


# ---- which examples, in which order ---------------------------------------------------------------------------------


def check_every_example_once_an_epoch(examples: int, batch_size: int) -> None:
    updates = batching.updates_per_epoch(examples, batch_size)
    for epoch in range(3):
        steps = range(epoch * updates, (epoch + 1) * updates)
        used = Counter(row for step in steps for row in batching.rows_of_update(step, examples, batch_size, 5))
        assert used == Counter(range(examples))


@pytest.mark.parametrize("examples", [1, 7, 8, 9, 40])
def test_every_example_is_used_exactly_once_an_epoch(examples: int) -> None:
    check_every_example_once_an_epoch(examples, 8)


def test_dropping_the_last_short_update_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "updates_per_epoch", lambda examples, batch_size: max(1, examples // batch_size))
    with pytest.raises(AssertionError):
        check_every_example_once_an_epoch(9, 8)


def check_epochs_differ_and_repeat(count: int = 40) -> None:
    orders = [batching.rows_of_update(epoch, count, count, 3) for epoch in range(5)]
    assert len({tuple(order) for order in orders}) == 5
    assert orders == [batching.rows_of_update(epoch, count, count, 3) for epoch in range(5)]
    assert orders[0] != batching.rows_of_update(0, count, count, 4)


def test_the_order_differs_between_epochs_and_seeds_and_is_fixed_by_them() -> None:
    check_epochs_differ_and_repeat()


def test_the_same_shuffle_every_epoch_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = batching.rows_of_update
    monkeypatch.setattr(batching, "rows_of_update", lambda step, *rest: right(0, *rest))
    with pytest.raises(AssertionError):
        check_epochs_differ_and_repeat()


@pytest.mark.parametrize("tokens", [1, 20, 64, 10_000])
@pytest.mark.parametrize("rows", [1, 3, 100])
@pytest.mark.parametrize("packed", [False, True])
def test_a_cut_keeps_every_example_and_both_limits(tokens: int, rows: int, packed: bool) -> None:
    shared = 2 if packed else 0
    parts = batching.cut(ROWS, tokens=tokens, rows=rows, packed=packed, shared=shared)
    assert sorted(example.where for part in parts for example in part) == sorted(example.where for example in ROWS)
    for part in parts:
        assert len(part) <= rows
        computed = sum(len(one) - 2 for one in part) + 2 if packed else max(map(len, part)) * len(part)
        assert len(part) == 1 or computed <= tokens
    for part, following in pairwise(parts):
        own = len(following[0]) - 2 if packed else len(part[0])
        assert len(part) == rows or batching.tokens_of(part, packed=packed, shared=shared) + own > tokens


# ---- the learning rate ----------------------------------------------------------------------------------------------


def check_schedule(kind: str) -> None:
    settings, total, peak = Train(lr_scheduler_type=kind, warmup_ratio=0.25), 40, 3e-4  # type: ignore[arg-type]
    rates = [schedule.learning_rate(step, total, peak, settings) for step in range(total)]
    done = [(step - 10) / 30 for step in range(10, 40)]
    decay = {
        "cosine": [0.5 * (1 + math.cos(math.pi * share)) for share in done],
        "linear": [1 - share for share in done],
        "constant": [1.0] * 30,
    }
    wanted = [peak * (step + 1) / 10 for step in range(10)] + [peak * factor for factor in decay[kind]]
    assert rates == pytest.approx(wanted, rel=1e-12)
    assert rates[9] == rates[10] == peak


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
def test_the_learning_rate_is_the_closed_form(kind: str) -> None:
    check_schedule(kind)


def test_a_warm_up_without_effect_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = schedule.learning_rate
    monkeypatch.setattr(schedule, "learning_rate", lambda step, *rest: right(max(step, 10), *rest))
    with pytest.raises(AssertionError):
        check_schedule("linear")


def test_the_rate_that_is_logged_is_the_rate_that_was_used(tmp_path: Path) -> None:
    job = make_job(tmp_path, micro_batch_rows=2)
    loop.train(job, TrainState())
    logged = [line["learning_rate"] for line in job.run.read_lines("metrics.jsonl") if "split" not in line]
    assert logged == [schedule.learning_rate(step, 10, 1e-3, job.settings) for step in range(10)]


# ---- the best checkpoint, early stopping, what is not finite --------------------------------------------------------


def run_with_losses(
    job: Job, losses: list[float], monkeypatch: pytest.MonkeyPatch
) -> tuple[TrainState, dict[int, Any]]:
    """Train with validation after every update, its losses given; also the weights after every update."""
    given: Iterator[float] = iter(losses)
    seen: dict[int, Any] = {}
    monkeypatch.setattr(validation, "validation_loss", lambda job: next(given))
    right = validation.remember

    def remember(job: Job, state: TrainState, scored: Any) -> None:
        seen[state.step] = copy.deepcopy(job.model.state_dict())
        right(job, state, scored)

    monkeypatch.setattr(validation, "remember", remember)
    return loop.train(job, TrainState()), seen


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([5.0, 4, 3, 4, 5, 6, 7, 8, 9, 10], 3),
        ([5.0, 3, 4, 3, 3, 3, 3, 3, 3, 3], 2),
        ([math.nan, 3, math.nan, 2, math.inf, 4, 4, 4, 4, math.nan], 4),
        ([9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0.5], 10),
    ],
)
def test_the_chosen_weights_are_those_of_the_best_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, losses: list[float], best: int
) -> None:
    job = make_job(tmp_path)
    job = replace(job, settings=job.settings.model_copy(update={"eval_steps": 1}))
    state, seen = run_with_losses(job, losses, monkeypatch)
    assert state.best_step == best
    assert all(torch.equal(tensor, seen[best][name]) for name, tensor in job.model.state_dict().items())
    assert len(list(job.run.checkpoints.iterdir())) <= job.settings.save_total_limit + 1


@pytest.mark.parametrize(("patience", "threshold", "last"), [(2, 0.0, 5), (3, 0.0, 10), (2, 2.0, 3)])
def test_early_stopping_waits_as_long_as_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: int, threshold: float, last: int
) -> None:
    job = make_job(tmp_path)
    changes = {"eval_steps": 1, "early_stopping_patience": patience, "early_stopping_threshold": threshold}
    job = replace(job, settings=job.settings.model_copy(update=changes))
    state, _ = run_with_losses(job, [5.0, 4, 3, 4, 4, 2, 3, 1, 5, 6], monkeypatch)
    assert state.step == last


def test_a_gradient_that_is_not_finite_stops_before_the_weights_change(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    with torch.no_grad():
        job.model.lm_head.weight[5, 0] = math.nan
    before = copy.deepcopy(job.model.state_dict())
    optimizer = schedule.adamw(dict(job.model.named_parameters()), job.settings)
    with pytest.raises(TrainingError, match="not finite") as told:
        loop.take_update(job, optimizer, 0)
    assert told.value.exit_code == 4
    assert "row " in str(told.value)
    for name, tensor in job.model.state_dict().items():
        assert torch.equal(tensor.nan_to_num(7.0), before[name].nan_to_num(7.0))


def test_the_clipped_norm_is_that_of_the_whole_update(tmp_path: Path) -> None:
    small = make_job(tmp_path / "a", micro_batch_rows=2)
    small = replace(small, settings=small.settings.model_copy(update={"max_grad_norm": 1e-3}))
    optimizer = schedule.adamw(dict(small.model.named_parameters()), small.settings)
    update = loop.take_update(small, optimizer, 0)
    grads = torch.cat([p.grad.flatten() for p in small.model.parameters() if p.grad is not None])
    assert grads.norm().item() == pytest.approx(1e-3, rel=1e-4)
    assert update.grad_norm > 1e-3


def test_matrices_decay_and_vectors_do_not() -> None:
    model = tiny("llama")
    optimizer = schedule.adamw(dict(model.named_parameters()), Train(weight_decay=0.3))
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for parameter in model.parameters():
        assert decays[id(parameter)] == (0.3 if parameter.ndim >= 2 else 0.0)


def test_validation_changes_neither_gradients_nor_the_random_state(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    job.task.update_loss(job.model, list(loop.micro_batches(job, ROWS, 0)), loop._backward)
    grads = [p.grad.clone() for p in job.model.parameters() if p.grad is not None]
    state = torch.get_rng_state()
    validation.validation_loss(job)
    assert not job.model.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, p.grad) for a, p in zip(grads, job.model.parameters(), strict=True) if p.grad is not None)
