"""Rows that hold a stretch of a benchmark's text: those of brute force, however the text is spelt."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pegbox.data.doctor import overlap
from pegbox.data.doctor.findings import Finding
from pegbox.data.doctor.overlap import Overlap
from pegbox.data.records import PlainText, PromptCompletion, Record

WORDS = [f"word{number}" for number in range(40)]
QUESTION = " ".join(WORDS[:20])


def examined(texts: Sequence[str], rows: Sequence[str | PromptCompletion]) -> list[Finding]:
    check = Overlap(iter(texts))
    for number, row in enumerate(rows, start=1):
        check.see(Record(f"rows.jsonl:{number}", PlainText(row) if isinstance(row, str) else row))
    return list(check.findings())


def listed(texts: Sequence[str], rows: Sequence[str | PromptCompletion]) -> list[int]:
    findings = examined(texts, rows)
    assert all(finding.check == "benchmark_overlap" for finding in findings)
    return [int(where.rpartition(":")[2]) for finding in findings for where in finding.rows]


def stretches(words: Sequence[str], width: int) -> set[tuple[str, ...]]:
    return {tuple(words[at : at + width]) for at in range(len(words) - width + 1)}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 40, 1 << 16]))
def test_rows_listed_are_those_of_brute_force(seed: int, block: int) -> None:
    """Whatever the lengths of texts and rows, and wherever a block of rows ends."""
    draw = random.Random(seed)
    source = draw.choices(WORDS, k=60)

    def piece(longest: int) -> list[str]:
        start = draw.randrange(len(source))
        return source[start : start + draw.randint(0, longest)]

    texts = [piece(30) for _ in range(4)]
    rows = [draw.choices(WORDS, k=draw.randint(0, 3)) + piece(20) + draw.choices(WORDS, k=3) for _ in range(12)]
    sought = {width: set[tuple[str, ...]]() for width in range(8, 14)}
    for text in texts:
        if len(text) >= 8:
            sought[min(len(text), 13)] |= stretches(text, min(len(text), 13))
    expected = [
        number
        for number, row in enumerate(rows, start=1)
        if any(stretches(row, width) & held for width, held in sought.items())
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "BLOCK", block)
        assert listed([" ".join(text) for text in texts], [" ".join(row) for row in rows]) == expected


def test_thirteen_words_in_a_row_are_an_overlap_and_twelve_are_none() -> None:
    rows = [" ".join(["before", *WORDS[3 : 3 + count], "after"]) for count in (12, 13, 14)]
    assert listed([QUESTION], rows) == [2, 3]


def test_a_word_more_between_them_is_no_overlap() -> None:
    assert listed([QUESTION], [" ".join([*WORDS[:12], "between", *WORDS[12:20]])]) == []


def test_case_punctuation_line_breaks_and_unicode_forms_do_not_hide_it() -> None:
    text = "Die große Straße führt, über den Fluß: bis zum Café nº 3!"
    hidden = "DIE GROSSE STRASSE FU\u0308HRT\nu\u0308ber den fluss — bis zum cafe\u0301 (no \uff13)"
    assert listed([text], [hidden]) == [1]


def test_the_answer_counts_and_a_stretch_may_begin_in_the_question() -> None:
    rows = [
        PromptCompletion("what is it?", QUESTION),
        PromptCompletion(QUESTION, "that"),
        PromptCompletion(" ".join(WORDS[:7]), " ".join(WORDS[7:14])),
        PromptCompletion(" ".join(WORDS[:7]), " ".join(WORDS[8:15])),
    ]
    assert listed([QUESTION], rows) == [1, 2, 3]


def test_a_stretch_over_two_rows_is_none() -> None:
    assert listed([QUESTION], [" ".join(WORDS[:10]), " ".join(WORDS[10:20])]) == []


def test_a_shorter_text_is_looked_for_as_a_whole_and_the_shortest_not_at_all() -> None:
    texts = [" ".join(WORDS[:12]), " ".join(WORDS[20:28]), " ".join(WORDS[30:37])]
    rows = [" ".join(WORDS[:11]), " ".join(["so", *WORDS[:12]]), " ".join(WORDS[19:28]), " ".join(WORDS[30:37])]
    (finding,) = examined(texts, rows)
    assert finding.rows == ("rows.jsonl:2", "rows.jsonl:3")
    assert finding.severity == "warning"
    assert finding.message.startswith("2 rows hold 13 words in a row")
    assert "looked for: 2, not looked for, with fewer than 8 words: 1" in finding.message


def test_texts_that_cannot_be_looked_for_are_told_of_where_no_row_is_listed() -> None:
    (finding,) = examined(["too short", QUESTION, "?"], ["something else"])
    assert (finding.severity, finding.rows) == ("note", ())
    assert finding.message.startswith("0 rows")
    assert "looked for: 1, not looked for, with fewer than 8 words: 2" in finding.message


def test_without_overlap_or_without_texts_there_is_nothing_to_say() -> None:
    assert examined([QUESTION], ["something else", ""]) == []
    assert examined([], [QUESTION]) == []
    assert examined([QUESTION], []) == []
