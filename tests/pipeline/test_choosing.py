"""Which weights are kept, and when a run ends: by any metric in its direction, by patience, by the clock.

INVARIANTS row 23. The metric is computed again from the saved model, by which direction and place can be told.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import pegbox
from pegbox import pipeline
from pegbox.errors import RecipeError
from pegbox.evaluation import systems
from pegbox.evaluation.score import value_of
from pegbox.finished import Run
from pegbox.metrics import lookup
from pegbox.recipe import load
from pegbox.runs.checkpoint import TrainState
from pegbox.training import loop, validation
from pegbox.training.job import Job, Judge
from tiny_folder import causal_folder, encoder_folder, sums, write_rows
from tiny_tasks import FORMS

LEARNT = {"chat": "chrf", "classification": "f1_macro", "regression": "rmse"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {"chat": causal_folder(root / "llama", spread=0.5)} | dict.fromkeys(
        ("classification", "regression"), encoder_folder(root / "bert", spread=0.5)
    )


def recipe_of(task: str, models: dict[str, Path], folder: Path, **train: Any) -> dict[str, Any]:
    rows = write_rows(folder / "rows.jsonl", sums(60) if task == "chat" else FORMS[task][2](60))
    settings = {"max_steps": 12, "batch_size": 8, "learning_rate": 3e-2, "eval_steps": 2, "report_to": [], **train}
    return {
        "model": str(models[task]),
        "task": task,
        "data": {"train": str(rows), "validation": 0.3, "test": 0.2, "allow": ["near_duplicate"]},
        "train": settings,
        "evaluate": {"max_new_tokens": 4, "few_shot": 0, "max_rows": 20},
    }


def told(run: Run) -> dict[int, dict[str, Any]]:
    """The lines of the validations, by their updates."""
    return {line["step"]: line for line in run.folder.read_lines("metrics.jsonl") if "split" in line}


def check_best_by_metric(task: str, models: dict[str, Path], folder: Path) -> None:
    name = LEARNT[task]
    metric = lookup(name)
    run = pegbox.train(recipe_of(task, models, folder, metric_for_best_model=name), run_dir=folder / "run")
    series = {step: line[name] for step, line in told(run).items()}
    best = max if metric.greater_is_better else min
    assert run.receipt["chosen_step"] == min(step for step, value in series.items() if value == best(series.values()))
    assert run.receipt["best_validation"] == {
        "metric": name,
        "value": best(series.values()),
        "greater_is_better": metric.greater_is_better,
    }
    rows = systems.choose(pipeline.read_rows(run.recipe)[2].splits.validation, 20, run.recipe.seed)
    saved = value_of(metric, run.task, rows, run.answers(rows))
    assert saved == pytest.approx(best(series.values()), rel=1e-5)
    assert len(set(series.values())) > 1, "a series that does not move proves nothing"


@pytest.mark.parametrize("task", LEARNT)
def test_the_weights_that_are_kept_are_the_best_by_the_metric(
    task: str, models: dict[str, Path], tmp_path: Path
) -> None:
    check_best_by_metric(task, models, tmp_path)


@pytest.mark.parametrize("task", ["chat", "regression"])
def test_the_wrong_direction_is_caught(
    task: str, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = pipeline._judge_of

    def wrong(ready: Any) -> Judge:
        judge = right(ready)
        assert judge is not None
        return Judge(judge.metric, not judge.greater_is_better, judge.score)

    monkeypatch.setattr(pipeline, "_judge_of", wrong)
    with pytest.raises(AssertionError):
        check_best_by_metric(task, models, tmp_path)


def test_choosing_by_a_metric_changes_no_update(models: dict[str, Path], tmp_path: Path) -> None:
    """Asking the model draws nothing, leaves no gradient, and puts it back into training."""
    runs = [
        pegbox.train(recipe_of("chat", models, tmp_path, **choice), run_dir=tmp_path / name)
        for name, choice in (("loss", {}), ("chrf", {"metric_for_best_model": "chrf"}))
    ]
    one, other = ([line for line in run.folder.read_lines("metrics.jsonl") if "split" not in line] for run in runs)
    assert one == other
    assert [line["loss"] for line in told(runs[0]).values()] == [line["loss"] for line in told(runs[1]).values()]


def test_a_function_of_the_users_own_can_choose(models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def longest(answers, references):\n    return [float(len(a)) for a in answers]\n"
    )
    recipe = recipe_of("chat", models, tmp_path, metric_for_best_model=f"{tmp_path}/mine.py:longest")
    run = pegbox.train(recipe, run_dir=tmp_path / "run")
    assert run.receipt["best_validation"]["value"] == max(line["longest"] for line in told(run).values())
    assert str(tmp_path / "mine.py") in run.receipt["code"]


@pytest.mark.parametrize(("name", "said"), [("chrff", "chrf"), ("rmse", "cannot score the answers of chat")])
def test_a_metric_that_cannot_choose_is_refused_before_training(
    name: str, said: str, models: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=said):
        pegbox.train(recipe_of("chat", models, tmp_path, metric_for_best_model=name), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---- given series: ties, what is not finite, patience, thresholds ----------------------------------------------------

NAN = float("nan")


def run_of(series: list[float], greater: bool, models: dict[str, Path], folder: Path, **train: Any) -> TrainState:
    """A training whose validations give a series of values."""
    given = iter(series)
    settings = {"max_steps": len(series), "eval_steps": 1, **train}
    ready = pipeline.get_ready(load(recipe_of("classification", models, folder, **settings)))
    run = pipeline.RunFolder.create(folder / "run")
    data, judge = ready.data, Judge("given", greater, lambda: next(given))
    log = pipeline.trackers.Log(run)
    job = Job(ready.model, ready.task, data.train, data.validation, ready.recipe.train, ready.plan, 0, run, "", log)
    return loop.train(replace(job, judge=judge), TrainState())


@pytest.mark.parametrize(
    ("series", "greater", "best"),
    [
        ([1, 3, 2, 3], True, 2),
        ([3, 1, 2, 1], False, 2),
        ([NAN, 2, float("inf"), 3], True, 4),
        ([NAN, 2, float("-inf"), 3], False, 2),
        ([0, 0, 0, 0], True, 1),
        ([-5, -4, -4.5, -6], True, 2),
        ([NAN, NAN, NAN, NAN], True, None),
    ],
)
def test_the_best_is_the_first_of_the_best_finite_values(
    series: list[float], greater: bool, best: int | None, models: dict[str, Path], tmp_path: Path
) -> None:
    state = run_of(series, greater, models, tmp_path)
    assert state.best_step == best and state.step == 4
    assert state.best_value == (None if best is None else series[best - 1])


@pytest.mark.parametrize(
    ("series", "greater", "threshold", "last"),
    [
        ([1, 2, 2, 2, 3, 9], True, 0.0, 4),
        ([1, 2, 2, 3, 3, 3], True, 0.0, 6),
        ([9, 8, 8, 8, 1, 1], False, 0.0, 4),
        ([1, 1.5, 2, 2.5, 3, 9], True, 1.0, 3),  # each gains less than the threshold over the best before
        ([1, NAN, NAN, 9, 9, 9], True, 0.0, 3),
        ([NAN, NAN, 1, 2, 3, 4], True, 0.0, 2),
    ],
)
def test_patience_counts_validations_without_gain_of_the_metric(
    series: list[float], greater: bool, threshold: float, last: int, models: dict[str, Path], tmp_path: Path
) -> None:
    settings = {"early_stopping_patience": 2, "early_stopping_threshold": threshold}
    assert run_of(series, greater, models, tmp_path, **settings).step == last


# ---- the clock -------------------------------------------------------------------------------------------------------


def slow(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    right = loop.take_update
    monkeypatch.setattr(loop, "take_update", lambda *given: (time.sleep(seconds), right(*given))[1])


def test_a_run_whose_time_is_over_ends_with_a_model_that_was_evaluated(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch, 0.3)
    run = pegbox.train(recipe_of("classification", models, tmp_path, max_time="1s"), run_dir=tmp_path / "run")
    last = max(line["step"] for line in run.folder.read_lines("metrics.jsonl"))
    assert 1 <= last <= 4 < 12
    assert last in told(run), "the last weights are validated whatever eval_steps says"
    assert run.verdict in ("better", "worse", "not shown")
    again = pipeline.resume(run.path)  # the time of a run is that of all its parts
    assert max(line["step"] for line in again.folder.read_lines("metrics.jsonl")) == last


def test_time_enough_changes_nothing(models: dict[str, Path], tmp_path: Path) -> None:
    runs = [
        pegbox.train(recipe_of("classification", models, tmp_path, **train), run_dir=tmp_path / name)
        for name, train in (("without", {}), ("with", {"max_time": "2h"}))
    ]
    assert len({json.dumps(run.receipt["model_files"]) for run in runs}) == 1


def test_a_clock_that_jumps_changes_nothing(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`time.time` goes back a year in the middle of a run, and forward two: neither durations nor order hang on it."""
    right, calls = time.time, list[int]()

    def jumping() -> float:
        calls.append(1)
        return right() + 31e6 * (-1) ** len(calls)

    monkeypatch.setattr(time, "time", jumping)
    run = pegbox.train(recipe_of("classification", models, tmp_path, max_time="2h"), run_dir=tmp_path / "run")
    assert max(line["step"] for line in run.folder.read_lines("metrics.jsonl")) == 12
    assert all(0 < line["seconds"] < 60 for line in run.folder.read_lines("timing.jsonl"))
    assert all(0 < seconds < 600 for seconds in run.receipt["seconds"].values())


@pytest.mark.parametrize(
    ("written", "seconds"), [("90m", 5400), ("1h30m", 5400), ("1h 30m", 5400), (12, 12), ("2d", 172800), ("45s", 45)]
)
def test_a_time_can_be_written_with_units(
    written: Any, seconds: float, models: dict[str, Path], tmp_path: Path
) -> None:
    assert load(recipe_of("chat", models, tmp_path, max_time=written)).train.max_time == seconds


@pytest.mark.parametrize("written", ["soon", "", "0s", 0, -1, "1.5h", True, "30m1h"])
def test_what_is_no_time_is_refused(written: Any, models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="train.max_time"):
        load(recipe_of("chat", models, tmp_path, max_time=written))


def test_evaluation_of_the_metric_runs_without_gradients(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    right = validation.score
    monkeypatch.setattr(validation, "score", lambda job: (right(job), seen.append(job.model.training))[0])
    pegbox.train(recipe_of("chat", models, tmp_path, metric_for_best_model="chrf"), run_dir=tmp_path / "run")
    assert seen and not any(seen)
    assert torch.is_grad_enabled()
