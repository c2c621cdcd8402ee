"""The shape of the rows by brute force: every count, every note, and what stands in `data.json`."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pegbox.data.doctor import shape
from pegbox.data.doctor.findings import Finding
from pegbox.data.doctor.shape import EDGES, Shape
from pegbox.data.records import (
    Content,
    Conversation,
    LabelledText,
    LabelSetText,
    Message,
    PlainText,
    PromptCompletion,
    Record,
    ScoredText,
    TaggedWords,
)


def seen(contents: Sequence[Content], file: str = "rows.jsonl") -> Shape:
    check = Shape()
    for line, content in enumerate(contents, start=1):
        check.see(Record(f"{file}:{line}", content))
    return check


def found(contents: Sequence[Content], name: str) -> Finding | None:
    return next((finding for finding in seen(contents).findings() if finding.check == name), None)


def labelled(**counts: int) -> list[Content]:
    return [LabelledText(f"text {n}", label) for label, count in counts.items() for n in range(count)]


# ---- the counts ------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 300), st.sampled_from(["a", "b.jsonl", "c:d"]))))
def test_lengths_and_sources_are_those_of_brute_force(rows: list[tuple[int, int, str]]) -> None:
    check = Shape()
    for line, (asked, answer, file) in enumerate(rows):
        check.see(Record(f"{file}:{line}", PromptCompletion("x" * asked, "y" * answer)))
    shown = check.shape()
    assert shown["rows"] == len(rows) and "labels" not in shown
    assert shown["sources"]["counts"] == Counter(file for _, _, file in rows)
    for side, sizes in (("asked", [row[0] for row in rows]), ("answer", [row[1] for row in rows])):
        if rows or side == "asked":
            histogram = shown["characters"][side]
            assert histogram["edges"] == list(EDGES)
            ends = [*histogram["edges"][1:], float("inf")]
            pairs = zip(histogram["edges"], ends, strict=True)
            assert histogram["counts"] == [sum(low <= size < end for size in sizes) for low, end in pairs]


def test_edges_rise_from_nothing_and_texts_of_any_length_are_counted() -> None:
    assert EDGES[:6] == (0, 1, 2, 5, 10, 20) and list(EDGES) == sorted(set(EDGES))
    asked = seen([PlainText(""), PlainText("x" * 6_000_000)]).shape()["characters"]["asked"]["counts"]
    assert asked[0] == asked[-1] == 1 and sum(asked) == 2


@pytest.mark.parametrize(
    ("contents", "counts"),
    [
        ([LabelledText("a", "x"), LabelledText("b", "y"), LabelledText("c", "y")], {"y": 2, "x": 1}),
        ([LabelSetText("a", ("x", "y")), LabelSetText("b", ()), LabelSetText("c", ("y",))], {"y": 2, "x": 1}),
        ([TaggedWords(("a", "b", "c"), ("O", "B-PER", "O"))], {"O": 2, "B-PER": 1}),
    ],
)
def test_labels_are_counted_the_most_frequent_first(contents: list[Content], counts: dict[str, int]) -> None:
    shown = seen(contents).shape()
    assert list(shown["labels"]["counts"].items()) == list(counts.items()) and shown["labels"]["more"] == 0
    assert "answer" not in shown["characters"]


def test_scores_and_plain_texts_have_neither_labels_nor_answers() -> None:
    shown = seen([ScoredText("a", {"score": 1.0}), PlainText("b")]).shape()
    assert "labels" not in shown and list(shown["characters"]) == ["asked"]


def test_labels_without_end_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shape, "NAMES", 3)
    check = seen([LabelledText("t", str(n % 5)) for n in range(50)])
    assert check.shape()["labels"] == {"counts": {"0": 10, "1": 10, "2": 10}, "more": 20}
    assert set(check._few) == {"0", "1", "2"}


def test_the_shape_is_json() -> None:
    shown = seen(labelled(a=3)).shape() | {"tokens": shape.lengths(np.array([3, 4]), 8)}
    assert json.loads(json.dumps(shown)) == shown


# ---- what is odd -----------------------------------------------------------------------------------------------------


def test_labels_with_few_rows_are_named_with_their_rows_the_rarest_first() -> None:
    contents = labelled(often=2000, seldom=19, enough=20, never=4)
    finding = found(contents, "rare_label")
    assert finding is not None and finding.severity == "note"
    assert finding.rows == tuple(f"rows.jsonl:{n}" for n in (*range(2040, 2044), *range(2001, 2020)))
    assert finding.message.startswith("23 rows have a rare label: 'never' (4), 'seldom' (19);")


def test_a_label_of_few_rows_in_a_small_set_is_rare_below_five_alone() -> None:
    assert found(labelled(a=30, b=5), "rare_label") is None
    finding = found(labelled(a=30, b=4), "rare_label")
    assert finding is not None and finding.count == 4


def test_a_row_with_two_rare_labels_is_named_once() -> None:
    contents: list[Content] = [LabelSetText("t", ("common",))] * 30
    finding = found([*contents, LabelSetText("t", ("x", "y"))], "rare_label")
    assert finding is not None and finding.rows == ("rows.jsonl:31",)
    assert finding.message.startswith("1 row has a rare label")


def test_one_answer_of_more_than_half_of_the_rows_is_noted() -> None:
    def rows(same: int, other: int) -> list[Content]:
        return [PromptCompletion(f"q {n}", "yes " if n < same else f"answer {n}") for n in range(same + other)]

    finding = found(rows(60, 50), "constant_answer")
    assert finding is not None and (finding.severity, finding.rows) == ("note", ())
    assert finding.message == "60 of 110 rows have one and the same answer"
    assert found(rows(50, 50), "constant_answer") is None
    assert found(rows(30, 10), "constant_answer") is None
    assert found([*labelled(a=200)], "constant_answer") is None


def chat(asked: str, answer: str) -> Conversation:
    return Conversation((Message("user", asked), Message("assistant", answer, 1.0)))


@pytest.mark.parametrize("make", [PromptCompletion, chat])
def test_prompts_that_hold_their_answer_are_noted_not_those_that_hold_any(make: type[PromptCompletion]) -> None:
    names = [f"person number {n}." for n in range(100)]
    told = found(
        [make(f"{name.upper()} Who?" if n % 2 else "Who?", f" {name}") for n, name in enumerate(names)],
        "answer_in_prompt",
    )
    assert told is not None and (told.severity, told.rows) == ("note", ())
    assert told.message.startswith("50 of 99 rows hold the right answer word for word in what is asked, and 0 that")
    assert found([make("Who?", name) for name in names], "answer_in_prompt") is None
    assert found([make(" ".join(names), name) for name in names], "answer_in_prompt") is None
    assert (
        found(
            [make(f"{name} Who?" if n % 10 == 0 else "Who?", name) for n, name in enumerate(names)], "answer_in_prompt"
        )
        is None
    )
    assert found([make(f"{name} Who?", name) for name in names[:40]], "answer_in_prompt") is None


def test_a_labels_name_in_its_texts_is_noted_where_it_nearly_always_tells_the_label() -> None:
    def rows(wrong: int) -> list[Content]:
        rng, names = random.Random(1), ("mit", "bsd", "gpl")
        labels = [rng.choice(names) for _ in range(300)]
        named = [rng.choice(names) if n < wrong else label for n, label in enumerate(labels)]
        return [LabelledText(f"{n.upper()} licence", label) for n, label in zip(named, labels, strict=True)]

    told = found(rows(0), "answer_in_prompt")
    assert told is not None and "name of their label" in told.message
    assert found(rows(150), "answer_in_prompt") is None


# ---- lengths in tokens, and the line ---------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 9000)), st.integers(1, 9000))
def test_token_lengths_are_those_of_brute_force_and_the_limit_is_an_edge(sizes: list[int], limit: int) -> None:
    shown = shape.lengths(np.array(sizes, dtype=np.int64), limit)
    ends = [*shown["edges"][1:], float("inf")]
    assert shown["counts"] == [
        sum(low <= size < end for size in sizes) for low, end in zip(shown["edges"], ends, strict=True)
    ]
    assert limit + 1 in shown["edges"] and shown["max_length"] == limit
    beyond = shown["edges"].index(limit + 1)
    assert shown["longer"] == sum(shown["counts"][beyond:]) == sum(size > limit for size in sizes)
    assert shown["longest"] == max(sizes, default=0) and shown["median"] == int(np.median(sizes or [0]))


def test_the_line_tells_rows_sources_labels_and_lengths() -> None:
    shown = seen(labelled(a=30, b=20, c=1)).shape()
    assert shape.summary(shown) == "51 rows from 1 source; 3 labels ('a' 30 .. 'c' 1)"
    shown["tokens"] = shape.lengths(np.array([5, 6, 700]), 512)
    assert shape.summary(shown).endswith("; half of 6 tokens or more, the longest 700, 1 longer than 512")
    assert shape.summary(seen([PlainText("a")]).shape()) == "1 rows from 1 source"
    assert shape.summary(seen(labelled(a=30)).shape()) == "30 rows from 1 source; 1 label ('a' 30)"
