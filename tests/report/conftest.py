"""The run and its page that most tests of the report look at."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from made_run import CHAT, chat_lines, make_run
from page_reader import Element, read_page
from task_runs import MADE

from pegbox.report.html import report
from pegbox.runs.folder import RunFolder


@pytest.fixture(scope="module")
def chat_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("chat") / "run", CHAT, chat_lines())


@pytest.fixture(scope="module")
def page(chat_run: RunFolder) -> Element:
    return read_page(report(chat_run, CHAT))


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Element]:
    """The page of a run of each kind of task, made when it is first asked for."""

    class Pages(dict[str, Element]):
        def __missing__(self, name: str) -> Element:
            recipe, lines, state = MADE[name]
            folder = make_run(tmp_path_factory.mktemp("kinds") / name, recipe, lines, task=state)
            return self.setdefault(name, read_page(report(folder, recipe)))

    return Pages()
