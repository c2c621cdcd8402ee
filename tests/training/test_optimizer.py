"""An update's step is AdamW's, as ten lines compute it, and dropout acts in training alone (INVARIANTS row 30).

    theta <- theta - f r(s) (lambda theta + m^ / (sqrt(v^) + eps)),    m^ = m / (1 - b1^t),    v^ = v / (1 - b2^t)

lambda is that of matrices, f a parameter's own factor. An update s whose rows weigh nothing takes no step: t, m, v and
theta stay as they are, and the schedule r(s), which follows the number of the update, goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from test_update import make_job

from pegbox.methods import full
from pegbox.recipe import Full, Train
from pegbox.runs.checkpoint import trainable
from pegbox.training import gradient, loop, schedule
from pegbox.training.batching import rows_of_update
from pegbox.training.gradient import Gradient
from tiny_models import examples, tiny

Optimizer = torch.optim.Optimizer
Build = Callable[[Mapping[str, torch.nn.Parameter], Train, Callable[[str], float]], Optimizer]

# ---- AdamW -----------------------------------------------------------------------------------------------------------

UPDATES, PEAK, DECAY = 100, 1e-2, 0.3
WEIGHTLESS = {1, 4, 5}  # of these rows; an update has one row, so that each is passed over in every epoch
ROWS = [
    replace(row, loss_weights=(0.0,) * len(row)) if number in WEIGHTLESS else row
    for number, row in enumerate(examples([3, 9, 4, 14, 6, 2, 11, 5]))
]


def factor(name: str) -> float:
    return 0.25 if name.endswith("down_proj.weight") else 3.0 if name.endswith("norm.weight") else 1.0


def rate(step: int) -> float:
    """A tenth of the updates rise, the others fall along half a cosine."""
    return PEAK * ((step + 1) / 10 if step < 10 else 0.5 * (1 + math.cos(math.pi * (step - 10) / 90)))


@dataclass
class Reference:
    """One parameter's AdamW."""

    theta: torch.Tensor
    m: Any = 0.0
    v: Any = 0.0
    t: int = 0

    def step(self, g: torch.Tensor, rate: float, decay: float) -> None:
        self.t, self.m, self.v = self.t + 1, 0.9 * self.m + 0.1 * g, 0.999 * self.v + 0.001 * g**2
        mean, square = self.m / (1 - 0.9**self.t), self.v / (1 - 0.999**self.t)
        self.theta = self.theta - rate * (decay * self.theta + mean / (square.sqrt() + 1e-8))


def check_updates_are_adamws(folder: Path, build: Build = schedule.adamw, updates: int = UPDATES) -> None:
    """After every update each parameter is where the reference is, which takes the gradients that the loop has left."""
    job = make_job(folder)
    full.prepare(job.model, Full(), 0)
    changes = {"batch_size": 1, "learning_rate": PEAK, "weight_decay": DECAY, "warmup_ratio": 0.1, "max_steps": UPDATES}
    settings = job.settings.model_copy(update=changes)
    job = replace(job, train=ROWS, settings=settings, plan=replace(job.plan, updates=UPDATES))
    learnt = trainable(job.model)
    optimizer, wanted = build(learnt, settings, factor), {n: Reference(p.detach().clone()) for n, p in learnt.items()}
    passed_over = 0
    for step in range(updates):
        loop.take_update(job, optimizer, step)
        if rows_of_update(step, len(ROWS), 1, job.seed)[0] in WEIGHTLESS:
            passed_over += 1
        else:
            for name, parameter in learnt.items():
                assert parameter.grad is not None
                decay = DECAY if parameter.ndim == 2 else 0.0
                wanted[name].step(parameter.grad, factor(name) * rate(step), decay)
        for name, parameter in learnt.items():
            assert (parameter - wanted[name].theta).abs().max() < 1e-12, f"update {step}, {name}"
    assert 0 < passed_over < updates


def test_a_hundred_updates_are_adamws_and_rows_without_weight_take_none(tmp_path: Path) -> None:
    check_updates_are_adamws(tmp_path)


def test_matrices_shrink_and_vectors_do_not() -> None:
    """With a gradient of zero nothing but the decay is left of a step: theta (1 - r lambda)."""
    model = tiny("llama")
    learnt, before = trainable(model), {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = schedule.adamw(learnt, Train(weight_decay=0.5))
    schedule.set_rate(optimizer, 0.1)
    for parameter in learnt.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert {p.ndim for p in learnt.values()} == {1, 2}
    for name, parameter in learnt.items():
        shrunk = before[name] * (0.95 if parameter.ndim == 2 else 1.0)
        torch.testing.assert_close(parameter.detach(), shrunk, rtol=1e-6, atol=0)


def no_decay(learnt: Any, settings: Train, rate_factor: Any) -> Optimizer:
    return schedule.adamw(learnt, settings.model_copy(update={"weight_decay": 0.0}), rate_factor)


def all_decays(learnt: Any, settings: Train, rate_factor: Any) -> Optimizer:
    optimizer = schedule.adamw(learnt, settings, rate_factor)
    for group in optimizer.param_groups:
        group["weight_decay"] = settings.weight_decay
    return optimizer


def one_rate(learnt: Any, settings: Train, rate_factor: Any) -> Optimizer:
    return schedule.adamw(learnt, settings)


def begun_long_ago(learnt: Any, settings: Train, rate_factor: Any) -> Optimizer:
    """Bug: no bias correction, as if a million steps lay behind."""
    optimizer = schedule.adamw(learnt, settings, rate_factor)
    for parameter in learnt.values():
        zeros = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.tensor(1e6), **zeros}
    return optimizer


