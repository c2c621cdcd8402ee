"""Every command that takes a run says what is wrong with it in one message: no run, an unfinished one, no such file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from typed import pegbox, refused

COMMANDS = {
    "chat": ("chat", "RUN"),
    "predict": ("predict", "RUN", "--data", "rows.jsonl", "--out", "answers.jsonl"),
    "evaluate": ("evaluate", "RUN"),
    "evaluate other rows": ("evaluate", "RUN", "--data", "rows.jsonl"),
    "compare": ("compare", "RUN", "whole"),
    "verify": ("verify", "RUN"),
    "resume": ("train", "--resume", "RUN"),
}

BEFORE_TRAINING = (
    "began",
    "versions",
    "hardware",
    "seed",
    "data",
    "rows",
    "model",
    "task",
    "plan",
    "kernels",
    "test_scored",
)


@pytest.fixture
def folder(home: Path, tmp_path: Path) -> Path:
    """The folder with a whole run, one that was stopped in training, and one of something else."""
    shutil.copytree(home / "run", tmp_path / "whole")
    shutil.copytree(home / "run", tmp_path / "stopped")
    shutil.copy(home / "rows.jsonl", tmp_path)
    shutil.rmtree(tmp_path / "stopped" / "model")
    for name in ("evaluation.json", "predictions.jsonl", "report.html", "README.md"):
        (tmp_path / "stopped" / name).unlink()
    receipt = json.loads((tmp_path / "stopped" / "receipt.json").read_text(encoding="utf-8"))
    known = {name: receipt[name] for name in BEFORE_TRAINING}
    (tmp_path / "stopped" / "receipt.json").write_text(json.dumps(known), encoding="utf-8")
    (tmp_path / "other").mkdir()
    return tmp_path


def typed(command: str, run: str) -> list[str]:
    return [run if word == "RUN" else word for word in COMMANDS[command]]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_run(folder: Path, command: str) -> None:
    refused(pegbox(*typed(command, "other"), cwd=folder), 2, "other", "not a run folder")


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "resume"])
def test_a_run_that_was_stopped_says_how_it_is_finished(folder: Path, command: str) -> None:
    refused(pegbox(*typed(command, "stopped"), cwd=folder), 2, "stopped", "pegbox train --resume")


@pytest.mark.parametrize("command", [name for name, words in COMMANDS.items() if "--data" in words])
def test_a_file_that_is_not_there(folder: Path, command: str) -> None:
    (folder / "rows.jsonl").unlink()
    refused(pegbox(*typed(command, "whole"), cwd=folder), 3, "rows.jsonl")


def test_nothing_is_overwritten(folder: Path) -> None:
    (folder / "answers.jsonl").write_text("mine", encoding="utf-8")
    (folder / "recipe.yaml").write_text("mine", encoding="utf-8")
    for words in (
        typed("predict", "whole"),
        ["init", "rows.jsonl"],
        ["compare", "whole", "stopped", "--out", "answers.jsonl"],
        ["train", "recipe.yaml", "--run-dir", "whole"],
    ):
        assert pegbox(*words, cwd=folder).returncode == 2
    assert (folder / "answers.jsonl").read_text(encoding="utf-8") == "mine"
    assert (folder / "recipe.yaml").read_text(encoding="utf-8") == "mine"
