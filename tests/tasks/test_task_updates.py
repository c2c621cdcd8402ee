"""What training sees, for every task on every kind of model: each row as much as it weighs, and no test row at all.

- INVARIANTS rows 1 and 17: in float64 the weights after 10 updates are the same however an update is cut, padded or packed
- row 24: so is the validation loss
- row 26: rows that swap their answers have another loss; a loss that is broadcast is no sum over rows
- row 23: nothing up to the verdict hangs on the test rows, neither weights nor what the task finds out

Each property is a function, shown to hold and shown to fail with its bug put in. `training/test_update.py` has the same of
chat with all cuts, `test_losses.py` the losses by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import pegbox
from pegbox import pipeline
from pegbox.finished import Run
from pegbox.kernels.attention import IMPLEMENTATION
from pegbox.metrics import FloatArray
from pegbox.pipeline import Ready
from pegbox.recipe import load
from pegbox.runs.checkpoint import trainable
from pegbox.runs.folder import RunFolder
from pegbox.tasks import TASKS, Task, classification
from pegbox.trackers import Log
from pegbox.training import loop, schedule, validation
from pegbox.training.job import Job
from tiny_folder import write_rows
from tiny_models import make_double
from tiny_tasks import ALONE, FORMS, MODELS, Rows

UPDATES = 10
CASES = [
    *[
        (form, kind)
        for form in ("classification", "multilabel", "regression")
        for kind in ("bert", "llama", "t5", "bart")
    ],
    *[("token_classification", kind) for kind in ("bert", "llama", "t5")],
    *[(form, kind) for form in ("pairs", "scored pairs") for kind in ("bert", "llama")],
    ("masked_lm", "masked bert"),
    *[(form, "llama") for form in ("chat", "completion", "plain text")],
    *[("seq2seq", kind) for kind in ("t5", "bart", "t5 that writes")],
]
IDS = [" ".join(case) for case in CASES]
ONE_EACH = [next(case for case in CASES if case[0] == form) for form in FORMS]
# an update has 5 rows, the last of an epoch 3
PADDED = {"packed": False, "share_prefix": False, "prefix": 0}
CUTS: Mapping[str, Mapping[str, Any]] = {
    "one by one": {"micro_batch_rows": 1},
    "by two": {"micro_batch_rows": 2},
    "by tokens": {"micro_batch_tokens": 25},
    "padded": PADDED,
    "padded, by two": {**PADDED, "micro_batch_rows": 2},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: made(tmp_path_factory.mktemp("model")) for kind, made in MODELS.items()}


def recipe_of(form: str, model: Path, folder: Path, test: Rows, **changes: Any) -> dict[str, Any]:
    """13 rows of train, 10 of validation; the rows of the test are given."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = FORMS[form][2](23)
    parts = {"train": rows[:13], "validation": rows[13:], "test": test}
    data: dict[str, Any] = {name: str(write_rows(folder / f"{name}.jsonl", part)) for name, part in parts.items()}
    data["allow"] = ["leak"]  # made-up texts are much alike
    return {
        "model": str(model),
        "task": FORMS[form][0],
        "data": data,
        "method": {"kind": "lora", "r": 4},
        "train": {"batch_size": 5, "learning_rate": 1e-3, "max_steps": UPDATES, "report_to": []},
        "evaluate": {"few_shot": 0},
        **changes,
    }


# ---- how an update is cut --------------------------------------------------------------------------------------------


def ready_of(form: str, kind: str, models: Mapping[str, Path], folder: Path, method: str) -> Ready:
    """All that a run makes ready before it trains, in float64 throughout."""
    recipe = recipe_of(form, models[kind], folder, FORMS[form][2](26)[23:], method={"kind": method})
    ready = pipeline.get_ready(load(recipe))
    assert ready.plan.packed == (kind in ("llama", "bert", "masked bert"))
    make_double(ready.model)
    return ready


