"""Progress is told where it can be seen: on a terminal, in a log, in a notebook; and not where it is not wanted."""

from __future__ import annotations

import logging
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator

import nbclient
import nbformat
import pytest

from pegbox.progress import bar

WORK = """
from pegbox.progress import bar
with bar("reading", 3, "pages") as shown:
    for page in range(3):
        shown.advance(1, f"page {page + 1}")
"""


@pytest.fixture
def silenced() -> Iterator[None]:
    logger = logging.getLogger("pegbox.progress")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


def on_a_terminal(**environment: str) -> str:
    """What a terminal is shown."""
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", WORK],
        stderr=follower,
        stdout=follower,
        env={**os.environ, "TERM": "xterm-256color", **environment},
    ) as process:
        process.wait(timeout=60)
    os.close(follower)
    shown = b""
    try:
        while block := os.read(leader, 65536):
            shown += block
    except OSError:  # the other end is closed: all was read
        return shown.decode()
    finally:
        os.close(leader)
    return shown.decode()


def test_a_log_is_told_the_rate_and_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("reading", 3, "pages") as shown:
        for _ in range(3):
            shown.advance()
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines()[-1].startswith("reading: 3/3, ")
    assert "pages/s" in told.err


def test_a_terminal_sees_a_bar_in_colour() -> None:
    shown = on_a_terminal()
    assert "3/3" in shown
    assert "pages" in shown
    assert "\x1b[38;" in shown or "\x1b[3" in shown


def test_no_colour_where_none_is_wanted() -> None:
    assert not re.search(r"\x1b\[[0-9;]*3[0-9][;m]", on_a_terminal(NO_COLOR="1"))


def test_a_program_can_silence_it(silenced: None, capsys: pytest.CaptureFixture[str]) -> None:
    with bar("reading", 3) as shown:
        shown.advance(3)
    assert capsys.readouterr().err == ""


def test_a_notebook_sees_one_line_that_changes() -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(WORK)])
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    outputs = notebook.cells[0].outputs
    assert [output.output_type for output in outputs] == ["display_data"]
    assert outputs[0].data["text/plain"].startswith("reading: 3/3, ")
    assert outputs[0].data["text/plain"].endswith("page 3")
