"""Every loss in every task, by the book: however an update is cut, it is the plain sum over its rows, divided once.

    theta <- theta - AdamW(clip(grad( sum_i w_i l_i / sum_i w_i )))        i: the rows of the update

By the book each row goes through the model by itself, unpadded, unpacked and in the order of the epoch, and one graph holds
the whole sum; nothing of how the loop sorts, cuts and adds up is used. So a wrong divisor of the last short update is seen
too, which all cuts would have in common. INVARIANTS rows 1 and 17, after 10 updates: in float64 weights and losses to 1e-10;
in float32 weights to 5e-5, and the gradients of an epoch to 1e-6.

`tasks/test_task_updates.py` compares cuts on more kinds of models, `tasks/test_losses.py` has the maths of the losses.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pegbox.data.doctor.languages import Languages
from pegbox.data.records import Example
from pegbox.pipeline import Ready
from pegbox.recipe import FITTING, load
from pegbox.runs.checkpoint import trainable
from pegbox.tasks import Task
from pegbox.training import batching, loop, schedule
from pegbox.training.job import Job
from tiny_folder import causal_folder, encoder_decoder_folder, encoder_folder
from tiny_masked import masked_folder
from tiny_tasks import ALONE, FORMS

sys.path.append(str(Path(__file__).parents[1] / "tasks"))
from test_task_updates import CUTS, PADDED, UPDATES, job_of, learn, ready_of

Loss = Mapping[str, Any] | None  # as a recipe has it; None: the task's own
Cut = Mapping[str, Any]  # what the plan says instead
EXACT, ROUNDED, GRADIENT = 1e-10, 5e-5, 1e-6
NOISE = 3e-7  # of a gradient's norm: rounding
BATCH, EPOCH = 5, 3  # rows of an update; updates of an epoch of 13 rows, the last of 3 rows
SPREAD = 0.1  # of the models' matrices: far from linear, and not yet so steep that float32 is far off
MODELS: Mapping[str, Callable[[Path], Path]] = {
    "bert": lambda folder: encoder_folder(folder, spread=SPREAD),
    "masked bert": lambda folder: masked_folder(folder, spread=SPREAD),
    "llama": lambda folder: causal_folder(folder, spread=SPREAD),
    "t5": encoder_decoder_folder,
}
KINDS = {
    **dict.fromkeys(FORMS, "llama"),
    **dict.fromkeys(("multilabel", "regression", "token_classification"), "bert"),
    "masked_lm": "masked bert",
    "seq2seq": "t5",
}
FUNCTIONS = """
import torch


def brier(outputs, targets, weights):
    \"\"\"The squared error of the probabilities; every third label weighs twice.\"\"\"
    right = torch.nn.functional.one_hot(targets, outputs.shape[1])
    weights = weights * (1 + (targets % 3 == 0))
    return ((outputs.softmax(1) - right).square().sum(1) * weights).sum(), weights.sum()


def log_cosh(outputs, targets, weights):
    \"\"\"Of a row all numbers together; a target below 0.5 weighs twice.\"\"\"
    weights = weights * (1 + (targets[:, 0] < 0.5))
    return ((outputs - targets).cosh().log().sum(1) * weights).sum(), weights.sum()


def softened(outputs, targets, weights):
    \"\"\"The logarithm of 1 + cross-entropy: the worst rows count for less.\"\"\"
    losses = torch.nn.functional.cross_entropy(outputs, targets, reduction="none")
    return (losses.log1p() * weights).sum(), weights.sum()
