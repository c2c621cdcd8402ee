"""Damaged text is found and mended, and text that is merely foreign is left as it is; empty and oversize rows."""
# ruff: noqa: RUF001 (letters of other scripts are the matter here)

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pegbox.data.doctor.damage import Encoding, mend
from pegbox.data.doctor.findings import Check, Finding
from pegbox.data.doctor.sizes import OVERSIZE, Empty, Oversize
from pegbox.data.records import (
    Content,
    Conversation,
    LabelledText,
    LabelSetText,
    Message,
    PlainText,
    Preference,
    PromptCompletion,
    Record,
    SourceTarget,
    TaggedWords,
    ToolCall,
)
from pegbox.recipe import Recipe, load

SENTENCES = (
    "Das Mädchen aß ein Stück Käse für fünf Euro.",
    "L'élève a reçu ses résultats à l'école.",
    "El niño pequeño comió piñas mañana.",
    "Привет, как дела сегодня?",
    "Ελληνικά γράμματα και λέξεις",
    "今日はとても良い天気ですね",
)
FOREIGN = (
    *SENTENCES,
    "👩\u200d👩\u200d👧 and 🏳️\u200d🌈",  # joined emoji
    "می\u200cخواهم و نمی\u200cدانم",  # Persian with its non-joiner
    "क्\u200dष and क्\u200cष",  # Hindi with both joiners
    "ភាសា\u200bខ្មែរ",  # Khmer words, divided by a zero-width space
    "שלום \u200fעולם\u200e \u202bאבג\u202c",  # marks of direction, no overrides
    "“curly” ‘quotes’ – ﬁne ligatures, ｆｕｌｌ ｗｉｄｔｈ, 5 µm, ½ &amp; <b>x</b>, e\u0301",
    "tab\there\r\nand a line\n",
    "IL Y MARQUÉ… ",
    "Weich\u00adtrennung",
)


def recipe() -> Recipe:
    return load({"model": "some/model", "task": "chat", "data": {"train": "rows.jsonl"}})


def shown(check: Check, *contents: Content) -> list[Finding]:
    for number, content in enumerate(contents, start=1):
        check.see(Record(f"r:{number}", content))
    return list(check.findings())


def readable(wrong: str) -> list[str]:
    """The sentences of which this encoding has every byte."""
    return [text for text in SENTENCES if text.encode().decode(wrong, "ignore").encode(wrong) == text.encode()]


WRONG = [(wrong, text) for wrong in ("latin-1", "windows-1252") for text in readable(wrong)]


@pytest.mark.parametrize(("wrong", "sentence"), WRONG)
def test_utf8_that_was_read_as_something_else_is_mended_exactly(wrong: str, sentence: str) -> None:
    damaged = sentence.encode().decode(wrong)
    assert mend(damaged) == sentence
    (finding,) = shown(Encoding(recipe()), PlainText(damaged))
    assert "mojibake in 1" in finding.message


@pytest.mark.parametrize("text", FOREIGN)
def test_what_is_merely_foreign_is_left_as_it_is(text: str) -> None:
    assert mend(text) == text
    assert shown(Encoding(recipe()), PlainText(text)) == []


def test_a_damaged_line_is_mended_beside_whole_ones() -> None:
    assert mend("Привет 今日\nfÃ¼r dich\n“so”") == "Привет 今日\nfür dich\n“so”"


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("a\x00b", "ab"),
        ("a\x07b", "ab"),
        ("page\x0cpage", "page page"),
        ("a\ufeffb", "ab"),
        ("a\x7fb", "ab"),
        ("safe\u202eexe", "safeexe"),
        ("zero\u200bwidth", "zerowidth"),
    ],
)
def test_control_characters_are_found_and_taken_out(text: str, mended: str) -> None:
    assert mend(text) == mended
    (finding,) = shown(Encoding(recipe()), PlainText(text))
    assert "control characters in 1" in finding.message


def test_what_is_lost_is_told_and_not_touched() -> None:
    assert mend("f\ufffdr") == "f\ufffdr"
    (finding,) = shown(Encoding(recipe()), PlainText("f\ufffdr"))
    assert "lost characters in 1" in finding.message
    assert "lost" in finding.cure