def job_of(ready: Ready, folder: Path, **plan: Any) -> Job:
    run, data = RunFolder(folder), ready.data
    made = replace(ready.plan, **plan)
    if ready.plan.packed:
        ready.model.set_attn_implementation(IMPLEMENTATION if made.packed else "sdpa")
    settings = ready.recipe.train
    return Job(ready.model, ready.task, data.train, data.validation, settings, made, 7, run, "hash", Log(run))


def learn(job: Job) -> tuple[torch.Tensor, list[float]]:
    """All trained weights after the updates in one vector, and the losses on the way, that of validation last."""
    learnt = trainable(job.model)
    before = {name: weight.detach().clone() for name, weight in learnt.items()}
    optimizer = schedule.adamw(learnt, job.settings)
    losses = [loop.take_update(job, optimizer, step).loss for step in range(UPDATES)]
    losses.append(validation.validation_loss(job))
    after = torch.cat([weight.detach().flatten() for weight in learnt.values()])
    with torch.no_grad():
        for name, weight in learnt.items():
            weight.copy_(before[name])
    return after, losses


def check_cuts_agree(ready: Ready, folder: Path) -> None:
    wanted, losses = learn(job_of(ready, folder))
    for name, plan in CUTS.items():
        found, other = learn(job_of(ready, folder, **plan))
        assert (found - wanted).abs().max() < 1e-10, name
        assert other == pytest.approx(losses, abs=1e-10), name


@pytest.mark.parametrize(("form", "kind"), CASES, ids=IDS)
def test_the_update_does_not_depend_on_how_it_is_cut(
    form: str, kind: str, models: dict[str, Path], tmp_path: Path
) -> None:
    check_cuts_agree(ready_of(form, kind, models, tmp_path, "full"), tmp_path)


@pytest.mark.parametrize(("form", "kind"), ONE_EACH, ids=FORMS)
def test_nor_does_that_of_an_adapter(form: str, kind: str, models: dict[str, Path], tmp_path: Path) -> None:
    check_cuts_agree(ready_of(form, kind, models, tmp_path, "lora"), tmp_path)


