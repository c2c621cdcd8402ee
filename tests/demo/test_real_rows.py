"""The rows of the tables: from a package's own files to texts and what is to be learnt of them; and the tables."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from pegbox.archives import Archive
from pegbox.cache import cache_root
from pegbox.demo.house import HouseRow, sample_rows
from pegbox.samples import law, medicine
from source_tree import REPOSITORY
from tiny_folder import encoder_folder

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import real_rows
import tables


def command(text: str, **spoken: str) -> HouseRow:
    return HouseRow(text, "{}", "a template", "train", "AnIntent", False, spoken)


def spans(row: real_rows.Row) -> dict[str, list[str]]:
    """The words under each slot's tags, by a reading of BIO of its own."""
    found: dict[str, list[str]] = {}
    for token, tag in zip(row["tokens"], row["tags"], strict=True):
        if tag != "O":
            assert (tag[0] == "B") == (tag[2:] not in found), "each slot is one span, begun by B"
            found.setdefault(tag[2:], []).append(token)
    return found


# --- slots as spans ---


def test_a_slots_words_are_tagged_where_they_stand() -> None:
    row = real_rows.tagged(command("add 1/2 an hour to the Pizza Oven timer", minutes="1/2", name="pizza oven"))
    assert row is not None
    assert row["tokens"] == ["add", "1", "/", "2", "an", "hour", "to", "the", "Pizza", "Oven", "timer"]
    assert spans(row) == {"minutes": ["1", "/", "2"], "name": ["Pizza", "Oven"]}
    assert row["group"] == "a template"


def test_a_number_before_a_hyphen_is_a_word() -> None:
    row = real_rows.tagged(command("status of the 6-hour timer", start_hours="6"))
    assert row is not None and spans(row) == {"start_hours": ["6"]}


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("which lights are on on the second floor", {"state": "on"}),  # twice
        ("turn on the lamps", {"name": "lamp"}),  # a part of a word
        ("open the kitchen door", {"area": "kitchen", "name": "kitchen door"}),  # one within the other
    ],
)
def test_a_command_whose_spans_are_open_is_left_out(text: str, spoken: dict[str, str]) -> None:
    assert real_rows.tagged(command(text, **spoken)) is None


def test_the_spans_of_drawn_commands_are_the_slots_of_their_answers() -> None:
    """The answer is hassil's reading of the command; what a span says must be the slot's value there, where both are words."""
    compared = 0
    for row in sample_rows("en", {"train": 150}).rows:
        tagged = real_rows.tagged(row)
        if tagged is None:
            continue
        answer = json.loads(row.answer)
        for slot, words in spans(tagged).items():
            value = answer[slot]
            if slot in ("name", "area", "floor", "item"):
                assert re.findall(r"\w+|[^\w\s]", str(value).casefold()) == [word.casefold() for word in words]
                compared += 1
    assert compared > 50


# --- titles and clauses: read by pegbox.samples, whose tests look at them closely ---


@pytest.mark.parametrize(
    ("archive", "name", "labels", "fewest"),
    [(medicine.ICD, "titles", 21, 11_000), (law.LICENCES, "clauses", 15, 3_000)],
)
def test_the_real_package_gives_its_rows(archive: Archive, name: str, labels: int, fewest: int) -> None:
    if not (cache_root() / f"{archive.package}-{archive.version}").is_dir():
        pytest.skip(f"{archive} is not in the cache; `make tables` fetches it")
    rows = real_rows.SETS[name]()
    assert len(rows) >= fewest and len({row["text"] for row in rows}) == len(rows)
    assert len({row["label"] for row in rows}) == labels
    assert all(row["text"].strip() for row in rows)


# --- the tables ---


def made_rows(task: str) -> list[dict[str, Any]]:
    texts = [f"row {i} is {'good' if i % 2 else 'bad'}" for i in range(120)]
    if task == "regression":
        return [{"text": text, "score": float(i % 2)} for i, text in enumerate(texts)]
    return [{"text": text, "label": text.split()[-1], "group": str(i // 2)} for i, text in enumerate(texts)]


@pytest.mark.parametrize("name", ["titles", "tweets"])
def test_a_table_shows_every_system_and_keeps_the_sets_not_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tables.TABLES[name].task
    monkeypatch.setattr(tables, "ENCODER", str(encoder_folder(tmp_path / "model")))
    monkeypatch.setattr(real_rows, "SETS", {name: lambda: made_rows(task)})
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "tables.json")
    monkeypatch.setattr(tables, "PAGE", tmp_path / "tables.md")
    monkeypatch.setattr(sys, "argv", ["tables.py", name])
    (tmp_path / "tables.json").write_text('{"gone": {"kept": true}}', encoding="utf-8")
    tables.main()
    results = json.loads((tmp_path / "tables.json").read_text(encoding="utf-8"))
    assert results["gone"] == {"kept": True}
    found, page = results[name], (tmp_path / "tables.md").read_text(encoding="utf-8")
    assert {"trivial", "bag_of_words", "linear_probe", "tuned"} <= set(found["systems"])
    for system, scores in found["systems"].items():
        first = scores[found["primary"]]
        assert f"| {system} | {first['value']:.3f} ({first['low']:.3f} .. {first['high']:.3f}) |" in page
    assert sum(found["splits"].values()) == 120
    assert f"**{found['verdict']}**" in page and f"{found['seconds']} s on" in page


def test_every_set_of_the_tables_is_known() -> None:
    assert set(tables.TABLES) <= set(real_rows.SETS)
    assert all(table.task in tables.COLUMNS for table in tables.TABLES.values())