"""
THINGS = {"light": 0.5, "timer": 2, "fox": 0, "user": 3}  # a micro-batch of foxes alone weighs nothing
PARTS = {"light": 0.5, "timer": 2, "dog": 3, "kitchen": 0.25}
TAGS = {"O": 0.25, "B-thing": 2, "B-area": 1}
CROSS, FOCAL, BINARY, OWN = ({"kind": kind} for kind in ("cross_entropy", "focal", "binary_cross_entropy", "own"))
BRIER, LOG_COSH, SOFTENED = (OWN | {"function": name} for name in ("brier", "log_cosh", "softened"))
SMOOTHED, BALANCED = {"label_smoothing": 0.1}, {"class_weights": "balanced"}
# a form of rows -> the losses beside its task's own
LOSSES: Mapping[str, Sequence[dict[str, Any]]] = {
    "classification": [
        CROSS | SMOOTHED,
        CROSS | BALANCED,
        CROSS | {"class_weights": THINGS},
        CROSS | {"class_weights": THINGS, "label_smoothing": 0.3},
        FOCAL,
        FOCAL | {"class_weights": THINGS, "gamma": 0.5},
        FOCAL | BALANCED | {"gamma": 5},
        BRIER,
    ],
    "multilabel": [
        BINARY | BALANCED,
        BINARY | {"class_weights": PARTS},
        FOCAL,
        FOCAL | {"class_weights": PARTS, "gamma": 0.5},
        FOCAL | BALANCED | {"gamma": 5},
        LOG_COSH,
    ],
    "regression": [{"kind": "mae"}, {"kind": "huber"}, {"kind": "huber", "delta": 0.1}, LOG_COSH],
    "token_classification": [
        CROSS | SMOOTHED | BALANCED,
        CROSS | {"class_weights": TAGS},
        FOCAL,
        FOCAL | BALANCED | {"gamma": 0.5},
        BRIER,
    ],
    "pairs": [{"kind": "info_nce"}, SOFTENED],
    "scored pairs": [{"kind": "cosine"}, LOG_COSH],
    "plain text": [CROSS | SMOOTHED],
    **{form: [CROSS | SMOOTHED, BRIER] for form in ("masked_lm", "chat", "completion", "seq2seq")},
}
CASES = [(form, loss) for form in FORMS for loss in (None, *LOSSES[form])]
SUMS = [case for case in CASES if case[0] in ALONE]  # of which an update's loss is the sum of its rows' own


def named(form: str, loss: Loss) -> str:
    """`classification, focal, gamma 0.5`."""
    shown = {key: "given" if isinstance(value, dict) else value for key, value in (loss or {"kind": "its own"}).items()}
    return ", ".join([form, str(shown.pop("kind")), *(f"{key} {value}" for key, value in shown.items())])


EVERY = pytest.mark.parametrize(("form", "loss"), CASES, ids=[named(*case) for case in CASES])


# ---- runs with a loss ------------------------------------------------------------------------------------------------


def made_models(folder: Path) -> dict[str, Path]:
    """The models, and the losses of the user's own, in the folder."""
    (folder / "my_loss.py").write_text(FUNCTIONS, encoding="utf-8")
    return {kind: made(folder / kind) for kind, made in MODELS.items()}


def made_ready(form: str, models: Mapping[str, Path], folder: Path) -> Ready:
    """A run of the form made ready, but for what costs time and bears on no update: the rows' languages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Languages, "told", lambda self: {})
        return ready_of(form, KINDS[form], models, folder, "full")


def with_loss(ready: Ready, loss: Loss, folder: Path) -> Ready:
    """The run as a recipe with this loss has it; `folder` is where the user's own are.

    Gradients are clipped with the task's own loss, and not with the others: clipping hides what is wrong in their length.
    """
    if loss and loss["kind"] == "own":
        loss = OWN | {"function": f"{folder / 'my_loss.py'}:{loss['function']}"}
    changes: dict[str, Any] = {"lr_scheduler_type": "constant", "warmup_ratio": 0, "max_grad_norm": 1e9 if loss else 1}
    changes["loss"] = loss
    recipe = load(ready.recipe, [f"train.{key}={json.dumps(value)}" for key, value in changes.items()])
    ready.task.recipe = recipe
    ready.task.fit(ready.data.splits.train)
    return replace(ready, recipe=recipe)


# ---- by the book -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Book:
    """What is right, in float64: the weights [P] after the updates, the losses on the way and that of validation; and of each
    update of an epoch, at the weights that the model begins with, the gradient [P] and the sum of its rows' own norms."""

    weights: torch.Tensor
    losses: list[float]
    gradients: list[torch.Tensor]
    norms: list[float]


Case = Callable[[str, Loss], tuple[Ready, Book]]


def rows_alone(job: Job, rows: Sequence[Example], step: int) -> tuple[torch.Tensor, float]:
    """The losses [R] of the rows, each by itself, and their weight; of a joint task each among all of them."""
    if job.task.joint:
        batch = job.task.collate(list(rows), packed=False, share_prefix=False)
        told = [part.split(1) for part in job.task.scored(job.model, batch)]
        return torch.stack([job.task.criterion(*row)[0] for row in zip(*told, strict=True)]), len(rows)
    batches = [job.task.collate([job.task.drawn(row, step)], packed=False, share_prefix=False) for row in rows]
    losses, weights = zip(*(job.task.loss(job.model, batch) for batch in batches), strict=True)
    return torch.stack(losses), sum(weights)