def test_the_finding_counts_rows_by_damage_and_shows_one_change_alone() -> None:
    rows = ["fine", "secret words fÃ¼r anna", "a\x00b", "x\ufffd", "Ã¼ber\x01 \ufffd"]
    (finding,) = shown(Encoding(recipe()), *map(PlainText, rows))
    assert (finding.check, finding.severity) == ("encoding", "warning")
    assert finding.rows == ("r:2", "r:3", "r:4", "r:5")
    assert finding.message.startswith("4 rows hold")
    assert "mojibake in 2" in finding.message
    assert "control characters in 2" in finding.message
    assert "lost characters in 2" in finding.message
    assert "'Ã¼' -> 'ü'" in finding.message
    assert "secret" not in finding.message and "anna" not in finding.message


def test_the_parts_of_a_record_are_no_damage_and_labels_are_looked_at() -> None:
    whole = [Conversation((Message("user", "hi"), Message("assistant", "ho", 1.0))), LabelledText("a", "b", "c")]
    assert shown(Encoding(recipe()), *whole) == []
    damaged = [LabelledText("a", "Ã¤rger"), LabelSetText("a", ("b", "Ã¤rger")), TaggedWords(("fÃ¼r",), ("O",))]
    (finding,) = shown(Encoding(recipe()), *damaged)
    assert finding.count == 3


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.characters(codec=None)) | st.sampled_from(SENTENCES).map(lambda text: text.encode().decode("latin-1"))
)
def test_mending_never_raises_and_is_idempotent(text: str) -> None:
    mended = mend(text)
    assert mend(mended) == mended
    found = shown(Encoding(recipe()), PlainText(text))
    assert bool(found) == (mended != text or "\ufffd" in text)


# ---- empty and oversize ----------------------------------------------------------------------------------------------

ANSWER = Message("assistant", "yes", 1.0)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (PromptCompletion(" \n", "yes"), "1 without a text or question, 0 without an answer"),
        (PromptCompletion("well?", "\t"), "0 without a text or question, 1 without an answer"),
        (PromptCompletion("", ""), "1 without a text or question, 1 without an answer"),
        (SourceTarget("source", ""), "0 without a text or question, 1 without an answer"),
        (Conversation((Message("user", " "), ANSWER)), "1 without a text or question, 0 without an answer"),
        (Conversation((Message("user", "well?"), Message("assistant", "", 1.0))), "1 without an answer"),
        (PlainText(" "), "1 without a text or question"),
        (LabelledText("", "a"), "1 without a text or question"),
        (LabelledText("text", "a", " "), "1 without a text or question"),
        (TaggedWords((), ()), "1 without a text or question"),
        (Preference(PromptCompletion("a", "b"), PromptCompletion("a", "")), "1 without an answer"),
    ],
)
def test_an_empty_side_is_told(content: Content, told: str) -> None:
    (finding,) = shown(Empty(recipe()), content, PlainText("text"))
    assert (finding.check, finding.severity, finding.rows) == ("empty", "note", ("r:1",))
    assert told in finding.message


@pytest.mark.parametrize(
    "content",
    [
        PlainText("text"),
        LabelSetText("text", ()),
        Conversation((Message("user", "well?"), Message("assistant", "", 1.0, tool_calls=(ToolCall("look", "{}"),)))),
        Conversation((Message("user", "well?"), Message("assistant", "untrained"))),
    ],
)
def test_a_row_that_has_all_it_needs_is_not_empty(content: Content) -> None:
    assert shown(Empty(recipe()), content) == []


def test_a_row_over_the_limit_is_told_and_one_at_it_is_not() -> None:
    half = OVERSIZE // 2
    rows = PromptCompletion("a" * half, "b" * half), PromptCompletion("a" * half, "b" * (half + 1))
    (finding,) = shown(Oversize(recipe()), *rows)
    assert (finding.check, finding.severity, finding.rows) == ("oversize", "note", ("r:2",))
    assert "1,000,001" in finding.message
