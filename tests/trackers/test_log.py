"""The log of a run and the trackers that it tells, with trackers that only take notes: who is told what, and what may fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

import pegbox
from pegbox import pipeline
from pegbox.errors import RecipeError
from pegbox.recipe import Recipe
from pegbox.runs.folder import RunFolder
from pegbox.trackers import TRACKERS, Log, choose, log, opened, remember
from pegbox.trackers.base import Start, points
from tiny_folder import causal_folder, chat_recipe, sums, write_rows

EVALUATION = {
    "primary": "exact_match",
    "systems": {
        "tuned": {"exact_match": {"value": 0.5, "low": 0.4, "high": None}, "chrf": {"value": 1, "low": 0, "high": 2}}
    },
    "comparison": {"difference": 0.3, "low": 0.1, "high": 0.5},
    "verdict": "better",
}


class Notes:
    """A tracker that notes what it is told, and fails where it is told to."""

    made: ClassVar[list[Notes]] = []
    fails_in: ClassVar[str] = ""
    rewinds = False

    def __init__(self, start: Start) -> None:
        self.start, self.heard = start, []
        self.id = start.id or f"id-{len(self.made)}"
        self.made.append(self)
        self.hear("open")

    def hear(self, what: str, *more: Any) -> None:
        self.heard.append((what, *more))
        if what == self.fails_in:
            raise OSError("no space left\nat all")

    def log(self, step: int, values: Any) -> None:
        self.hear("log", step, *values)

    def verdict(self, step: int, text: str) -> None:
        self.hear("verdict", step, text)

    def finish(self, *, ok: bool) -> None:
        self.hear("finish", ok)


class Forgetful(Notes):
    rewinds = True


@pytest.fixture(autouse=True)
def notes(monkeypatch: pytest.MonkeyPatch) -> list[Notes]:
    for name in TRACKERS:
        monkeypatch.setitem(TRACKERS, name, Forgetful if name == "tensorboard" else Notes)
    monkeypatch.setattr(Notes, "made", [])
    return Notes.made


def recipe(*report_to: str) -> Recipe:
    given = {"model": "some/model", "task": "chat", "data": "/data/rows.jsonl", "train": {"report_to": list(report_to)}}
    return Recipe.model_validate(given)


def line(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "epoch": step / 4,
        "loss": 2.0,
        "learning_rate": 1e-3,
        "grad_norm": 1.0,
        "tokens": 9,
        "rows": 2,
    }


def validation(step: int, loss: float | None = 1.5) -> dict[str, Any]:
    return {"step": step, "split": "validation", "loss": loss}


TRAIN = ("train/loss", "train/learning_rate", "train/grad_norm", "train/epoch")


@pytest.mark.parametrize("name", sorted(TRACKERS))
def test_the_tracker_that_is_named_is_told_and_no_other(name: str, tmp_path: Path, notes: list[Notes]) -> None:
    with opened(RunFolder(tmp_path), recipe(name), 0, tells=True) as metrics:
        assert list(metrics.trackers) == [name]
        metrics(line(1))
        metrics(validation(1))
        metrics.judged(EVALUATION)
    numbers = ("test/tuned/exact_match", "test/tuned/exact_match_low")
    difference = ("test/difference", "test/difference_low", "test/difference_high")
    assert notes[0].heard == [
        ("open",),
        ("log", 1, *TRAIN),
        ("log", 1, "eval/loss"),
        ("log", 1, *numbers, *difference),
        ("verdict", 1, "better (exact_match)"),
        ("finish", True),
    ]
    assert [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        line(1),
        validation(1),
    ]


def test_without_trackers_the_log_is_the_file(tmp_path: Path, notes: list[Notes]) -> None:
    with opened(RunFolder(tmp_path), recipe(), 0, tells=True) as metrics:
        metrics(line(1))
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
    assert notes == []


def test_another_rank_tells_nothing(tmp_path: Path, notes: list[Notes]) -> None:
    with opened(RunFolder(tmp_path), recipe("wandb"), 0, tells=False) as metrics:
        assert isinstance(metrics, Log)
    assert notes == []
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_is_no_point() -> None:
    assert points(validation(3, None)) == {}


@pytest.mark.parametrize("place", ["open", "log", "verdict", "finish"])
def test_a_tracker_that_fails_is_warned_of_once_and_the_others_go_on(
    place: str, tmp_path: Path, notes: list[Notes], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Healthy(Notes):
        fails_in = ""

    monkeypatch.setitem(TRACKERS, "mlflow", Healthy)
    monkeypatch.setattr(Notes, "fails_in", place)
    with opened(RunFolder(tmp_path), recipe("wandb", "mlflow"), 0, tells=True) as metrics:
        for step in (1, 2, 3):
            metrics(line(step))
        metrics.judged(EVALUATION)
    failed, healthy = notes
    assert [record.getMessage() for record in caplog.records] == [
        "wandb failed and is told no more; the run goes on, metrics.jsonl has every line: no space left"
    ]
    assert failed.heard[-1][0] == place
    assert [entry[0] for entry in healthy.heard] == ["open", *["log"] * 4, "verdict", "finish"]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_run_that_fails_closes_its_trackers_as_failed(tmp_path: Path, notes: list[Notes]) -> None:
    with pytest.raises(KeyboardInterrupt), opened(RunFolder(tmp_path), recipe("wandb"), 0, tells=True):
        raise KeyboardInterrupt
    assert notes[0].heard[-1] == ("finish", False)


def test_a_resumed_run_is_the_same_run_and_is_told_only_what_is_new(tmp_path: Path, notes: list[Notes]) -> None:
    """Update 5 was told, its validation was not; the checkpoint is of update 3."""
    folder, given = RunFolder(tmp_path), recipe("wandb", "tensorboard")
    with opened(folder, given, 0, tells=True) as metrics:
        for step in (1, 2, 3):
            metrics(line(step))
        metrics(validation(3))
        until_3 = folder.sync_logs()
        for step in (4, 5):
            metrics(line(step))
    remember(folder, given)
    folder.truncate_logs(until_3)
    with opened(folder, given, 3, tells=True) as metrics:
        for step in (4, 5):
            metrics(line(step))
        metrics(validation(5))
        metrics(line(6))
    keeping, forgetting = notes[2:]
    assert (keeping.id, forgetting.id) == (notes[0].id, notes[1].id)
    assert (keeping.start.step, keeping.start.id) == (3, notes[0].id)
    assert keeping.heard[1:-1] == [("log", 5, "eval/loss"), ("log", 6, *TRAIN)]
    assert [entry[1] for entry in forgetting.heard[1:-1]] == [4, 5, 5, 6]
    # and killed again before it is as far as it was
    remember(folder, given)
    folder.truncate_logs(until_3)
    remember(folder, given)
    with opened(folder, given, 3, tells=True) as metrics:
        metrics(line(6))
        metrics(line(7))
    assert notes[4].heard[1:-1] == [("log", 7, *TRAIN)]


def test_the_verdict_of_a_finished_run_is_told_once_unless_it_was_taken_back(
    tmp_path: Path, notes: list[Notes]
) -> None:
    folder, given = RunFolder(tmp_path), recipe("wandb", "tensorboard")
    folder.write_lines("metrics.jsonl", [line(1), line(2)])
    folder.write_json("evaluation.json", EVALUATION)
    remember(folder, given)
    for step, told in ((2, ([], [])), (1, ([], [2, 2]))):
        del notes[:]
        with opened(folder, given, step, tells=True) as metrics:
            metrics.judged(EVALUATION)
        assert tuple([entry[1] for entry in tracker.heard[1:-1]] for tracker in notes) == told


# ---- which trackers a run has ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("none", ()),
        ([], ()),
        ("wandb", ("wandb",)),
        (["mlflow", "trackio"], ("mlflow", "trackio")),
        (None, None),
    ],
)
def test_trackers_are_named_as_in_transformers(given: Any, taken: Any) -> None:
    values = {"model": "some/model", "task": "chat", "data": "/rows.jsonl", "train": {"report_to": given}}
    assert Recipe.model_validate(values).train.report_to == taken


def test_a_misspelt_tracker_is_asked_about(tmp_path: Path) -> None:
    values = {"model": "some/model", "task": "chat", "data": "/rows.jsonl", "train": {"report_to": ["wandbb"]}}
    with pytest.raises(RecipeError, match="did you mean 'wandb'"):
        pegbox.check(values)


def without(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    right = log.importlib.util.find_spec
    monkeypatch.setattr(log.importlib.util, "find_spec", lambda name: None if name in missing else right(name))


def test_the_default_is_tensorboard_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose(None) == ("tensorboard",)
    without(monkeypatch, "tensorboard")
    assert choose(None) == ()


def test_a_tracker_that_is_not_installed_is_an_error_with_the_cure_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "wandb")
    model, rows = causal_folder(tmp_path / "model"), write_rows(tmp_path / "rows.jsonl", sums(20))
    given = chat_recipe(model, rows, train={"report_to": "wandb"})
    with pytest.raises(RecipeError, match=r"wandb is not installed") as told:
        pipeline.train(given, run_dir=tmp_path / "run")
    assert told.value.where == "train.report_to"
    assert "pip install 'pegbox[wandb]'" in str(told.value)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_has_a_trackers_name_is_not_the_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B itself makes a folder `wandb` where it runs."""
    (tmp_path / "only_a_folder").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RecipeError, match="not installed"):
        choose(("only_a_folder",))


def test_the_recipe_of_a_run_names_its_trackers(tmp_path: Path, notes: list[Notes]) -> None:
    model, rows = causal_folder(tmp_path / "model"), write_rows(tmp_path / "rows.jsonl", sums(60))
    ready = pipeline.get_ready(Recipe.model_validate(chat_recipe(model, rows)))
    assert ready.recipe.train.report_to == ("tensorboard",)