@pytest.mark.parametrize(("form", "kind"), [case for case in ONE_EACH if case[0] in ALONE], ids=ALONE)
def test_a_mean_of_means_is_caught(
    form: str, kind: str, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Task.loss

    def mean(self: Task, model: Any, batch: Any) -> tuple[torch.Tensor, float]:
        loss, weight = right(self, model, batch)
        return loss / weight, 1.0

    ready = ready_of(form, kind, models, tmp_path, "full")
    monkeypatch.setattr(Task, "loss", mean)
    with pytest.raises(AssertionError):
        check_cuts_agree(ready, tmp_path)


# ---- each row with its own answer ------------------------------------------------------------------------------------

BY_ROW = [case for case in CASES if case[0] in ("classification", "multilabel", "regression")]


def broadcast(outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Bug: [N, 1] against [N], N x N errors."""
    return ((outputs - targets[:, 0]) ** 2).mean(1).sum(), float(len(outputs))


def check_swapped_answers_are_another_loss(ready: Ready) -> None:
    examples = ready.data.train
    swapped = [replace(one, targets=examples[n - 1].targets) for n, one in enumerate(examples)]
    losses = []
    for given in (examples, swapped):
        batch = ready.task.collate(given, packed=ready.plan.packed, share_prefix=False)
        losses.append(ready.task.loss(ready.model, batch)[0].item())
    assert abs(losses[0] - losses[1]) > 1e-4 * abs(losses[0])


@pytest.mark.parametrize(("form", "kind"), BY_ROW, ids=[" ".join(case) for case in BY_ROW])
def test_rows_that_swap_their_answers_have_another_loss(
    form: str, kind: str, models: dict[str, Path], tmp_path: Path
) -> None:
    check_swapped_answers_are_another_loss(ready_of(form, kind, models, tmp_path, "full"))


def test_a_loss_that_is_broadcast_is_caught_by_both(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = ready_of("regression", "bert", models, tmp_path, "full")
    monkeypatch.setattr(ready.task, "criterion", broadcast)
    with pytest.raises(AssertionError):
        check_swapped_answers_are_another_loss(ready)
    with pytest.raises(AssertionError):
        check_cuts_agree(ready, tmp_path)


# ---- no test row -----------------------------------------------------------------------------------------------------


def other_tests(form: str) -> tuple[Rows, Rows]:
    """Two sets of test rows that share neither texts nor answers; their labels are known from train."""
    rows = FORMS[form][2](51)
    one, other = rows[23:31], rows[31:51]
    answer = FORMS[form][1]
    for role, value in {"label": "fox", "labels": ["dog"], "score": 1e3, "completion": " another"}.items():
        other = [{**row, role: value} if role in answer else row for row in other]
    if "score" in answer:  # in an order, which a correlation needs
        other = [{**row, "score": row["score"] + n} for n, row in enumerate(other)]
    if "tags" in answer:
        other = [{**row, "tags": ["B-area"] * len(row["tokens"])} for row in other]
    return one, other


def check_test_rows_change_nothing(form: str, model: Path, folder: Path) -> None:
    """What the receipt says of the task, the weights and every line of the log are the same for other test rows."""
    loss = {
        "classification": "cross_entropy",
        "token_classification": "cross_entropy",
        "multilabel": "binary_cross_entropy",
    }
    train = {"batch_size": 8, "learning_rate": 1e-2, "max_steps": 3, "report_to": []}
    if form in loss:
        train["loss"] = {"kind": loss[form], "class_weights": "balanced"}
    runs: list[Run] = []
    for name, test in zip(("one", "other"), other_tests(form), strict=True):
        runs.append(
            pegbox.train(recipe_of(form, model, folder / name, test, train=train), run_dir=folder / name / "run")
        )
    one, other = runs
    assert one.receipt["task"] or form in ("chat", "masked_lm")  # which find out nothing
    assert one.receipt["task"] == other.receipt["task"]
    assert one.receipt["model_files"] == other.receipt["model_files"]
    assert (one.path / "metrics.jsonl").read_bytes() == (other.path / "metrics.jsonl").read_bytes()
    assert one.evaluation["rows"] != other.evaluation["rows"]


@pytest.mark.parametrize(("form", "kind"), ONE_EACH, ids=FORMS)
def test_nothing_up_to_the_verdict_hangs_on_the_test_rows(
    form: str, kind: str, models: dict[str, Path], tmp_path: Path
) -> None:
    check_test_rows_change_nothing(form, models[kind], tmp_path)


LEAKS = [
    *[(form, "fit") for form in ("classification", "multilabel", "regression", "token_classification")],
    *[(form, "calibrate") for form in ("classification", "multilabel")],
]


@pytest.mark.parametrize(("form", "step"), LEAKS, ids=[" ".join(leak) for leak in LEAKS])
def test_test_rows_that_are_looked_at_are_caught(
    form: str, step: str, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Class weights, mean and deviation, temperature, thresholds: each found from the test rows as well."""
    kind, prepare = TASKS[form], pipeline.prepare
    right, leaked = getattr(kind, step), list[Any]()

    def prepared(*given: Any) -> Any:
        data = prepare(*given)
        leaked[:] = data.splits.test
        return data

    def looks(self: Task, *given: Any) -> None:
        right(self, *given[:-1], [*given[-1], *leaked])

    def moved(logits: FloatArray, classes: NDArray[np.int64]) -> float:
        return float(np.exp(logits[np.arange(len(logits)), classes]).mean())

    monkeypatch.setattr(pipeline, "prepare", prepared)
    monkeypatch.setattr(kind, step, looks)
    # the right temperature lies at its bound, from these rows and from others: this one is moved by every row
    monkeypatch.setattr(classification, "find_temperature", moved)
    with pytest.raises(AssertionError):
        check_test_rows_change_nothing(form, models[dict(ONE_EACH)[form]], tmp_path)
