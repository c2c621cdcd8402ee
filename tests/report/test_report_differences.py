"""The word-level difference of two texts: nothing is lost, and a changed phrase reads as one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pegbox.report.differences import ADDED, MISSING, MOST, SAME, difference

texts = st.text(alphabet="ab ü,\n{}1é\u05d0", max_size=60)


@given(right=texts, answer=texts)
def test_what_is_the_same_and_missing_is_the_right_answer_and_with_added_the_answer(right: str, answer: str) -> None:
    pieces = difference(right, answer)
    assert pieces is not None
    assert "".join(text for kind, text in pieces if kind in (SAME, MISSING)) == right
    assert "".join(text for kind, text in pieces if kind in (SAME, ADDED)) == answer
    assert all(text for _, text in pieces)


def test_only_what_differs_is_marked() -> None:
    pieces = difference('{"name": "tv", "area": "pantry"}', '{"name": "telly", "area": "pantry"}')
    assert pieces == [(SAME, '{"name": "'), (MISSING, "tv"), (ADDED, "telly"), (SAME, '", "area": "pantry"}')]
    assert difference("same words", "same words") == [(SAME, "same words")]
    assert difference("", "new") == [(ADDED, "new")]


def test_white_space_alone_does_not_break_a_changed_phrase() -> None:
    pieces = difference("turn off the lamp", "switch on a lamp")
    assert pieces == [(MISSING, "turn off the"), (ADDED, "switch on a"), (SAME, " lamp")]


def test_a_text_that_is_too_long_is_not_compared() -> None:
    assert difference("a " * (MOST // 2), "b") is not None
    assert difference("a " * MOST, "b") is None
