"""The languages of a sample that depends on the seed and the rows alone, and rows in another than nearly all."""

from __future__ import annotations

import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pegbox.data.doctor import languages
from pegbox.data.doctor.findings import Finding
from pegbox.data.doctor.languages import Languages
from pegbox.data.records import LabelledText, PlainText, Record
from pegbox.recipe import load

ENGLISH = "The customer wrote to us that the parcel number {} had not arrived in time and asked for a refund."
GERMAN = (
    "Der Kunde schrieb uns, dass das Paket Nummer {} nicht rechtzeitig angekommen ist, und wollte sein Geld zurück."
)


def check(seed: int = 42) -> Languages:
    return Languages(load({"model": "m/m", "task": "chat", "data": {"train": "rows.jsonl"}, "seed": seed}))


def told(*texts: str, seed: int = 42) -> list[Finding]:
    found = check(seed)
    for number, text in enumerate(texts):
        found.see(Record(f"r:{number}", PlainText(text)))
    return list(found.findings())


def sampled(texts: list[str], seed: int = 42) -> set[str]:
    found = check(seed)
    for number, text in enumerate(texts):
        found.see(Record(f"r:{number}", PlainText(text)))
    return {text for _, _, text in found.sample}


def test_one_language_is_nothing_to_tell() -> None:
    assert told(*(ENGLISH.format(i) for i in range(50))) == []
    assert told() == []


def test_rows_of_a_rare_language_are_named_with_the_shares() -> None:
    (finding,) = told(*(ENGLISH.format(i) for i in range(48)), GERMAN.format(1), GERMAN.format(2))
    assert (finding.check, finding.severity) == ("language", "note")
    assert "96.0% en, 4.0% de" in finding.message
    assert set(finding.rows) == {"r:48", "r:49"}


def test_where_two_languages_are_common_neither_is_named_row_by_row() -> None:
    (finding,) = told(*(text.format(i) for i in range(20) for text in (ENGLISH, GERMAN)))
    assert "50.0%" in finding.message
    assert finding.rows == ()


def test_rows_too_short_to_tell_and_labels_do_not_count() -> None:
    found = check()
    found.see(Record("r:1", PlainText("kurz")))
    found.see(Record("r:2", LabelledText("kurz", ENGLISH)))
    assert found.sample == []


def test_the_sample_is_bounded_and_stays_when_rows_are_appended_or_reordered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(languages, "SAMPLE", 50)
    rows = [ENGLISH.format(i) for i in range(500)]
    before = sampled(rows)
    assert len(before) == 50
    assert sampled(random.Random(0).sample(rows, 500)) == before
    assert sampled(rows, seed=43) != before
    after = sampled([*rows, *(ENGLISH.format(i) for i in range(500, 550))])
    assert 30 < len(before & after) < 50
    assert all(int("".join(filter(str.isdigit, text))) >= 500 for text in after - before)


def test_without_the_extra_there_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(languages, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "py3langid", None)
    assert told(ENGLISH, GERMAN) == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(codec=None), min_size=20), max_size=3), st.integers(0, 2**31))
def test_no_text_and_no_seed_makes_it_raise(texts: list[str], seed: int) -> None:
    found = check(seed)
    for number, text in enumerate(texts):
        found.see(Record(f"r:{number}", PlainText(text)))
    assert len(found.sample) == len(texts)
