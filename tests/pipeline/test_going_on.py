"""Going on with a run: only as it began, unless told; by itself as many threads and rows at once; and never lost.

INVARIANTS row 16 and the section on checkpoints, for whole runs; `benchmarks/faults` has the same in the large.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

import pegbox
from pegbox import pipeline, runtime
from pegbox.errors import RecipeError, TrainingError
from pegbox.finished import Run
from pegbox.finished.verifying import verify
from pegbox.recipe import dump, load
from pegbox.runs import changes, checkpoint, durable
from pegbox.runs.folder import DRAFT, RunFolder
from pegbox.tasks import Task
from pegbox.training import loop, memory, validation
from pegbox.training.job import Job
from tiny_folder import chat_home, chat_recipe

TRAIN = {"max_steps": 6, "batch_size": 8, "learning_rate": 1e-2, "save_steps": 2, "eval_steps": 3, "report_to": []}
EVALUATE = {"max_new_tokens": 2, "few_shot": 0, "max_rows": 4}


class KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A path with a space and letters from beyond ASCII: every run of this file is made in it."""
    return chat_home(tmp_path_factory.mktemp("a home für 模型"))


def recipe_of(home: Path, **train: Any) -> dict[str, Any]:
    return chat_recipe(home / "model", home / "rows.jsonl", train=TRAIN | train, evaluate=EVALUATE)


@pytest.fixture(scope="module")
def whole(home: Path) -> Run:
    return pegbox.train(recipe_of(home), run_dir=home / "whole")


@pytest.fixture(scope="module")
def killed(home: Path) -> Path:
    """A run that was killed in its sixth update: checkpoints stand at 2, 3 and 4."""
    right = loop.take_update

    def update(job: Any, optimizer: Any, step: int) -> Any:
        if step == 5:
            raise KilledError
        return right(job, optimizer, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "take_update", update)
        with pytest.raises(KilledError):
            pegbox.train(recipe_of(home), run_dir=home / "killed")
    return home / "killed"


@pytest.fixture
def run(killed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(killed, tmp_path / "run"))


def left_by(run: Path, step: int = 6) -> list[str]:
    files = sorted((run / "model").iterdir())
    files += [
        run / "metrics.jsonl",
        *(run / f"checkpoints/step-{step}" / name for name in (checkpoint.WEIGHTS, checkpoint.MOMENTS)),
    ]
    return [checkpoint.sha256(file) for file in files]


# ---- what differs ----------------------------------------------------------------------------------------------------


def change_recipe(run: Path, *overrides: str) -> None:
    (run / "recipe.yaml").write_text(dump(load(run / "recipe.yaml", overrides)), encoding="utf-8")


def test_a_run_goes_on_to_the_same_bytes(run: Path, whole: Run) -> None:
    done = pipeline.resume(run)
    assert left_by(run) == left_by(whole.path)
    assert done.receipt["resumed_at"] == 4 and done.receipt["events"] == {"resumed": 1}


def test_every_key_that_differs_is_listed_and_none_is_passed_over(run: Path) -> None:
    change_recipe(run, "train.learning_rate=1e-3", "train.max_steps=7", "method.r=2")
    with pytest.raises(RecipeError) as told:
        pipeline.resume(run)
    said = str(told.value)
    assert "train.learning_rate: was 0.01, is now 0.001" in said and "train.max_steps: was 6, is now 7" in said
    assert all(f"--accept-change {key}" in said for key in ("train.learning_rate", "train.max_steps", "method.r"))
    with pytest.raises(RecipeError, match=r"method\.r: was 4, is now 2") as told:
        pipeline.resume(run, accept=["train"])
    assert "train." not in str(told.value)


def test_a_change_that_is_accepted_is_made_and_told(run: Path, whole: Run) -> None:
    change_recipe(run, "train.max_steps=8")
    done = pipeline.resume(run, accept=["train.max_steps"])
    assert [line["step"] for line in done.folder.read_lines("metrics.jsonl") if "split" not in line] == list(
        range(1, 9)
    )
    assert done.receipt["accepted_changes"] == ["train.max_steps: was 6, is now 8"]
    assert done.receipt["recipe"]["train"]["max_steps"] == 8 and done.receipt["plan"]["updates"] == 8
    assert verify(done.path, rows=2)["ok"], "the checkpoints of before are the run's own"
    assert pipeline.resume(run).receipt["accepted_changes"] == done.receipt["accepted_changes"]  # and not asked again


def test_accepting_what_does_not_differ_is_refused(run: Path) -> None:
    with pytest.raises(RecipeError, match="nothing of that name differs"):
        pipeline.resume(run, accept=["train.batch_size"])


