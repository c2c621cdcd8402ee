"""Metrics of one answer at a time: exact match as text and as JSON, words, edits."""

from __future__ import annotations

import json
import random
import re
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegbox.metrics import METRICS
from pegbox.metrics.text import json_container, levenshtein, same_json


def value(name: str, answer: str | None, reference: str) -> float:
    metric = METRICS[name]
    return float(metric.value(metric.statistics([answer], [reference]).sum(axis=0)))


DEEP = "[" * 100_000 + "]" * 100_000
DIGITS = "1" * 5_000


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("yes", "yes"),
        ("  yes\n", "yes"),
        ("", ""),
        ('{"hours": 46, "area": "kitchen"}', '{"area":"kitchen","hours":46.0}'),
        ('{"hours": 4.6e1}', '{"hours": 46}'),
        (' [1, {"a": null}] ', '[1.0,{"a":null}]'),
        ('{"name": "caf\\u00e9"}', '{"name": "café"}'),
        (r'{"half": "\ud800"}', r'{ "half": "\ud800" }'),
        ('{"a": NaN}', '{"a": NaN}'),  # not JSON, but the same text
        ('{"a": 1, "a": 2}', '{"a": 1, "a": 2}'),
        (DEEP, DEEP),
        (f"[{DIGITS}]", f"[{DIGITS}]"),
        ("{not json}", "{not json}"),
        ("[" * 300 + "1" + "]" * 300, "[" * 300 + " 1.0" + "]" * 300),
    ],
)
def test_equal_answers_match(answer: str, reference: str) -> None:
    assert value("exact_match", answer, reference) == 1.0


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("Yes", "yes"),
        ("yes sir", "yes"),
        ("46.0", "46"),  # only objects and arrays are compared as JSON
        ('{"on": 1}', '{"on": true}'),
        ('{"on": false}', '{"on": 0}'),
        ('{"on": null}', '{"on": 0}'),
        ('{"a": "1"}', '{"a": 1}'),
        ('{"a": []}', '{"a": {}}'),
        ('{"a": 1, "b": 2}', '{"a": 1}'),
        ('{"a": 1}', '{"b": 1}'),
        ("[1, 2]", "[2, 1]"),
        ("[1]", "[1, 1]"),
        ('{"a": 1} and more', '{"a": 1}'),
        ('{"a": 1, "a": 2}', '{"a": 2}'),  # of which the parser would keep the last
        ('{"a": 1e400}', '{"a": 2e400}'),  # both infinite to the parser
        ('{"a": Infinity}', '{"a": 1e400}'),
        ("[9007199254740993]", "[9007199254740992.0]"),  # apart by one, alike as floats
        (f"[{DIGITS}]", f"[{DIGITS}.0]"),
        (DEEP, DEEP + " ]"),
        ("", "[]"),
        ("[]", ""),
    ],
)
def test_unequal_answers_do_not_match(answer: str, reference: str) -> None:
    assert value("exact_match", answer, reference) == 0.0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def typed(value: object) -> object:
    """A form in which Python's own equality tells true from 1."""
    if isinstance(value, dict):
        return {key: typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [typed(inner) for inner in value]
    return (isinstance(value, bool), value)


@given(json_values, json_values)
def test_json_equality_is_pythons_with_booleans_apart(left: object, right: object) -> None:
    assert same_json(left, right) == (typed(left) == typed(right))
    assert same_json(left, left)


@given(st.dictionaries(st.text(), json_values))
def test_any_object_matches_itself_written_otherwise(row: dict[str, object]) -> None:
    compact = json.dumps(row, ensure_ascii=True, separators=(",", ":"))
    spread = json.dumps(dict(reversed(row.items())), ensure_ascii=False, indent=2)
    assert value("exact_match", spread, compact) == 1.0


@given(st.text(alphabet='{}[]",:0e1-. \\untrfalsNIy') | st.text())
def test_no_text_makes_the_parser_fail(text: str) -> None:
    json_container(text)
    value("exact_match", text, "[1]")


@pytest.mark.parametrize(
    ("answer", "reference", "f1"),
    [
        ("the light", "a light", 1.0),
        ("Turn on the light!", "turn off light", 2 * 2 / (3 + 3)),
        ("red red blue", "red blue blue", 2 * 2 / 6),
        ("it's", "its", 1.0),
        ("x", "y", 0.0),
        ("the", "", 1.0),
        ("", "word", 0.0),
        ("theatre an", "theatre", 1.0),
    ],
)
def test_token_f1_of_worked_examples(answer: str, reference: str, f1: float) -> None:
    assert value("token_f1", answer, reference) == pytest.approx(f1)


words = st.lists(st.sampled_from(["The", "a", "lamp", "lamp.", "door", "an", "(red)"]), max_size=8).map(" ".join)


@given(words, words)
def test_token_f1_is_the_harmonic_mean_of_precision_and_recall(answer: str, reference: str) -> None:
    given_words, wanted_words = (
        [word for word in re.findall(r"[a-z]+", text.lower()) if word not in ("a", "an", "the")]
        for text in (answer, reference)
    )
    rest, common = list(wanted_words), 0
    for word in given_words:
        if word in rest:
            rest.remove(word)
            common += 1
    if not given_words or not wanted_words:
        expected = float(given_words == wanted_words)
    elif not common:
        expected = 0.0
    else:
        precision, recall = common / len(given_words), common / len(wanted_words)
        expected = 2 * precision * recall / (precision + recall)
    assert value("token_f1", answer, reference) == pytest.approx(expected)


def recursive_distance(left: str, right: str) -> int:
    @cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        same = left[i - 1] == right[j - 1]
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (not same))

    return distance(len(left), len(right))


@given(st.text(alphabet="abé😀", max_size=9), st.text(alphabet="abé😀", max_size=9))
def test_the_edit_distance_is_that_of_its_recursive_definition(left: str, right: str) -> None:
    assert levenshtein(left, right) == recursive_distance(left, right)


def table_distance(left: str, right: str) -> int:
    row = list(range(len(right) + 1))
    for place, point in enumerate(left, start=1):
        entries = [place]
        for above, diagonal, other in zip(row[1:], row, right, strict=False):
            entries.append(min(above + 1, entries[-1] + 1, diagonal + (point != other)))
        row = entries
    return row[-1]


@pytest.mark.parametrize("seed", range(8))
def test_the_edit_distance_of_long_texts_is_that_of_the_table(seed: int) -> None:
    """Longer than a word of bits, alike and not."""
    draw = random.Random(seed)
    left = "".join(draw.choices("ab \n😀", k=draw.randrange(60, 200)))
    for share in (0.0, 0.1, 1.0):
        right = "".join(draw.choice("abx") * draw.randrange(3) if draw.random() < share else point for point in left)
        assert levenshtein(left, right) == levenshtein(right, left) == table_distance(left, right)


@pytest.mark.parametrize(
    ("answer", "reference", "similarity"),
    [
        ("kitten", "sitting", 1 - 3 / 7),
        ("", "", 1.0),
        ("", "ab", 0.0),
        ("ab", "ab", 1.0),
        ("😀", "😁", 0.0),
        ("\ud800", "\ud800", 1.0),
    ],
)
def test_edit_similarity_of_worked_examples(answer: str, reference: str, similarity: float) -> None:
    assert value("edit_similarity", answer, reference) == pytest.approx(similarity)


@pytest.mark.parametrize("name", ["exact_match", "token_f1", "edit_similarity"])
def test_a_missing_answer_is_wrong_even_where_nothing_was_wanted(name: str) -> None:
    assert value(name, None, "") == 0.0
    assert value(name, "", "") == 1.0
