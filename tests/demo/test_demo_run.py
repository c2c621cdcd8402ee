"""`pegbox demo` from rows to the screen, on a tiny model in the place of the real one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pegbox.cli import main
from pegbox.demo import run as demo
from tiny_folder import causal_folder


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(demo, "MODEL", str(causal_folder(tmp_path / "model")))
    monkeypatch.setattr(demo, "ROWS", {"train": 60, "validation": 6, "test": 36})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("language", ["en", "de"])
def test_the_demo_shows_a_dozen_commands_the_table_and_the_verdict(
    small: Path, language: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["pegbox", "demo", "--language", language, "--run-dir", "out"])
    with pytest.raises(SystemExit) as ended:
        main()
        sys.exit(0)
    assert not ended.value.code
    told = capsys.readouterr().out
    assert told.count("before  ") == told.count("after   ") == 12
    for words in ("verdict:", "base_few_shot", "exact answers, a name never seen in training", "report.html"):
        assert words in told
    splits: dict[str, set[Any]] = {
        name: {json.loads(line)["template"] for line in (small / f"out/rows/{name}.jsonl").open()}
        for name in ("train", "validation", "test")
    }
    assert not splits["test"] & (splits["train"] | splits["validation"])
