"""`pegbox runs` lists what there is, whatever state it is in; quiet says less, verbose more, and results stay the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from typed import pegbox, refused


@pytest.fixture(scope="module")
def runs(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, an unfinished one deeper down, and one whose receipt is torn."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("finished", "deep/er/unfinished", "torn"):
        shutil.copytree(home / "run", folder / name)
    (folder / "deep/er/unfinished/evaluation.json").unlink()
    (folder / "torn/receipt.json").write_text('{"began":', encoding="utf-8")
    return folder


def test_every_run_is_listed_with_its_verdict(runs: Path) -> None:
    found = {Path(run["run"]).name: run for run in json.loads(pegbox("runs", runs, "--json").stdout)["runs"]}
    assert set(found) == {"finished", "unfinished", "torn"}
    evaluation = json.loads((runs / "finished/evaluation.json").read_text())
    tuned = evaluation["systems"]["tuned"][evaluation["primary"]]
    finished = found["finished"]
    assert {key: finished[key] for key in tuned} == tuned
    assert finished["verdict"] == evaluation["verdict"]
    assert (finished["method"], finished["task"]) == ("lora", "chat")
    assert found["unfinished"]["verdict"] is None
    assert found["unfinished"]["updates"] == finished["planned"]
    assert "cannot be read" in found["torn"]["problem"]


def test_the_table_says_the_same_to_a_person(runs: Path) -> None:
    shown = pegbox("runs", runs).stdout
    evaluation = json.loads((runs / "finished/evaluation.json").read_text())
    for words in ("finished", evaluation["verdict"], "unfinished, update", "cannot be read", evaluation["primary"]):
        assert words in shown


def test_no_folder_and_no_runs(tmp_path: Path) -> None:
    refused(pegbox("runs", tmp_path / "nowhere"), 2, "nowhere")
    assert json.loads(pegbox("runs", tmp_path, "--json").stdout) == {"runs": []}
    assert "pegbox demo" in pegbox("runs", tmp_path).stdout


def test_quiet_says_nothing_but_the_result(home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = ("train", "recipe.yaml", "train.max_steps=1", "--json", "--run-dir")
    spoken = pegbox(*words, tmp_path / "spoken", cwd=home)
    assert "training: 1/1" in spoken.stderr
    assert any(said.startswith("1 updates;") for said in caplog.messages)
    caplog.clear()
    quiet = pegbox(*words, tmp_path / "quiet", "--quiet", cwd=home)
    assert quiet.stderr == ""
    assert not caplog.messages
    results = [json.loads(done.stdout) for done in (spoken, quiet)]
    assert results[0]["systems"] == results[1]["systems"]


def test_verbose_tells_every_step_and_quiet_is_forgotten(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    told = {}
    for volume in ("--quiet", "--verbose", "--json"):  # --json alone is the volume between the two
        caplog.clear()
        assert pegbox("check", "recipe.yaml", "--json", volume, cwd=home).returncode == 0
        told[volume] = " ".join(caplog.messages)
    assert told["--quiet"] == ""
    assert "step 1, rows" in told["--verbose"]
    assert "step 2, model on cpu" in told["--verbose"]
    assert "step 1" not in told["--json"]
    assert "model " in told["--json"]


def test_messages_go_to_stderr_and_the_result_to_stdout(home: Path) -> None:
    code = "from pegbox.cli import main; main()"
    words = [sys.executable, "-c", code, "check", "recipe.yaml", "--json", "--verbose"]
    done = subprocess.run(words, cwd=home, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["rows"]
    assert "step 2, model on cpu" in done.stderr
