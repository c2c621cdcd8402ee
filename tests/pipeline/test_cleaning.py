"""`pegbox check --fix`: a cleaned copy that needs no more cleaning, every change listed, the original as it was."""

from __future__ import annotations

import json
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from pegbox import check
from pegbox.errors import DataError, RecipeError
from tiny_folder import causal_folder

WORDS = [
    "river",
    "stone",
    "market",
    "winter",
    "engine",
    "paper",
    "garden",
    "candle",
    "bridge",
    "doctor",
    "orange",
    "silver",
    "window",
    "planet",
]
CARD = "4111 1111 1111 1111"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal_folder(tmp_path_factory.mktemp("causal"))


def rows(count: int = 80) -> list[dict[str, Any]]:
    draw = random.Random(0)
    asked = [" ".join(draw.choice(WORDS) for _ in range(12)) for _ in range(count)]
    return [{"prompt": f"{text} {i}", "completion": f"answer {i}", "more": [i, None]} for i, text in enumerate(asked)]


def folder_of(place: Path, model: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A recipe whose files have every defect that can be mended, and the files' bytes."""
    given = rows()
    train = [json.dumps(row) for row in given[:60]]
    train += ["{broken", json.dumps({"prompt": "x"}), json.dumps(dict(reversed(given[3].items())))]
    train += [json.dumps({**given[4], "completion": "another answer"})]  # a contradiction: for a person to decide
    train += [
        json.dumps({"prompt": "What is a cafÃ© in the naÃ¯ve old town\u0007?", "completion": f"pay with {CARD} there"})
    ]
    train += [json.dumps(given[70])]  # stands in the test file
    (place / "train.jsonl").write_text("\n".join(train), encoding="utf-8")
    (place / "test.jsonl").write_text("\n".join(map(json.dumps, given[60:])), encoding="utf-8")
    data = {
        "train": {"path": str(place / "train.jsonl"), "weight": 2},
        "test": str(place / "test.jsonl"),
        "validation": 0.2,
    }
    files = {name: (place / name).read_bytes() for name in ("train.jsonl", "test.jsonl")}
    return {"model": str(model), "task": "chat", "data": data}, files


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_copy_is_clean_and_the_original_untouched(tmp_path: Path, model: Path) -> None:
    recipe, before = folder_of(tmp_path, model)
    with pytest.raises(DataError, match="malformed: 2 rows"):
        check(recipe)
    found = check(recipe, fix=tmp_path / "out", redact=True)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    kinds = {finding["check"] for finding in found["findings"]}
    assert "contradiction" in kinds
    assert not kinds & {"malformed", "leak", "duplicate", "encoding", "personal_data", "secret"}
    changes = {int(one["row"].rpartition(":")[2]): one for one in lines(tmp_path / "out" / "changes.jsonl")}
    assert {number: one["change"] for number, one in changes.items()} == {
        61: "left out",
        62: "left out",
        63: "left out",
        65: "mended, redacted",
        66: "left out",
    }
    assert changes[63]["why"] == f"the same as {tmp_path}/train.jsonl:4"
    assert "needs messages or prompt+completion" in changes[62]["why"] and "not JSON" in changes[61]["why"]
    assert changes[66]["why"] == "leak" and changes[65]["columns"] == ["prompt", "completion"]
    kept = lines(tmp_path / "out" / "train.jsonl")
    assert kept[:60] == rows()[:60] and len(kept) == 62
    assert kept[-1] == {"prompt": "What is a café in the naïve old town?", "completion": "pay with [CARD] there"}
    assert lines(tmp_path / "out" / "test.jsonl") == rows()[60:]
    assert found["fixed"]["changes"] == {"left out": 4, "mended": 1, "redacted": 1}


def test_the_copys_recipe_says_the_same_of_the_copy(tmp_path: Path, model: Path) -> None:
    recipe, _ = folder_of(tmp_path, model)
    found = check(recipe, fix=tmp_path / "out")
    assert check(found["fixed"]["recipe"])["rows"] == found["rows"]
    assert found["rows"]["test"] == 20 and found["rows"]["train"] > 80  # of weight 2


def test_words_are_hidden_only_where_that_is_asked_for(tmp_path: Path, model: Path) -> None:
    recipe, _ = folder_of(tmp_path, model)
    check(recipe, fix=tmp_path / "out")
    assert CARD in (tmp_path / "out" / "train.jsonl").read_text(encoding="utf-8")


def test_a_folder_that_holds_something_is_never_written_to(tmp_path: Path, model: Path) -> None:
    recipe, _ = folder_of(tmp_path, model)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(RecipeError, match="not empty"):
        check(recipe, fix=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_only_rows_that_say_the_same_to_the_letter_are_left_out(tmp_path: Path, model: Path) -> None:
    """Not another case or indentation, not another weight: these are other rows."""
    given = rows()
    turns = [{"role": "user", "content": given[70]["prompt"]}, {"role": "assistant", "content": "one"}]
    more = [{"role": "user", "content": "and then"}, {"role": "assistant", "content": "two"}]
    kept = [
        *given[:60],
        {**given[3], "prompt": given[3]["prompt"].upper()},
        {**given[3], "completion": "  answer 3"},
        {"messages": [*turns, *more]},
        {"messages": [turns[0], {**turns[1], "weight": 0}, *more]},
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, [*kept, kept[0], kept[-1]])), encoding="utf-8")
    recipe = {"model": str(model), "task": "chat", "data": str(tmp_path / "train.jsonl")}
    found = check(recipe, fix=tmp_path / "out")
    assert lines(tmp_path / "out" / "train.jsonl") == kept
    assert found["fixed"]["changes"] == {"left out": 2}


def test_two_queries_to_one_database_are_cleaned_apart(tmp_path: Path, model: Path) -> None:
    given = rows()
    with sqlite3.connect(tmp_path / "s.db") as database:
        for table, part in (("a", given[:40]), ("b", given[40:])):
            database.execute(f"CREATE TABLE {table} (prompt TEXT, completion TEXT)")
            values = [
                (row["prompt"], None if i == 4 and table == "b" else row["completion"]) for i, row in enumerate(part)
            ]
            database.executemany(f"INSERT INTO {table} VALUES (?, ?)", values)
    database.close()
    train = [{"path": str(tmp_path / "s.db"), "query": f"SELECT * FROM {table} ORDER BY rowid"} for table in "ab"]
    found = check({"model": str(model), "task": "chat", "data": {"train": train}}, fix=tmp_path / "out")
    assert len(lines(tmp_path / "out" / "train-1.jsonl")) == 40
    assert len(lines(tmp_path / "out" / "train-2.jsonl")) == 39
    (change,) = lines(tmp_path / "out" / "changes.jsonl")
    assert change["row"] == f"{tmp_path}/s.db[2]:5" and found["fixed"]["changes"] == {"left out": 1}


@pytest.mark.parametrize("name", ["file/x", "file"])
def test_a_folder_that_cannot_be_made_is_one_message(tmp_path: Path, model: Path, name: str) -> None:
    recipe, _ = folder_of(tmp_path, model)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RecipeError, match="cannot be made"):
        check(recipe, fix=tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"
