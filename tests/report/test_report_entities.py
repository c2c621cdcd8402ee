"""What the report shows of entities: in the text, in rows, in tables, and what became of each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_run import lines_of
from page_reader import Element, section, table
from task_runs import MADE, entity_lines
from test_report_page import cards, page_data

from pegbox.metrics import lookup
from pegbox.report.entities import OUTCOMES, marked, outcomes
from pegbox.report.rows import right_or_wrong, row_scores


def span(label: str, first: int, last: int, text: str) -> dict[str, Any]:
    words = text.split(" ")
    start = len(" ".join(words[:first])) + bool(first)
    return {
        "label": label,
        "start": start,
        "end": len(" ".join(words[: last + 1])),
        "first_word": first,
        "last_word": last,
    }


TEXT = "Anna Lena met Otto in Oslo today"


@pytest.mark.parametrize(
    ("reference", "answer", "pieces", "counts"),
    [
        ([("PER", 0, 1)], [("PER", 0, 1)], [("right", "Anna Lena", "PER right")], {"right": 1}),
        ([("PER", 0, 1)], [], [("missed", "Anna Lena", "PER missed")], {"missed": 1}),
        ([], [("LOC", 6, 6)], [("invented", "today", "LOC invented")], {"invented": 1}),
        ([("PER", 3, 3)], [("LOC", 3, 3)], [("mixed", "Otto", "LOC invented, PER missed")], {"label": 1}),
        (
            [("PER", 0, 1)],
            [("PER", 0, 0)],
            [("mixed", "Anna Lena", "PER invented (Anna), PER missed")],
            {"words": 1},
        ),
        (
            [("PER", 0, 1)],
            [("PER", 0, 0), ("PER", 1, 1)],
            [("mixed", "Anna Lena", "PER invented (Anna), PER missed, PER invented (Lena)")],
            {"words": 1, "invented": 1},
        ),
        (
            [("PER", 0, 1), ("LOC", 5, 5)],
            [("LOC", 5, 5), ("PER", 3, 3)],
            [
                ("missed", "Anna Lena", "PER missed"),
                ("invented", "Otto", "PER invented"),
                ("right", "Oslo", "LOC right"),
            ],
            {"missed": 1, "right": 1, "invented": 1},
        ),
    ],
)
def test_entities_are_marked_and_counted_by_what_became_of_them(
    reference: list[Any], answer: list[Any], pieces: list[Any], counts: dict[str, int]
) -> None:
    right, said = ([span(*found, TEXT) for found in side] for side in (reference, answer))
    found = marked(TEXT, right, said)
    assert [piece for piece in found if piece[0] != "same"] == pieces
    assert "".join(piece[1] for piece in found) == TEXT
    assert outcomes([{"reference": right, "answers": {"tuned": said}}], "tuned") == counts


spans_of_a_text = st.lists(
    st.tuples(st.sampled_from("AB"), st.integers(0, 6), st.integers(0, 2)), max_size=5, unique_by=lambda found: found[1]
)


@given(spans_of_a_text, spans_of_a_text)
def test_marks_lose_no_letter_and_outcomes_add_up_to_all_entities(one: list[Any], other: list[Any]) -> None:
    right, said = ([span(a, b, min(b + c, 6), TEXT) for a, b, c in side] for side in (one, other))
    assert "".join(piece[1] for piece in marked(TEXT, right, said)) == TEXT
    found = outcomes([{"reference": right, "answers": {"tuned": said}}], "tuned")
    assert set(found) <= set(OUTCOMES)
    assert sum(found.values()) - found["invented"] == len(right)
    assert sum(found.values()) - found["missed"] == len(said)


def test_a_row_rightly_without_an_entity_counts_as_right_though_its_f1_is_zero() -> None:
    some = [span("PER", 0, 1, TEXT)]
    lines = lines_of({"trivial": [some, [], None, some], "tuned": [[], [], [], some]}, [[], [], [], some], [TEXT] * 4)
    scores = row_scores(lines, "f1")
    assert scores["tuned"].tolist() == [1.0, 1.0, 1.0, 1.0]
    assert scores["trivial"].tolist() == [0.0, 1.0, 0.0, 1.0]
    assert lookup("f1")([[]], [[]]) == 0.0
    assert right_or_wrong(lines, {"task": "token_classification", "primary": "f1"}) == [True] * 4


def test_rows_show_the_entities_of_every_system_and_tuneds_in_the_text(pages: Mapping[str, Element]) -> None:
    lines, page = MADE["token_classification"][1], pages["token_classification"]
    by_id = {line["id"]: line for line in lines}
    for article, (head, told) in zip(page.all("article"), cards(page), strict=True):
        line = by_id[f"rows.jsonl:{head.split('jsonl:')[1]}"]
        assert told["right entities"] == (
            "; ".join(f"{s['label']}: {line['input'][s['start'] : s['end']]}" for s in line["reference"]) or "(none)"
        )
        marks = article.all("mark")
        assert bool(marks) == bool(line["reference"] or line["answers"]["tuned"])
        for mark in marks:
            (small,) = mark.all("small")
            assert mark.attributes["class"] in ("right", "missed", "invented", "mixed")
            assert re.search(r"\b(right|missed|invented)\b", small.text), "told in words, not by its look alone"
    shown = {row["id"]: row["difference"] for row in page_data(page)["rows"]}
    for line in lines:
        found = marked(line["input"], line["reference"], line["answers"]["tuned"])
        wanted = [list(piece) for piece in found] if line["reference"] or line["answers"]["tuned"] else None
        assert shown[line["id"]] == wanted


def test_each_kind_of_entity_and_what_became_of_all_is_in_a_table(pages: Mapping[str, Element]) -> None:
    lines, part = entity_lines(), section(pages["token_classification"], "entities")
    rates, became = table(part), table(part, 1)
    for label in ("LOC", "PER"):
        true = [
            (n, s["first_word"], s["last_word"])
            for n, x in enumerate(lines)
            for s in x["reference"]
            if s["label"] == label
        ]
        said = [
            (n, s["first_word"], s["last_word"])
            for n, x in enumerate(lines)
            for s in x["answers"]["tuned"]
            if s["label"] == label
        ]
        hits = len(set(true) & set(said))
        assert rates[label][0] == str(len(true))
        assert [cell[:5] for cell in rates[label][1:3]] == [f"{hits / len(said):.3f}", f"{hits / len(true):.3f}"]
    assert sum(int(became[words][0]) for words in list(OUTCOMES.values())[:4]) == sum(
        len(x["reference"]) for x in lines
    )
