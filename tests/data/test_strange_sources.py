"""Sources that meet: read twice, changed behind our back, written by others while we read; and options beside them."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from small_tokenizers import tokenizer

from made_tasks import made_task
from pegbox.data.doctor.shape import Shape
from pegbox.data.prepare import Prepared, prepare
from pegbox.data.records import LabelledText, PromptCompletion, Record
from pegbox.data.render import Renderer
from pegbox.data.sources import read_all
from pegbox.data.splits import SPLITS, Traits
from pegbox.data.twins import near_twins
from pegbox.errors import DataError
from pegbox.recipe import load
from pegbox.recipe.sources import FileSource, HubSource


def rows(count: int = 60, begin: int = 0) -> list[dict[str, Any]]:
    words = [
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
    ]
    made = [" ".join(words[(i * k + k) % 12] + str(i * k) for k in range(1, 9)) for i in range(begin, begin + count)]
    return [{"prompt": text, "completion": f"answer {i}"} for i, text in enumerate(made)]


def written(path: Path, given: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, given)), encoding="utf-8")
    return str(path)


def prepared(kind: str = "chat", **data: Any) -> Prepared:
    made = made_task(kind, Renderer(tokenizer("byte_level" if kind == "chat" else "wordpiece")))
    return prepare(load({"model": "a/b", "task": kind, "data": data}), made, 1000)


def count(done: Prepared) -> int:
    return sum(len(getattr(done.splits, side)) for side in (*SPLITS, "left_out"))


def test_rows_that_a_database_keeps_in_its_log_are_no_stale_hit(tmp_path: Path) -> None:
    source = {"path": str(tmp_path / "shop.db"), "query": "SELECT prompt, completion FROM rows ORDER BY rowid"}
    database = sqlite3.connect(tmp_path / "shop.db")
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA wal_autocheckpoint=0")
        database.execute("CREATE TABLE rows (prompt TEXT, completion TEXT)")
        for begin in (0, 60):
            values = [(row["prompt"], row["completion"]) for row in rows(60, begin)]
            database.executemany("INSERT INTO rows VALUES (?, ?)", values)
            database.commit()
            assert count(prepared(train=source)) == begin + 60
    finally:
        database.close()


def test_a_file_that_also_lies_in_a_folder_gives_rows_of_their_own(tmp_path: Path) -> None:
    file = written(tmp_path / "rows" / "a.jsonl", rows(5))
    found = read_all([str(tmp_path / "rows"), file])
    assert [row.where for row in found] == [f"{file}:{i}" for i in range(1, 6)] + [
        f"{file}[2]:{i}" for i in range(1, 6)
    ]


def test_a_group_in_two_of_the_users_files_is_a_leak(tmp_path: Path) -> None:
    parts = {"train": rows(60), "test": rows(30, 60)}
    data: dict[str, Any] = {
        name: written(tmp_path / f"{name}.jsonl", [{**row, "who": i % 20} for i, row in enumerate(given)])
        for name, given in parts.items()
    }
    with pytest.raises(DataError, match="leak: 90 rows belong to groups that stand in more than one of the files"):
        prepared(**data, columns={"group": "who"})
    assert count(prepared(**data, columns={"group": "who"}, allow=["leak"])) == 90
    assert count(prepared(**data)) == 90


def test_weights_that_leave_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leave train no row"):
        prepared(train={"path": written(tmp_path / "a.jsonl", rows()), "weight": 1e-9})


def test_a_table_is_filtered_as_its_cells_are_meant(tmp_path: Path) -> None:
    given = [
        f"{row['prompt']},x,{stars}.0,{ok}"
        for row, stars, ok in zip(rows(), [5, 1] * 30, ["True", "False", "x"] * 20, strict=True)
    ]
    (tmp_path / "a.csv").write_text("prompt,completion,stars,ok\n" + "\n".join(given))
    assert count(prepared(train=str(tmp_path / "a.csv"), filter={"stars": 5}, validation=0.3, test=0.3)) == 30
    assert count(prepared(train=str(tmp_path / "a.csv"), filter={"ok": True}, validation=0.3, test=0.3)) == 20
    with pytest.raises(DataError, match="filtered: 60 rows were left out by data.filter"):
        prepared(train=str(tmp_path / "a.csv"), filter={"stars": 9})


def test_a_filter_of_the_users_own_changes_no_row(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def keep(row):\n    row['messages'].clear()\n    return True\n")
    talk = [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": "x"}]}
        for row in rows()
    ]
    assert count(prepared(train=written(tmp_path / "a.jsonl", talk), filter=f"{tmp_path}/mine.py:keep")) == 60


def test_a_row_without_the_instruction_of_the_others_makes_no_twins_of_them(tmp_path: Path) -> None:
    long = "You are a careful assistant of the town. Answer the question of the citizen in one word. Question: " * 3
    instructed = [PromptCompletion(long + row["prompt"], "x") for row in rows(300)]
    for given in (instructed, [*instructed, PromptCompletion("something else altogether is asked here", "x")]):
        records = [Record(f"x:{i}", content) for i, content in enumerate(given)]
        traits = Traits(1)
        for record in records:
            traits.see(record)
        assert len(near_twins(records, traits).pairs) == 0


def test_warnings_are_told_behind_the_errors(tmp_path: Path) -> None:
    key = "ghp_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dF3hJ6"
    given = [*rows(), {"prompt": "only"}, {"prompt": "the key is " + key, "completion": "x"}]
    with pytest.raises(DataError) as refusal:
        prepared(train=written(tmp_path / "a.jsonl", given))
    assert refusal.value.what.startswith("malformed: 1 row") and "\nwarning secret: 1 row" in refusal.value.what
    assert key not in refusal.value.what


def test_a_secret_in_the_place_of_a_label_is_never_shown() -> None:
    key = "ghp_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dF3hJ6"
    shape = Shape()
    for i in range(60):
        shape.see(Record(f"x:{i}", LabelledText(f"text {i}", key if i < 2 else "good")))
    told = json.dumps([shape.shape(), [finding.to_json() for finding in shape.findings()]])
    assert key not in told and "[GITHUB_TOKEN]" in told


def test_half_a_character_in_a_cell_is_a_malformed_row(tmp_path: Path) -> None:
    given = [{"tokens": '["a", "b"]', "tags": '["X", "O"]'}] * 40 + [
        {"tokens": '["\\ud800", "b"]', "tags": '["X", "O"]'}
    ]
    with pytest.raises(DataError, match="surrogate"):
        prepared("token_classification", train=written(tmp_path / "a.jsonl", given))


def test_a_folder_that_reads_like_a_datasets_name_is_one_whatever_its_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows" / "texts").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for written_as in ("rows/texts", {"path": "rows/texts", "weight": 2}):
        (source,) = load({"model": "a/b", "task": "chat", "data": {"train": written_as}}).data.train
        assert isinstance(source, FileSource) and source.path == str(tmp_path / "rows/texts")
        assert source.weight == (1 if isinstance(written_as, str) else 2)
    (named,) = load(
        {"model": "a/b", "task": "chat", "data": {"train": {"kind": "hub", "path": "rows/texts"}}}
    ).data.train
    assert isinstance(named, HubSource)
