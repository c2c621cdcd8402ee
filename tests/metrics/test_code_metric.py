"""syntax_validity: what parses is valid, whatever it is or does; nothing is run, and nothing makes it fail."""

from __future__ import annotations

import ast
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegbox.errors import RecipeError
from pegbox.metrics import METRICS, line_statistics
from pegbox.metrics.code import is_python

VALID = METRICS["syntax_validity"]


@pytest.mark.parametrize(
    ("before", "answer", "behind", "valid"),
    [
        ("def f(x):\n", "    return x", "\n", True),
        ("def f(x):\n", "return x", "\n", False),  # not indented
        ("def f(x", "", "):\n    pass\n", True),
        ("print(", "1, 2", ")", True),
        ("print(", "1, 2)", ")", False),
        ("", "", "", True),
        ("x = '", "\\d", "'", True),  # a doubtful escape
        ("if x ", "is 1", ":\n    pass", True),  # a doubtful comparison
        ("x = ", "lambda: (yield)", "", True),
        ("x = ", "\x00", "", False),
        ("return", "", "", True),  # refused by the compiler later, and not by the parser
        ("x = 'a", "\r\n", "'", False),
        ("x = 1", "\r\n", "y = 2", True),
        ("x = '", "\ud800", "'", False),
        ("print ", "'hello'", "", False),  # Python 2
    ],
)
def test_a_row_is_valid_where_the_whole_of_it_parses(before: str, answer: str, behind: str, valid: bool) -> None:
    assert VALID([answer], [[before, behind]]) == float(valid)


HUGE = {
    "brackets": "(" * 10_000 + ")" * 10_000,
    "brackets within the parser's limit": "x = " + "[" * 150 + "]" * 150,
    "signs": "x = " + "-" * 100_000 + "1",
    "attributes": "x = a" + ".b" * 100_000,
    "sums": "x = 1" + " + 1" * 100_000,
    "calls": "f" + "()" * 100_000,
    "digits": "x = " + "1" * 100_000,
    "blocks": "".join(" " * depth + "if x:\n" for depth in range(120)) + " " * 120 + "pass",
    "comparisons": "x = 1" + " < 1" * 50_000,
    "a string": "x = '" + "a" * 1_000_000 + "'",
}


@pytest.mark.parametrize("kind", HUGE)
def test_no_size_makes_it_fail(kind: str) -> None:
    assert is_python(HUGE[kind]) in (True, False)


@given(st.text(alphabet="()[]{}:\"'\\\n\t #=+-.,@axf01deflambdaif\x00\ud800é") | st.text())
def test_no_text_makes_it_fail_or_warn(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        is_python(text)


def test_nothing_is_run(tmp_path: Any) -> None:
    file = tmp_path / "made"
    assert is_python(f"open({str(file)!r}, 'w').close()\nraise SystemExit")
    assert not file.exists()


def test_doubtful_code_warns_nobody() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert is_python("x = '\\d'") and is_python("1 is 1")
    assert told == []


def lines() -> list[dict[str, Any]]:
    """Two rows, in which an answer by itself and with what stands around it are not the same thing."""
    rows = [("f(", "x", ")", "x", "x)"), ("if x:", "\n    y", "\n", "\n    y", "y z")]
    return [
        {"reference": right, "around": [before, behind], "answers": {"tuned": tuned, "base": base}, "unit": n}
        for n, (before, right, behind, tuned, base) in enumerate(rows)
    ]


def check_it_reads_what_stands_around() -> None:
    found = line_statistics(VALID, lines())
    assert {name: VALID.of(rows) for name, rows in found.items()} == {"tuned": 1.0, "base": 0.0}


def test_a_metric_can_read_what_stands_around_an_answer() -> None:
    check_it_reads_what_stands_around()


def test_answers_that_are_parsed_alone_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pegbox.metrics.code.is_python", lambda text: "z" not in text)
    with pytest.raises(AssertionError):
        check_it_reads_what_stands_around()


def test_rows_without_anything_around_are_refused_in_a_sentence() -> None:
    """`pegbox evaluate RUN --metric syntax_validity` on a run of conversations is no traceback."""
    without = [{key: value for key, value in line.items() if key != "around"} for line in lines()]
    with pytest.raises(RecipeError, match="syntax_validity is computed of middles of a text"):
        line_statistics(VALID, without)


def test_it_is_pythons_own_parser() -> None:
    with pytest.raises(SyntaxError):
        ast.parse("def")
    assert not is_python("def")
