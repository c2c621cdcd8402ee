"""`pegbox check --fix`: a cleaned copy that needs no more cleaning, every change listed, the original as it was."""

from __future__ import annotations

import json
import random
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
    train += ["{broken", json.dumps({"prompt": "x"}), json.dumps({**given[3], "prompt": given[3]["prompt"].upper()})]
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
    assert changes[63]["why"].startswith("duplicate of ") and changes[63]["why"].endswith("train.jsonl:4")
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
