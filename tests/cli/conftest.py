"""A home for the commands: one finished run on a tiny model serves every test that only looks at it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tiny_folder import causal_folder, sums, write_rows
from typed import pegbox, write_recipe


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, rows, a recipe and a finished run."""
    folder = tmp_path_factory.mktemp("home")
    causal_folder(folder / "model")
    write_rows(folder / "rows.jsonl", sums(120))
    write_recipe(folder)
    done = pegbox("train", "recipe.yaml", "--run-dir", "run", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] in ("better", "worse", "not shown")
    return folder
