"""The run and its page that most tests of the report look at."""

from __future__ import annotations

import pytest
from made_run import CHAT, chat_lines, make_run
from page_reader import Element, read_page

from pegbox.report.html import report
from pegbox.runs.folder import RunFolder


@pytest.fixture(scope="module")
def chat_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("chat") / "run", CHAT, chat_lines())


@pytest.fixture(scope="module")
def page(chat_run: RunFolder) -> Element:
    return read_page(report(chat_run, CHAT))
