"""Runs told to the real packages, offline, and read back through them: every point once, whatever happened in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from read_back import READERS, Held, Points, wandb_records

import pegbox
from pegbox import pipeline
from pegbox.finished import Run
from pegbox.trackers import TRACKERS
from pegbox.trackers.base import Start
from pegbox.training import loop, validation
from tiny_folder import causal_folder, chat_recipe, sums, write_rows

NAMES = sorted(READERS)
SINGLE = 1e-6  # TensorBoard's files hold single precision


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    causal_folder(folder / "model")
    write_rows(folder / "rows.jsonl", sums(60))
    return folder


def recipe(home: Path, **train: Any) -> dict[str, Any]:
    settings = {"max_steps": 8, "eval_steps": 3, "batch_size": 8, "learning_rate": 1e-2, "report_to": NAMES, **train}
    return chat_recipe(home / "model", home / "rows.jsonl", train=settings)


@pytest.fixture(scope="module")
def run(home: Path) -> Run:
    return pegbox.train(recipe(home), run_dir=home / "whole")


def expected(run: Run) -> Points:
    """What `metrics.jsonl` and `evaluation.json` say, in the trackers' words, written out by hand."""
    points: Points = {}
    lines = list(run.folder.read_lines("metrics.jsonl"))
    for line in lines:
        if line.get("split") == "validation":
            points["eval/loss", line["step"]] = line["loss"]
            continue
        for name in ("loss", "learning_rate", "grad_norm", "epoch"):
            points[f"train/{name}", line["step"]] = line[name]
    last = max(line["step"] for line in lines)
    for system, metrics in run.evaluation["systems"].items():
        found = metrics["exact_match"]
        points[f"test/{system}/exact_match", last] = found["value"]
        points[f"test/{system}/exact_match_low", last] = found["low"]
        points[f"test/{system}/exact_match_high", last] = found["high"]
    found = run.evaluation["comparison"]
    points["test/difference", last] = found["difference"]
    points["test/difference_low", last] = found["low"]
    points["test/difference_high", last] = found["high"]
    return points


def check(name: str, run: Run) -> Held:
    held = READERS[name](run.path)
    assert held.points == pytest.approx(expected(run), rel=SINGLE if name == "tensorboard" else 0, abs=0)
    assert held.verdict == f"{run.verdict} (exact_match)"
    return held


@pytest.mark.parametrize("name", NAMES)
def test_a_tracker_has_every_point_of_the_log_and_the_verdict(name: str, run: Run) -> None:
    assert len(expected(run)) == 8 * 4 + 3 + 5 * 3 + 3
    check(name, run)


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_is_told_as_flat_settings_with_names_in_the_place_of_paths(name: str, run: Run) -> None:
    config = READERS[name](run.path).config
    told = {"model.name": "model", "data.train": "rows.jsonl", "data.test": "0.3", "task.kind": "chat", "method.r": "4"}
    told |= {"train.learning_rate": "0.01", "train.max_steps": "8", "method.use_rslora": "0", "seed": "42"}
    told |= {"train.report_to": ", ".join(NAMES), "evaluate.primary": "exact_match"}
    assert {key: config.get(key) for key in told} == told
    assert not [key for key in config if key in ("data.instruction", "evaluate")]


def test_nothing_of_the_machine_and_no_row_is_told(
    home: Path, run: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stores = [path for path in tmp_path_factory.getbasetemp().glob("stores*/trackio/*") if path.is_file()]
    files = [*run.path.glob("wandb/*/*.wandb"), *run.path.glob("tensorboard/*"), *stores]
    assert len(files) >= 3
    answer = next(run.folder.read_lines("predictions.jsonl"))["input"]
    for file in files:
        held = file.read_bytes()
        for secret in (str(home), str(Path.home()), answer):
            assert secret.encode() not in held, f"{file.name} holds {secret}"
    records = [record for file in run.path.glob("wandb/*/*.wandb") for record in wandb_records(file)]
    assert {record.run.host for record in records} == {""}
    assert not {record.WhichOneof("record_type") for record in records} & {"environment", "stats", "output", "files"}


class KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def resumed(home: Path) -> Run:
    """Killed in update 6 and, gone on with, in the validation after it: checkpoints stand at 3, then at 6 and 8."""
    update, remember = loop.take_update, validation.remember

    def killed_in_update(job: Any, optimizer: Any, step: int) -> Any:
        if step == 5:
            raise KilledError
        return update(job, optimizer, step)

    def killed_in_validation(job: Any, state: Any, scored: Any) -> None:
        if state.step == 6:
            raise KilledError
        remember(job, state, scored)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "take_update", killed_in_update)
        with pytest.raises(KilledError):
            pegbox.train(recipe(home), run_dir=home / "killed")
        patch.undo()
        patch.setattr(validation, "remember", killed_in_validation)
        with pytest.raises(KilledError):
            pipeline.resume(home / "killed")
    return pipeline.resume(home / "killed")


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_was_killed_twice_has_every_point_once(name: str, run: Run, resumed: Run) -> None:
    assert (resumed.path / "metrics.jsonl").read_bytes() == (run.path / "metrics.jsonl").read_bytes()
    check(name, resumed)


def test_a_finished_run_that_is_resumed_tells_nothing_twice(run: Run) -> None:
    done = pipeline.resume(run.path)
    for name in NAMES:
        check(name, done)


def test_a_point_that_is_told_again_would_be_noticed(home: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof of the tests above: without the note of what was told, every tracker has the last points twice."""
    known = run.folder.read_json("trackers.json")
    run.folder.write_json("trackers.json", known | {"told": {}})
    monkeypatch.setattr(pipeline.trackers, "remember", lambda folder, recipe: None)
    done = pipeline.resume(run.path)
    for name in NAMES:
        with pytest.raises(AssertionError, match="is there twice"):
            check(name, done)


def test_tensorboard_has_a_line_as_soon_as_it_is_told(tmp_path: Path) -> None:
    """So that a process which is killed at once loses none."""
    tracker = TRACKERS["tensorboard"](Start(tmp_path, {"seed": 42}))
    (file,) = (tmp_path / "tensorboard").iterdir()
    tracker.log(1, {"train/loss": 1.0, "train/epoch": 0.01})
    sizes = [file.stat().st_size]
    for step in range(2, 101):
        tracker.log(step, {"train/loss": 1 / step, "train/epoch": step / 100})
        sizes.append(file.stat().st_size)
        assert sizes[-1] - sizes[-2] == sizes[1] - sizes[0]
    assert len(READERS["tensorboard"](tmp_path).points) == 200
    tracker.finish(ok=True)


def test_a_server_that_is_away_costs_one_warning_and_not_the_run(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = pegbox.train(recipe(home, report_to=["mlflow", "tensorboard"]), run_dir=home / "away")
    said = [
        record.getMessage() for record in caplog.records if record.name == "pegbox" and record.levelname == "WARNING"
    ]
    assert len(said) == 1
    assert said[0].startswith("mlflow failed and is told no more")
    assert (done.path / "metrics.jsonl").read_bytes() == (run.path / "metrics.jsonl").read_bytes()
    check("tensorboard", done)


def test_trackers_say_nothing_on_stdout(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """There a command's result belongs."""
    pegbox.train(recipe(home, max_steps=1), run_dir=home / "quiet")
    assert capfd.readouterr().out == ""
