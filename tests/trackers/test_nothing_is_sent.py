"""No tracker that is not named is so much as imported, and a run that names none that sends opens no socket.

A fresh process trains and notes every socket that Python opens, connects or looks a name up for. MLflow tells its makers of
its use except where a test or a build server runs it: the process shows neither.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from source_tree import REPOSITORY
from tiny_folder import causal_folder, chat_recipe, sums, write_rows

WATCH = """
import json, sys, time

asked = []
EVENTS = ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname")
sys.addaudithook(lambda event, args: asked.append(f"{event} {args}") if event in EVENTS else None)
recipe, run_dir = json.loads(sys.argv[1]), sys.argv[2]
"""
TRAIN = """
import pegbox

pegbox.train(recipe, run_dir=run_dir)
"""
TELL = """
from pathlib import Path
from pegbox.recipe import load
from pegbox.runs.folder import RunFolder
from pegbox.trackers import opened

with opened(RunFolder.create(Path(run_dir)), load(recipe), 0, tells=True) as metrics:
    for step in (1, 2):
        metrics({"step": step, "epoch": 0.1, "loss": 2.0, "learning_rate": 1e-3, "grad_norm": 1.0})
    assert len(metrics.trackers) == len(recipe["train"]["report_to"])
time.sleep(1)  # reports are sent by threads
"""
SAY = """
loaded = sorted({"tensorboard", "wandb", "mlflow", "trackio", "torch"} & set(sys.modules))
print(json.dumps({"loaded": loaded, "asked": asked}))
"""
TELLING = (
    "CI",
    "PYTEST_",
    "GITHUB_ACTIONS",
    "HF_HUB_OFFLINE",
    "MLFLOW_DISABLE",
    "DO_NOT_TRACK",
    "JENKINS",
    "GITLAB_CI",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    causal_folder(folder / "model")
    write_rows(folder / "rows.jsonl", sums(40))
    return folder


def watched(code: str, home: Path, report_to: Any, name: str, **environment: str) -> dict[str, list[str]]:
    """The trackers (and torch) that a fresh process has loaded after `code`, and the sockets that it asked for."""
    train = {"max_steps": 2, "batch_size": 8, "report_to": report_to}
    recipe = json.dumps(chat_recipe(home / "model", home / "rows.jsonl", train=train))
    kept = {key: value for key, value in os.environ.items() if not key.startswith(TELLING)}
    paths = {"PYTHONPATH": str(REPOSITORY / "src"), "HF_HOME": str(home / "hf")}
    done = subprocess.run(
        [sys.executable, "-c", WATCH + code + SAY, recipe, str(home / name)],
        capture_output=True,
        text=True,
        check=False,
        env={**kept, **paths, **environment},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_a_run_that_names_no_tracker_writes_tensorboards_files_and_opens_no_socket(home: Path) -> None:
    assert watched(TRAIN, home, None, "default") == {"loaded": ["tensorboard", "torch"], "asked": []}
    assert list((home / "default" / "tensorboard").iterdir())


def test_a_run_without_trackers_loads_none(home: Path) -> None:
    assert watched(TRAIN, home, "none", "none") == {"loaded": ["torch"], "asked": []}
    assert not (home / "none" / "tensorboard").exists()


def test_local_stores_are_local(home: Path) -> None:
    """MLflow's SQLite and Trackio's: not even the packages' own reports of their use are sent."""
    assert watched(TELL, home, ["mlflow", "trackio"], "local") == {"loaded": ["mlflow", "trackio"], "asked": []}


def test_what_is_sent_would_be_noticed(home: Path) -> None:
    """The proof: with MLflow's reports allowed by the user's own variable, the same run asks for their address."""
    found = watched(TELL, home, ["mlflow"], "reporting", MLFLOW_DISABLE_TELEMETRY="false")
    assert any("mlflow" in event for event in found["asked"])
