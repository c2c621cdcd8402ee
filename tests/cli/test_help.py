"""`--help` teaches by example, and what it shows can be typed; a shell can complete it; there is quiet and verbose."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from pegbox.cli.commands import app

ENTRY = "import sys; sys.argv[0] = 'pegbox'; from pegbox.cli import main; main()"
COMMANDS = typer.main.get_command(app).commands
EXAMPLES = [
    (name, line) for name, command in COMMANDS.items() for line in re.findall(r"^  (pegbox .*)", command.epilog, re.M)
]


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ENTRY, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100", **environment},
        check=False,
    )


def test_every_command_has_an_example() -> None:
    assert {name for name, _ in EXAMPLES} == set(COMMANDS)


@pytest.mark.parametrize(("name", "line"), EXAMPLES, ids=[line for _, line in EXAMPLES])
def test_an_example_can_be_typed(name: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line.split(">")[0])
    assert words[:2] == ["pegbox", name]
    COMMANDS[name].make_context(name, words[2:])  # raises where an option or an argument is not known


def test_an_example_with_an_unknown_option_would_be_noticed() -> None:
    with pytest.raises(Exception, match="--no-such-option"):
        COMMANDS["runs"].make_context("runs", ["--no-such-option"])


def test_no_command_is_described_by_half_a_sentence() -> None:
    listed = run("--help", COLUMNS="80").stdout
    assert "..." not in listed.split("Commands:")[1]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(shell: str) -> None:
    done = run(_PEGBOX_COMPLETE=f"source_{shell}")
    assert done.returncode == 0, done.stderr
    assert "_PEGBOX_COMPLETE=complete_" in done.stdout


def test_commands_and_options_are_completed() -> None:
    def completed(line: str) -> list[str]:
        words = shlex.split(line) + [""] * line.endswith(" ")
        place = str(len(words) - 1)
        return run(_PEGBOX_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=place).stdout.split()

    assert sorted(completed("pegbox pre")) == ["predict", "preview"]
    assert "--require-better" in completed("pegbox train --req")


def test_the_version_is_told() -> None:
    assert re.fullmatch(r"pegbox \d+\.\d+\.\d+\n", run("--version").stdout)