def book_losses(job: Job, step: int) -> torch.Tensor:
    """The losses [R] of an update's rows, divided by the weight of them all."""
    job.model.train()
    chosen = batching.rows_of_update(step, len(job.train), BATCH, job.seed)
    losses, weight = rows_alone(job, [job.train[row] for row in chosen], step)
    return losses / weight


def gradient(loss: torch.Tensor, job: Job) -> torch.Tensor:
    learnt = list(trainable(job.model).values())
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, learnt, retain_graph=True)])


def settled(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """bool [P]: of which weights no gradient is rounding alone.

    AdamW divides a gradient by its own size, and so moves the others by float32's rounding: BERT's biases of keys, which
    change no softmax, and by chance a few more.
    """
    return torch.stack([(found == 0) | (found.abs() > NOISE * found.norm()) for found in gradients]).all(0)


def by_the_book(job: Job) -> Book:
    gradients, norms = [], []
    for step in range(EPOCH):
        of_rows = [gradient(loss, job) for loss in book_losses(job, step)]
        gradients.append(torch.stack(of_rows).sum(0))
        norms.append(sum(found.norm().item() for found in of_rows))
    return Book(*learn_by_the_book(job), gradients, norms)


def learn_by_the_book(job: Job) -> tuple[torch.Tensor, list[float]]:
    """What `learn` gives. The recipe's rate is constant."""
    learnt = list(trainable(job.model).values())
    before, losses = [weight.detach().clone() for weight in learnt], []
    optimizer = torch.optim.AdamW(learnt, lr=1e-3, weight_decay=0.0)
    for step in range(UPDATES):
        optimizer.zero_grad()
        loss = book_losses(job, step).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learnt, job.settings.max_grad_norm)
        optimizer.step()
        losses.append(loss.item())
    job.model.eval()
    with torch.no_grad():
        size = BATCH if job.task.joint else len(job.validation)
        groups = [job.validation[start : start + size] for start in range(0, len(job.validation), size)]
        parts, weights = zip(*(rows_alone(job, group, -1) for group in groups), strict=True)
        validation, total = torch.cat(parts), sum(weights)
        after = torch.cat([weight.flatten() for weight in learnt])
        for now, then in zip(learnt, before, strict=True):
            now.copy_(then)
    return after, [*losses, validation.sum().item() / total]


# ---- by the loop -----------------------------------------------------------------------------------------------------


def loop_gradients(job: Job) -> list[torch.Tensor]:
    """Those of the loop's updates of an epoch, unclipped, at the weights that the model has."""
    job = replace(job, settings=job.settings.model_copy(update={"max_grad_norm": 1e9}))
    learnt, found = trainable(job.model), []
    optimizer = schedule.adamw(learnt, job.settings)
    optimizer.step = lambda: None  # type: ignore[method-assign,assignment]
    for step in range(EPOCH):
        loop.take_update(job, optimizer, step)
        found.append(torch.cat([weight.grad.flatten() for weight in learnt.values()]))
    return found


def check_weights(ready: Ready, book: Book, folder: Path, cuts: Mapping[str, Cut]) -> None:
    ready.model.double()
    for name, cut in cuts.items():
        found, losses = learn(job_of(ready, folder, **cut))
        assert (found - book.weights).abs().max() < EXACT, f"weights, {name}"
        assert losses == pytest.approx(book.losses, abs=EXACT), name


def check_float32(ready: Ready, book: Book, folder: Path, cuts: Mapping[str, Cut]) -> None:
    ready.model.float()
    for name, cut in cuts.items():
        found, losses = learn(job_of(ready, folder, **cut))
        assert ((found - book.weights) * settled(book.gradients)).abs().max() < ROUNDED, f"weights, {name}"
        assert losses == pytest.approx(book.losses, rel=1e-4), name


def check_gradients(ready: Ready, book: Book, folder: Path, cuts: Mapping[str, Cut]) -> None:
    """Relative to the rows' own gradients: where these cancel, their sum is small and its rounding is not."""
    ready.model.float()
    for name, cut in cuts.items():
        gradients = loop_gradients(job_of(ready, folder, **cut))
        for found, wanted, norm in zip(gradients, book.gradients, book.norms, strict=True):
            assert (found - wanted).norm() < GRADIENT * norm, f"gradients, {name}"


