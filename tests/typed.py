"""Commands typed in this process, as the installed script runs them."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from pegbox.cli import main
from tiny_folder import chat_recipe


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def pegbox(*words: object, cwd: Path | None = None) -> Done:
    """Run a command in this process, as the installed script does."""
    out, told = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["pegbox", *map(str, words)]
    try:
        with redirect_stdout(out), redirect_stderr(told), chdir(cwd or Path.cwd()), pytest.raises(SystemExit) as ended:
            main()
            sys.exit(0)
    finally:
        sys.argv = before
    return Done(int(ended.value.code or 0), out.getvalue(), told.getvalue())


def write_recipe(folder: Path, name: str = "recipe.yaml", changes: Mapping[str, Any] | None = None) -> Path:
    values = chat_recipe(Path("./model"), Path("rows.jsonl")) | (changes or {})
    (folder / name).write_text(yaml.safe_dump(values), encoding="utf-8")
    return folder / name


def refused(done: Done, code: int, *told: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "cure" in done.stderr
    for words in told:
        assert words in done.stderr