@pytest.mark.parametrize("key", ["data", "model", "template"])
def test_other_files_than_the_run_began_with_are_refused_by_their_key(
    key: str, run: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = pipeline.record._origin

    def other(*given: Any) -> dict[str, Any]:
        found = right(*given)
        if key == "template":
            found["model"]["template"] = "another"
        else:
            files = found["data"] if key == "data" else found["model"]["files"]
            files[next(iter(files))] = "another"
        return found

    monkeypatch.setattr(pipeline.record, "_origin", other)
    with pytest.raises(RecipeError, match=f"{key}: .* has changed"):
        pipeline.resume(run)
    if key != "model":  # which is looked at once more when the untouched model is asked
        assert pipeline.resume(run, accept=[key]).receipt["accepted_changes"]


def test_a_data_file_that_is_gone_is_named(run: Path, home: Path) -> None:
    (home / "rows.jsonl").rename(home / "away.jsonl")
    try:
        with pytest.raises(RecipeError, match=r"data: .*rows\.jsonl is gone"):
            pipeline.resume(run)
    finally:
        (home / "away.jsonl").rename(home / "rows.jsonl")


def test_weights_of_another_shape_are_refused_whatever_is_accepted(run: Path) -> None:
    change_recipe(run, "method.r=2")
    with pytest.raises(RecipeError, match="the checkpoint is of other weights: .*lora_A"):
        pipeline.resume(run, accept=["method"])


def test_a_difference_that_is_not_looked_for_is_caught(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof of the first: without the comparison the run would go on otherwise than it began."""
    change_recipe(run, "train.learning_rate=1e-3")
    monkeypatch.setattr(changes, "refuse_unaccepted", lambda found, accepted: None)
    with pytest.raises(pytest.fail.Exception), pytest.raises(RecipeError):
        pipeline.resume(run)


# ---- the machine -----------------------------------------------------------------------------------------------------


def test_the_threads_of_the_run_are_taken_again(run: Path) -> None:
    first = json.loads((run / "receipt.json").read_text())
    first["hardware"]["threads"] = 2
    (run / "receipt.json").write_text(json.dumps(first))
    before, seen = torch.get_num_threads(), list[int]()
    right = loop.train
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "train", lambda *given: (seen.append(torch.get_num_threads()), right(*given))[1])
            pipeline.resume(run)
    finally:
        torch.set_num_threads(before)
    assert seen == [2]


def test_another_machine_is_told_to_round_otherwise(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = json.loads((run / "receipt.json").read_text())
    first["versions"]["torch"], first["hardware"]["instructions"] = "1.0", "AVX9"
    (run / "receipt.json").write_text(json.dumps(first))
    pipeline.resume(run)
    told = [line for line in caplog.messages if "equal to rounding only" in line]
    assert len(told) == 1 and "torch 1.0, now 2." in told[0] and "instructions AVX9" in told[0]


def test_plain_operations_stay_plain(home: Path, tmp_path: Path) -> None:
    done = pegbox.train(recipe_of(home, max_steps=2), run_dir=tmp_path / "plain", kernels=False)
    shutil.rmtree(done.folder.checkpoints)
    again = pipeline.resume(done.path)
    assert again.receipt["kernels"]["linear"] == "plain"
    assert again.receipt["model_files"] == done.receipt["model_files"]


def test_a_smaller_micro_batch_is_kept(run: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an out-of-memory error made of it before the kill, and what the plan found at the start of a run."""
    seen: list[int] = []
    right = loop.take_update
    monkeypatch.setattr(
        loop, "take_update", lambda job, *rest: (seen.append(job.plan.micro_batch_tokens), right(job, *rest))[1]
    )
    pipeline.resume(run)
    at_start = seen[0]
    shutil.rmtree(run / "checkpoints")
    first = json.loads((run / "receipt.json").read_text())
    first["plan"]["micro_batch_tokens"] = 64
    (run / "receipt.json").write_text(json.dumps(first))
    seen.clear()
    done = pipeline.resume(run)
    assert set(seen) == {64} and at_start != 64
    assert done.receipt["micro_batch_tokens"] == 64
    state = checkpoint.state_of(checkpoint.by_step(run / "checkpoints")[0])
    assert state.micro_batch_tokens == 64


# ---- nothing is lost -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["data.json", "splits.jsonl", "receipt.json", "recipe.yaml"])
def test_a_run_that_is_killed_before_it_is_one_can_be_begun_again(
    name: str, home: Path, tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = durable.place

    def killed(draft: Path, target: Path) -> None:
        if target.name == name and draft.parent.name == DRAFT:
            raise KilledError
        right(draft, target)

    monkeypatch.setattr(durable, "place", killed)
    with pytest.raises(KilledError):
        pegbox.train(recipe_of(home), run_dir=tmp_path / "run")
    monkeypatch.undo()
    with pytest.raises(RecipeError, match="not a run folder"):
        pipeline.resume(tmp_path / "run")
    pegbox.train(recipe_of(home), run_dir=tmp_path / "run")
    assert left_by(tmp_path / "run") == left_by(whole.path)


def test_a_folder_of_the_users_is_never_taken_for_such_a_beginning(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text("mine")
    with pytest.raises(RecipeError, match="not empty"):
        RunFolder.refuse_used(tmp_path)


def test_a_line_that_was_written_in_part_is_taken_away(run: Path, whole: Run) -> None:
    for name in ("metrics.jsonl", "timing.jsonl"):
        with (run / name).open("a") as log:
            log.write('{"step": 6, "loss": 0.1')
    pipeline.resume(run)
    assert left_by(run) == left_by(whole.path)


def test_a_validation_that_was_not_saved_is_not_told_twice(home: Path, tmp_path: Path, whole: Run) -> None:
    """Killed between the line of a validation and its checkpoint, again and again."""
    right, calls = loop.save, list[int]()

    def killed(job: Any, state: Any, optimizer: Any) -> None:
        if state.validated == state.step and len(calls) < 3:
            calls.append(state.step)
            raise KilledError
        right(job, state, optimizer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save", killed)
        with pytest.raises(KilledError):
            pegbox.train(recipe_of(home), run_dir=tmp_path / "run")
        for _ in range(2):
            with pytest.raises(KilledError):
                pipeline.resume(tmp_path / "run")
    pipeline.resume(tmp_path / "run")
    assert calls == [3, 3, 3]
    assert left_by(tmp_path / "run") == left_by(whole.path)


def test_the_best_checkpoint_that_is_damaged_is_told_and_the_last_weights_are_taken(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([1.0, 2.0])
    monkeypatch.setattr(validation, "validation_loss", lambda job: next(losses))
    right = loop._take_best

    def damaged(job: Any, state: Any) -> None:
        (job.run.checkpoints / "step-3" / checkpoint.WEIGHTS).write_bytes(b"")
        right(job, state)

    monkeypatch.setattr(loop, "_take_best", damaged)
    done = pegbox.train(recipe_of(home), run_dir=tmp_path / "run")
    assert any("step-3, the best, is damaged" in line for line in caplog.messages)
    assert done.receipt["chosen_step"] == 6 and done.receipt["events"]["best_lost"] == 1


def test_no_checkpoint_is_written_of_numbers_that_are_not_finite(home: Path, tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model.bias.data[0] = torch.nan
    with pytest.raises(TrainingError, match="bias: not all numbers are finite"):
        checkpoint.save(tmp_path, checkpoint.TrainState(step=1), model, optimizer, "")
    assert list(tmp_path.iterdir()) == []


def test_an_update_that_memory_was_short_for_is_repeated_in_smaller_pieces(
    home: Path, tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is short once, behind the backward pass of the whole: what that left must not be added to."""
    right, train, begun, failed = Task.update_loss, loop.train, list[int](), list[int]()

    def short(self: Task, *given: Any) -> Any:
        found = right(self, *given)
        if begun and not failed:
            failed.append(1)
            raise MemoryError
        return found

    monkeypatch.setattr(Task, "update_loss", short)
    monkeypatch.setattr(loop, "train", lambda *given: begun.append(1) or train(*given))  # not before, where it is tried
    done = pegbox.train(recipe_of(home), run_dir=tmp_path / "run")
    assert done.receipt["events"] == {"out_of_memory": 1}
    assert done.receipt["micro_batch_tokens"] < whole.receipt["micro_batch_tokens"]
    now, before = (list(one.folder.read_lines("metrics.jsonl")) for one in (done, whole))
    assert [line["loss"] for line in now] == pytest.approx([line["loss"] for line in before], abs=1e-5)


def test_memory_for_not_even_one_row_ends_the_run(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*given: Any) -> Any:
        raise runtime.OutOfMemoryError("no")

    monkeypatch.setattr(loop, "take_update", never)
    with pytest.raises(TrainingError, match="out of memory for one row of at most") as told:
        pegbox.train(recipe_of(home), run_dir=tmp_path / "run")
    assert told.value.exit_code == 4 and "data.max_length" in str(told.value)


def test_an_error_that_is_not_of_memory_is_not_repeated() -> None:
    job, calls = cast(Job, SimpleNamespace(ranks=runtime.ALONE)), list[Job]()

    def wrong(job: Job) -> None:
        calls.append(job)
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        memory.fitting(job, checkpoint.TrainState(), list, wrong)
    assert len(calls) == 1
