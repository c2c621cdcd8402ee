"""Starting is light: `import pegbox` and `pegbox --help` take under two seconds and load neither torch nor Transformers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = "import sys; sys.argv = ['pegbox', *{words}]; from pegbox.cli import main; main()"
HELP, RUNS, INIT = (
    COMMAND.format(words=words) for words in (["--help"], ["runs", "."], ["init", "rows.jsonl", "--json"])
)
ROWS = [{"prompt": f"{n} plus {n}", "completion": f"{2 * n} it is"} for n in range(100)]
REPORT_HEAVY = """
import atexit, sys
atexit.register(lambda: print("heavy:", sorted({"torch", "transformers"} & set(sys.modules)), file=sys.stderr))
"""


def start(code: str, **environment: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Seconds that a fresh process takes for `code`, and what it said; its stderr ends in the heavy modules loaded."""
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", REPORT_HEAVY + code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    return time.perf_counter() - begin, done


@pytest.mark.parametrize("code", ["import pegbox", HELP, RUNS], ids=["import", "help", "runs"])
def test_starting_takes_under_two_seconds_and_no_torch(code: str) -> None:
    starts = [start(code) for _ in range(3)]
    for _, done in starts:
        assert done.returncode == 0, done.stderr
        assert done.stderr.endswith("heavy: []\n"), done.stderr
    assert min(seconds for seconds, _ in starts) < 2.0


def test_looking_at_rows_needs_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    _, done = start(INIT)
    assert json.loads(done.stdout)["task"] == "chat"
    assert done.stderr.endswith("heavy: []\n"), done.stderr


def test_a_heavy_import_would_be_noticed(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("", encoding="utf-8")
    _, done = start("import torch", PYTHONPATH=str(tmp_path))
    assert done.stderr == "heavy: ['torch']\n"
