"""INVARIANTS row 40: what a run computes in is told, and what that does to its loss; memory that is short in the
evaluation costs time and no answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import pegbox
from pegbox import pipeline, runtime
from pegbox.finished import Run
from pegbox.models import batch
from pegbox.models.decoding import Rows
from pegbox.report import facts
from pegbox.training import loop, validation
from tiny_folder import causal_folder, chat_recipe, sums, write_rows


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    causal_folder(folder / "model", spread=0.5)
    write_rows(folder / "rows.jsonl", sums(60))
    return folder


def trained(home: Path, run: Path, method: str, **train: Any) -> Run:
    settings = {"max_steps": 3, "batch_size": 8, "learning_rate": 1e-2, "report_to": [], **train}
    recipe = chat_recipe(home / "model", home / "rows.jsonl", method={"kind": method}, train=settings)
    return pegbox.train(recipe | {"evaluate": {"max_new_tokens": 4, "few_shot": 0}}, run_dir=run)


@pytest.mark.parametrize(("method", "held"), [("full", ["float32"]), ("lora", ["bfloat16", "float32"])])
def test_a_run_in_bfloat16_says_so_and_what_it_costs(method: str, held: list[str], home: Path, tmp_path: Path) -> None:
    told = trained(home, tmp_path / "run", method, bf16=True).receipt
    gap = told["precision"].pop("validation_loss")
    assert told["precision"] == {"computed": "bfloat16", "held": held}
    assert told["kernels"] == {"attention": "packed", "linear": "plain"}
    assert 0 < abs(gap["bfloat16"] - gap["float32"]) < 0.05 * gap["float32"]
    shown = facts.precision(told["precision"] | {"validation_loss": gap})
    assert "computed in bfloat16" in shown and f"{gap['float32']:.5g} all in float32" in shown


def test_a_run_in_float32_has_nothing_to_compare(home: Path, tmp_path: Path) -> None:
    told = trained(home, tmp_path / "run", "lora").receipt
    assert told["precision"] == {"computed": "float32", "held": ["float32"], "validation_loss": None}
    assert "weights in float32" in (tmp_path / "run" / "report.html").read_text()


def test_comparing_leaves_every_weight_as_it_was(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    right = validation.precision_gap

    def compared(job: Any) -> dict[str, float]:
        before = {name: tensor.clone() for name, tensor in job.model.state_dict().items()}
        found = right(job)
        after = job.model.state_dict()
        seen.append(
            all(
                tensor.dtype == after[name].dtype and torch.equal(tensor, after[name])
                for name, tensor in before.items()
            )
        )
        return found

    monkeypatch.setattr(pipeline, "precision_gap", compared)
    trained(home, tmp_path / "run", "lora", bf16=True)
    assert seen == [True]


def test_the_loss_in_float32_is_that_of_a_run_in_float32(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights of the run in bfloat16, loaded into a model that computes and holds everything in float32."""
    run = trained(home, tmp_path / "run", "full", bf16=True)
    recipe = run.recipe.model_copy(
        update={"model": run.recipe.model.model_copy(update={"name": str(run.folder.model)})}
    )
    ready = pipeline.get_ready(recipe.model_copy(update={"train": recipe.train.model_copy(update={"bf16": False})}))
    log = pipeline.trackers.Log(run.folder)
    rows = ready.data.validation[: validation.COMPARED]
    job = loop.Job(ready.model, ready.task, rows, rows, ready.recipe.train, ready.plan, 0, run.folder, "", log)
    assert run.receipt["precision"]["validation_loss"]["float32"] == pytest.approx(
        validation.validation_loss(job), rel=1e-5
    )


# ---- memory in the evaluation ----------------------------------------------------------------------------------------


def test_answers_that_do_not_fit_at_once_are_the_same_in_halves(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = trained(home, tmp_path / "run", "lora")
    rows = pipeline.read_rows(run.recipe)[2].splits.test
    wanted, right, sizes = run.answers(rows).answers, Rows._run, list[int]()

    def short(self: Rows, ids: torch.Tensor, *rest: Any, **options: Any) -> Any:
        sizes.append(len(ids))
        if len(ids) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return right(self, ids, *rest, **options)

    monkeypatch.setattr(Rows, "_run", short)
    assert run.answers(rows).answers == wanted
    assert max(sizes) > 5 and any("half as many" in line for line in caplog.messages)


@pytest.mark.parametrize("most", [1, 2, 7])
def test_every_row_is_done_once_however_little_fits(most: int) -> None:
    done: list[int] = []

    def action(chosen: list[int]) -> None:
        if len(chosen) > most:
            raise MemoryError
        done.extend(chosen)

    batch.on_rows_of_like_length(["x" * (n * 7 % 11) for n in range(30)], 8, action)
    assert sorted(done) == list(range(30))


def test_a_single_row_that_does_not_fit_is_told_with_its_cure() -> None:
    def action(chosen: list[int]) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    with pytest.raises(runtime.OutOfMemoryError, match="for a single row") as told:
        batch.on_rows_of_like_length(["a"], 8, action)
    assert told.value.exit_code == 4 and told.value.cure


def test_other_errors_are_not_taken_for_it() -> None:
    def action(chosen: list[int]) -> None:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        batch.on_rows_of_like_length(["a", "b"], 8, action)