def always_first(learnt: Any, settings: Train, rate_factor: Any) -> Optimizer:
    """Bug: steps are not counted, so that each is corrected as the first is (OLMo-core's SkipStepAdamW)."""
    optimizer = schedule.adamw(learnt, settings, rate_factor)

    def forget(optimizer: Optimizer, *_: Any) -> None:
        for state in optimizer.state.values():
            state["step"].zero_()

    optimizer.register_step_post_hook(forget)
    return optimizer


@pytest.mark.parametrize("build", [no_decay, all_decays, one_rate, begun_long_ago, always_first])
def test_an_optimizer_that_is_another_is_caught(build: Build, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"update \d"):
        check_updates_are_adamws(tmp_path, build, updates=12)


def test_a_step_for_rows_without_weight_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: it moves on by its momentum, and counts."""
    right = gradient.find_gradient

    def found(model: Any, *given: Any, **more: Any) -> Gradient:
        made = right(model, *given, **more)
        for parameter in trainable(model).values():
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        return made if made.weight else replace(made, weight=1.0)

    monkeypatch.setattr(gradient, "find_gradient", found)
    with pytest.raises(AssertionError, match=r"update \d"):
        check_updates_are_adamws(tmp_path, updates=12)


# ---- dropout ---------------------------------------------------------------------------------------------------------


def low_rank(dropout: float, folder: Path) -> Any:
    job = make_job(folder, method="lora")
    for name, parameter in trainable(job.model).items():
        module = job.model.get_submodule(name.rpartition(".")[0])
        module.dropout = dropout
        if name.endswith("lora_B"):
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(1))
    return job


def own(name: str, key: str, dropout: float, folder: Path, *, packed: bool = False) -> Any:
    """A model that brings dropout along."""
    job = make_job(folder, packed=packed)
    silent = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0} if name == "gpt2" else {}
    model = tiny(name, **{**silent, key: dropout}, dtype=torch.float64)
    full.prepare(model, Full(), 0)
    if packed:
        model.set_attn_implementation(job.model.config._attn_implementation)
    return replace(job, model=model)


NOISY: Mapping[str, Callable[[float, Path], Any]] = {
    "lora": low_rank,
    "attention": partial(own, "llama", "attention_dropout"),
    "attention, packed": partial(own, "llama", "attention_dropout", packed=True),
    "residual": partial(own, "gpt2", "resid_pdrop"),
    "embeddings": partial(own, "gpt2", "embd_pdrop"),
}
LOUD = 1e-7  # losses with other noise are further apart; those without agree to 1e-10


def losses(job: Any, updates: int = 3) -> tuple[list[float], float]:
    """Those of updates on the same rows whose rate is too small to change a weight, and that of the model in use."""
    settings = job.settings.model_copy(update={"batch_size": len(job.train), "learning_rate": 1e-30})
    job = replace(job, settings=settings)
    optimizer = schedule.adamw(trainable(job.model), settings)
    seen = [loop.take_update(job, optimizer, step).loss for step in range(updates)]
    job.model.eval()
    with torch.no_grad():
        parts = [job.task.loss(job.model, b) for b in gradient.micro_batches(job.task, job.plan, job.train, -1)]
    return seen, sum(float(loss) for loss, _ in parts) / sum(weight for _, weight in parts)


def check_dropout_acts(make: Callable[[float, Path], Any], folder: Path) -> None:
    """Each update draws its own noise, the model in use none; without dropout all of them are the same."""
    quiet, used = losses(make(0.0, folder / "quiet"))
    assert [*quiet, used] == pytest.approx([used] * 4, rel=1e-10)
    noisy, same = losses(make(0.3, folder / "noisy"))
    assert same == pytest.approx(used, rel=1e-10), "there is noise in the model in use"
    apart = sorted([*noisy, same])
    assert min(b - a for a, b in pairwise(apart)) > LOUD, "the same noise, or none"


@pytest.mark.parametrize("name", NOISY)
def test_dropout_acts_in_every_update_anew_and_not_in_use(name: str, tmp_path: Path) -> None:
    check_dropout_acts(NOISY[name], tmp_path)


def deaf(dropout: float, folder: Path) -> Any:
    """Bug: the model is not told that it is trained."""
    job = low_rank(dropout, folder)
    job.model.train = lambda mode=True: job.model
    return job


def loud(dropout: float, folder: Path) -> Any:
    """Bug: the model is not told that it is in use."""
    job = low_rank(dropout, folder)
    job.model.eval = lambda: job.model
    return job


@pytest.mark.parametrize(("make", "told"), [(deaf, "none"), (loud, "in use")])
def test_a_model_that_takes_training_for_use_or_use_for_training_is_caught(
    make: Callable[[float, Path], Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=told):
        check_dropout_acts(make, tmp_path)


def test_the_same_noise_in_every_update_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = loop.take_update

    def seeded(job: Any, optimizer: Optimizer, step: int) -> Any:
        torch.manual_seed(3)
        return right(job, optimizer, 0)

    monkeypatch.setattr(loop, "take_update", seeded)
    with pytest.raises(AssertionError, match="the same noise"):
        check_dropout_acts(low_rank, tmp_path)
