"""What the README says is so: its recipe is valid, its tables list what there is, its commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from named_sources import paths
from pegbox import errors
from pegbox.recipe import load
from source_tree import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"(?:`|no-python )pegbox ([a-z]+)", README)))


def rows_of(heading: str) -> list[list[str]]:
    """The cells of the table whose first heading is `heading`."""
    table = README.split(f"| {heading} |", 1)[1].split("\n\n", 1)[0].split("\n")[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_the_recipe_shown_is_valid(tmp_path: Path) -> None:
    shown = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    assert len(shown) == 1
    (tmp_path / "recipe.yaml").write_text(shown[0], encoding="utf-8")
    recipe = load(tmp_path / "recipe.yaml")
    assert recipe.train.learning_rate == 2e-4
    assert paths(recipe.data.train) == (str(tmp_path / "tickets.jsonl"),)


def test_every_core_dependency_has_a_reason_and_no_other() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {re.split(r"[<>=~!\[ ]", line, maxsplit=1)[0] for line in project["dependencies"]}
    assert {name for name, reason in rows_of("core") if reason} == needed
    assert {row[0].strip("`") for row in rows_of("extra")} == set(project["optional-dependencies"])


def test_the_exit_codes_are_those_of_the_errors() -> None:
    listed = {int(code) for row in rows_of("exit code") for code in row[0].split(",")}
    raised = {kind.exit_code for kind in [errors.PegboxError, *errors.PegboxError.__subclasses__()]}
    assert raised == listed - {0, 130, 143}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_named_exists(command: str) -> None:
    code = "from pegbox.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, command, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_commands_are_found_at_all() -> None:
    assert {"demo", "check", "train"} <= set(COMMANDS)