WHOLE: Cut = {}
BY_ROWS = {f"{rows} at once": {"micro_batch_rows": rows} for rows in range(1, BATCH + 1)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("losses")


@pytest.fixture(scope="module")
def case(folder: Path) -> Case:
    """`case(form, loss)`: a run made ready, of each form once, and what is right of it, found once."""
    models, runs, books = made_models(folder), dict[str, Ready](), dict[str, Book]()

    def made(form: str, loss: Loss) -> tuple[Ready, Book]:
        if form not in runs:
            runs[form] = made_ready(form, models, folder / form)
        ready, name = with_loss(runs[form], loss, folder), named(form, loss)
        if name not in books:
            ready.model.double()
            books[name] = by_the_book(job_of(ready, folder, **PADDED))
        return ready, books[name]

    return made


# ---- what holds ------------------------------------------------------------------------------------------------------


@EVERY
def test_an_update_is_the_sum_over_its_rows_however_it_is_cut(form: str, loss: Loss, case: Case, folder: Path) -> None:
    every = {**BY_ROWS, "by tokens": CUTS["by tokens"], "padded": PADDED}
    check_weights(*case(form, loss), folder, {"by two": CUTS["by two"]} if loss else every)


@EVERY
def test_so_it_is_in_float32_but_for_rounding(form: str, loss: Loss, case: Case, folder: Path) -> None:
    check_float32(*case(form, loss), folder, {"whole": WHOLE})
    check_gradients(*case(form, loss), folder, {"whole": WHOLE, "one by one": CUTS["one by one"]})


@pytest.mark.parametrize("form", FORMS)
def test_hardly_a_weight_is_left_out_in_float32(form: str, case: Case) -> None:
    ready, book = case(form, None)
    keys = sum(weight.numel() for name, weight in trainable(ready.model).items() if name.endswith("key.bias"))
    assert keys <= (~settled(book.gradients)).sum() < keys + len(book.weights) // 100


def test_every_loss_of_every_task_and_every_option_is_among_them() -> None:
    fitting = {task: [kind().kind for kind in kinds] for task, kinds in FITTING.items()}
    seen = {(FORMS[form][0], loss["kind"] if loss else fitting[FORMS[form][0]][0]) for form, loss in CASES}
    assert seen == {(task, kind) for task, kinds in fitting.items() for kind in (*kinds, "own")}
    options = {(kind().kind, option) for kinds in FITTING.values() for kind in kinds for option in kind.model_fields}
    assert {(loss["kind"], key) for _, loss in CASES if loss for key in loss} >= options - {("mse", "kind")}


# ---- the checks see what is wrong -----------------------------------------------------------------------------------


def wrong_sum(bug: Callable[..., tuple[torch.Tensor, float]]) -> Callable[[type[Task]], Callable[..., Any]]:
    """A task's `loss` with a bug that training alone has."""

    def put_into(kind: type[Task]) -> Callable[..., Any]:
        right = kind.loss

        def loss(self: Task, model: Any, batch: Any) -> tuple[torch.Tensor, float]:
            total, weight = right(self, model, batch)
            return bug(total, weight, batch) if model.training else (total, weight)

        return loss

    return put_into


def lost_row(kind: type[Task]) -> Callable[..., Any]:
    right = kind.collate
    return lambda self, examples, **how: right(self, examples[:-1] or examples, **how)


# how to be wrong -> what makes which method of a task's class wrong, and the cut at which it shows
BUGS: Mapping[str, tuple[str, Callable[..., Any], Cut]] = {
    "a mean of means": (
        "loss",
        wrong_sum(lambda total, weight, batch: (total / (weight or 1.0), 1.0)),
        CUTS["by two"],
    ),
    "the last short update divided by the weight of a whole one": (
        "loss",
        wrong_sum(lambda total, weight, batch: (total, weight * BATCH / len(batch.ends))),
        WHOLE,
    ),
    "a row that is left out": ("collate", lost_row, WHOLE),
}


@pytest.mark.parametrize(("form", "loss"), SUMS, ids=[named(*case) for case in SUMS])
@pytest.mark.parametrize("bug", BUGS)
def test_a_wrong_gradient_is_caught(
    form: str, loss: Loss, bug: str, case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, book = case(form, loss)
    method, put_in, cut = BUGS[bug]
    monkeypatch.setattr(type(ready.task), method, put_in(type(ready.task)))
    with pytest.raises(AssertionError, match="gradients"):
        check_gradients(ready, book, folder, {bug: cut})


@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.parametrize("form", ALONE)
def test_so_are_wrong_weights(form: str, bug: str, case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready, book = case(form, LOSSES[form][0])
    method, put_in, cut = BUGS[bug]
    monkeypatch.setattr(type(ready.task), method, put_in(type(ready.task)))
    with pytest.raises(AssertionError, match="weights"):
        check_weights(ready, book, folder, {bug: cut})
