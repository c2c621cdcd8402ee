"""What the page must not do: turn text into markup or script, load anything, or change its surroundings."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_run import CHAT, chat_lines, lines_of, make_run, page_of, recipe_of
from page_reader import Element, read_page

from pegbox.errors import RecipeError
from pegbox.report.html import report
from pegbox.report.page import TEMPLATES, as_data
from pegbox.report.usage import ROLES
from pegbox.runs.folder import RunFolder

HOSTILE = '</style></pre><script>alert("1")</script><img src=http://a.example/x onerror=alert(1)>&amp;{{ 7 * 7 }}'


SPAN = {"label": HOSTILE, "start": 0, "end": len(HOSTILE), "first_word": 0, "last_word": 2}
LIKELY, LESS = {"nll": 5.0, "tokens": 5}, {"nll": 9.0, "tokens": 5}
FIRST, LATER = {"first": HOSTILE, "ranks": [1]}, {"first": "plain", "ranks": [3]}
# of each kind of task: the metric, two answers of which the first is right in every other row, what the task found out
KINDS: dict[str, tuple[str, tuple[Any, Any], dict[str, Any]]] = {
    "chat": ("exact_match", (HOSTILE, "plain"), {}),
    "classification": ("accuracy", (HOSTILE, "plain"), {"labels": [HOSTILE, "plain"], "temperature": 2.0}),
    "multilabel": ("accuracy", ([HOSTILE], ["plain"]), {"labels": [HOSTILE, "plain"], "thresholds": [0.5, 0.5]}),
    "regression": ("mae", (1.5, 2.5), {"targets": [HOSTILE]}),
    "token_classification": ("f1", ([SPAN], []), {"labels": [HOSTILE, "O"]}),
    "masked_lm": ("perplexity", (LIKELY, LESS), {}),
    "seq2seq": ("chrf", (HOSTILE, "plain"), {"trivial": "most frequent target"}),
    "embedding": ("ndcg", (FIRST, LATER), {}),
}
NAMED = [task for task in KINDS if task not in ("regression", "masked_lm")]  # those whose answers are texts


def hostile_page(path: Path, task: str) -> Element:
    metric, (one, other), state = KINDS[task]
    right = [HOSTILE] * 40 if task == "masked_lm" else [one, other] * 20
    lines = lines_of({"trivial": [other] * 40, "tuned": [one, other, other, other] * 10}, right, [HOSTILE] * 40)
    lines = [line | {"id": f"{HOSTILE}:{number}", "group": HOSTILE} for number, line in enumerate(lines)]
    if task == "classification":
        lines = [line | {"probabilities": {"tuned": {HOSTILE: 0.7, "plain": 0.3}}} for line in lines]
    weights = {"loss": {"kind": "focal", "class_weights": {HOSTILE: 2.0, "plain": 1.0}}}
    recipe = recipe_of(
        task,
        metric,
        data={
            "train": HOSTILE,
            "instruction": HOSTILE if task == "chat" else None,
            "columns": {"prompt" if task == "chat" else ROLES[task][0]: HOSTILE},
        },
        train={"learning_rate": 1e-3} | (weights if KINDS[task][2].get("labels") else {}),
    )
    finding = {
        "check": HOSTILE,
        "severity": HOSTILE,
        "rows": [HOSTILE],
        "message": HOSTILE,
        "cure": HOSTILE,
        "count": 1,
    }
    return page_of(
        path,
        recipe,
        lines,
        findings=[finding],
        data={HOSTILE: "0" * 64},
        model={"name": HOSTILE, "source": HOSTILE, "heads": []},
        task=state,
        versions={"pegbox": HOSTILE, HOSTILE: HOSTILE},
    )


@pytest.mark.parametrize("task", KINDS)
def test_no_text_of_a_user_becomes_markup(tmp_path: Path, task: str) -> None:
    page = hostile_page(tmp_path, task)
    assert page.all("img") == []
    assert [style.attributes for style in page.all("style")] == [{}]
    assert not [name for element in page.all() for name in element.attributes if name.startswith("on")]
    shown = page.all("body")[0].raw_text
    assert shown.count('<script>alert("1")</script>') > 20 and "{{ 7 * 7 }}" in shown
    assert HOSTILE in page.all("title")[0].raw_text


@pytest.mark.parametrize("task", KINDS)
def test_no_text_of_a_user_becomes_a_script(tmp_path: Path, task: str) -> None:
    page = hostile_page(tmp_path, task)
    data, ours = page.all("script")
    assert ours.attributes == {} and ours.raw_text == (TEMPLATES / "browser.js").read_text(encoding="utf-8")
    assert data.attributes == {"type": "application/json", "id": "rows-data"}
    assert not set("<>&") & set(data.raw_text)
    assert HOSTILE in json.loads(data.raw_text)["texts"]


@pytest.mark.parametrize("task", NAMED)
def test_labels_that_are_hostile_stand_in_every_view_as_they_are(tmp_path: Path, task: str) -> None:
    page = hostile_page(tmp_path, task)
    places = page.all("bdi") + page.all("mark") + page.all("summary")
    if task != "chat":
        assert any(HOSTILE in place.raw_text for place in places)
    assert {mark.attributes["class"] for mark in page.all("mark")} <= {"right", "missed", "invented", "mixed"}
    assert HOSTILE in json.dumps(json.loads(page.all("script")[0].raw_text), ensure_ascii=False).replace('\\"', '"')


@given(text=st.text())
def test_data_for_the_script_comes_through_whole_and_ends_no_element(text: str) -> None:
    page = read_page(f"<script>{as_data({text: [text]})}</script>")
    (script,) = page.all("script")
    assert page.children == [script] and json.loads(script.raw_text) == {text: [text]}


def test_our_script_makes_no_markup_and_no_request() -> None:
    source = (TEMPLATES / "browser.js").read_text(encoding="utf-8")
    forbidden = r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|\bFunction\b|fetch|XMLHttp|import|https?:|</|<!--|\.src\b|\.href\b"
    assert re.findall(forbidden, source) == []


def test_the_policy_allows_that_one_script_and_nothing_else(page: Element) -> None:
    digest = hashlib.sha256(page.all("script")[-1].raw_text.encode()).digest()
    (policy,) = [m for m in page.all("meta") if m.attributes.get("http-equiv") == "Content-Security-Policy"]
    assert dict(rule.split(" ", 1) for rule in policy.attributes["content"].split("; ")) == {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'",
        "script-src": f"'sha256-{base64.b64encode(digest).decode()}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_nothing_is_loaded_from_anywhere(tmp_path: Path) -> None:
    page = hostile_page(tmp_path, "chat")
    loading = {"src", "srcset", "data", "action", "poster", "background", "formaction", "ping", "manifest"}
    for element in page.all():
        assert not loading & element.attributes.keys(), element
        for name, value in element.attributes.items():
            if name.endswith("href"):
                assert value.startswith("#"), (element.tag, value)
            assert not re.search(r"url\((?!#)|@import", value), (element.tag, value)
    assert page.all("link") == page.all("base") == page.all("iframe") == []
    assert not re.search(r"url\(|@import", page.all("style")[0].raw_text)


def test_the_page_of_a_harmless_run_names_no_address(page: Element) -> None:
    for element in page.all():
        addresses = [name for name, value in element.attributes.items() if "//" in value]
        assert set(addresses) <= {"xmlns", "xmlns:xlink"}
    assert "://" not in page.raw_text


PAINTS = {"none", "var(--ink)", "var(--muted)", "var(--line)", "var(--accent)", "var(--rival)"}
OWN_PAINTS = {"classification": {"var(--wrong)"}, "many_labels": {"var(--wrong)"}}


def colours(page: Element) -> set[str]:
    painted = [
        e.attributes.get("style", "") + e.attributes.get("fill", "") for svg in page.all("svg") for e in svg.all()
    ]
    return set(re.findall(r"(?:fill|stroke): ([^;]+)", ";".join(painted)))


def test_every_colour_of_the_pictures_is_the_pages_so_that_dark_and_print_follow(page: Element) -> None:
    assert colours(page) == PAINTS
    defined = re.findall(r"(--\w+): #", page.all("style")[0].raw_text)
    every = PAINTS.union(*OWN_PAINTS.values()) - {"none"}
    assert {colour[4:-1] for colour in every} <= {name for name in defined if defined.count(name) == 2}


@pytest.mark.parametrize("kind", ["classification", "many_labels", "regression", "targets"])
def test_the_pictures_of_each_task_have_the_pages_colours_and_ids_of_their_own(
    pages: Mapping[str, Element], kind: str
) -> None:
    assert colours(pages[kind]) == PAINTS | OWN_PAINTS.get(kind, set())
    ids = [element.attributes["id"] for element in pages[kind].all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))


def test_no_id_occurs_twice_and_every_reference_has_its_target(page: Element) -> None:
    ids = [element.attributes["id"] for element in page.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    used = {value for element in page.all() for name, value in element.attributes.items() if name.endswith("href")}
    used |= {
        f"#{name}"
        for element in page.all()
        for value in element.attributes.values()
        for name in re.findall(r"url\(#([^)]*)", value)
    }
    assert used and {name.removeprefix("#") for name in used} <= set(ids)


def test_the_same_run_gives_the_same_page_whatever_the_users_plotting_style(chat_run: RunFolder) -> None:
    plain = report(chat_run, CHAT)
    with matplotlib.rc_context(
        {"svg.fonttype": "path", "font.size": 30, "axes.facecolor": "red", "xtick.major.size": 30}
    ):
        assert report(chat_run, CHAT) == plain
        assert [matplotlib.rcParams[name] for name in ("svg.fonttype", "font.size", "axes.facecolor")] == [
            "path",
            30,
            "red",
        ]


def test_a_run_that_is_not_finished_is_an_error_with_a_cure(tmp_path: Path) -> None:
    recipe = recipe_of()
    folder = make_run(tmp_path / "run", recipe, chat_lines(9))
    (folder.path / "evaluation.json").unlink()
    with pytest.raises(RecipeError, match="pegbox train --resume"):
        report(folder, recipe)
