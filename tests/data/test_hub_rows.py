"""A dataset, here as a folder laid out like one on the hub, gives plain rows with the names of its labels."""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from pegbox.data.records import Row
from pegbox.data.sources import MalformedRow, read
from pegbox.data.sources.hub import fingerprint
from pegbox.errors import DataError, RecipeError
from pegbox.recipe.sources import HubSource


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", True)  # as it is by default


def folder_with(folder: Path, **files: list[dict[str, Any]]) -> str:
    folder.mkdir(exist_ok=True)
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder)


def rows_of(path: str, **asked: Any) -> list[Row | MalformedRow]:
    return list(read([HubSource(path=path, **asked)]))


def with_features(folder: Path, rows: list[dict[str, Any]], features: dict[str, Any]) -> str:
    folder.mkdir(exist_ok=True)
    table = datasets.Dataset.from_list(rows, features=datasets.Features(features))
    table.to_parquet(folder / "train.parquet")
    return str(folder)


CARD = """---
configs:
- config_name: films
  data_files: films/*.jsonl
- config_name: books
  data_files: books/*.jsonl
---
"""


def several(folder: Path) -> str:
    folder.mkdir()
    for name in ("films", "books"):
        folder_with(folder / name, train=[{"text": name}])
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    return str(folder)


# ---- rows ------------------------------------------------------------------------------------------------------------


def test_a_row_has_the_place_of_its_split_and_plain_values(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}]
    path = folder_with(tmp_path / "d", train=[{"text": "a", "messages": turns}, {"text": "b", "messages": []}])
    assert rows_of(path) == [
        Row(f"{path}[train]:1", {"text": "a", "messages": turns}),
        Row(f"{path}[train]:2", {"text": "b", "messages": []}),
    ]


def test_the_split_and_the_configuration_that_are_named_are_read(tmp_path: Path) -> None:
    path = folder_with(tmp_path / "d", train=[{"text": "a"}], test=[{"text": "b"}])
    assert rows_of(path, split="test") == [Row(f"{path}[test]:1", {"text": "b"})]
    path = several(tmp_path / "e")
    assert rows_of(path, name="books") == [Row(f"{path}[books/train]:1", {"text": "books"})]
    assert rows_of(path, name="films") == [Row(f"{path}[films/train]:1", {"text": "films"})]


def test_numbers_of_labels_become_their_names_however_deep(tmp_path: Path) -> None:
    label = datasets.ClassLabel(names=["no", "yes"])
    features = {"text": datasets.Value("string"), "label": label, "tags": datasets.List(label), "in": {"deep": label}}
    rows = [
        {"text": "a", "label": 1, "tags": [0, 1], "in": {"deep": 0}},
        {"text": "b", "label": -1, "tags": [], "in": {"deep": None}},  # -1: not given away
    ]
    path = with_features(tmp_path / "d", rows, features)
    assert [row.values for row in rows_of(path) if isinstance(row, Row)] == [
        {"text": "a", "label": "yes", "tags": ["no", "yes"], "in": {"deep": "no"}},
        {"text": "b", "label": None, "tags": [], "in": {"deep": None}},
    ]


def test_dates_and_mixed_values_are_plain(tmp_path: Path) -> None:
    day = datetime.datetime(2020, 1, 2, 3, 4)
    path = with_features(tmp_path / "d", [{"day": day}], {"day": datasets.Value("timestamp[s]")})
    assert rows_of(path) == [Row(f"{path}[train]:1", {"day": "2020-01-02T03:04:00"})]
    path = folder_with(tmp_path / "e", train=[{"a": 1}, {"a": "x"}])
    assert [row.values for row in rows_of(path) if isinstance(row, Row)] == [{"a": 1}, {"a": "x"}]


@pytest.mark.parametrize(
    ("feature", "value"), [(datasets.Image(), {"bytes": b"x", "path": None}), (datasets.Value("binary"), b"x")]
)
def test_what_is_no_text_makes_a_row_malformed_by_its_column(tmp_path: Path, feature: Any, value: Any) -> None:
    path = with_features(tmp_path / "d", [{"scan": value}], {"scan": feature})
    (row,) = rows_of(path)
    assert isinstance(row, MalformedRow)
    assert row.where == f"{path}[train]:1"
    assert "'scan'" in row.why


# ---- what is refused -------------------------------------------------------------------------------------------------


def refused(path: str, **asked: Any) -> str:
    with pytest.raises(DataError) as error:
        rows_of(path, **asked)
    assert error.value.cure
    assert str(error.value.where).startswith(path)
    return error.value.what


def test_what_there_is_not_is_refused_with_what_there_is(tmp_path: Path) -> None:
    path = folder_with(tmp_path / "d", train=[{"text": "a"}], test=[{"text": "b"}])
    assert "['train', 'test']" in refused(path, split="validation")
    assert "['films', 'books']" in refused(several(tmp_path / "e"))
    assert "['films', 'books']" in refused(str(tmp_path / "e"), name="songs")


def test_a_dataset_that_cannot_be_reached_is_refused(tmp_path: Path) -> None:
    assert "owner/nothing" in refused("owner/nothing")
    refused(str(tmp_path / "nowhere"))
    refused("json")


def test_files_of_other_kinds_and_scripts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"x")
    assert "'imagefolder'" in refused(str(tmp_path / "images"))
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "script.py").write_text("raise SystemExit('it was run')", encoding="utf-8")
    assert "no longer supported" in refused(str(tmp_path / "script"))


@pytest.mark.parametrize("path", ["{outside}/train.jsonl", "../outside/train.jsonl"])
def test_a_card_leads_to_no_file_outside_its_dataset(tmp_path: Path, path: str) -> None:
    outside = folder_with(tmp_path / "outside", train=[{"text": "secret"}])
    (tmp_path / "d").mkdir()
    card = f"---\nconfigs:\n- config_name: default\n  data_files: {path.format(outside=outside)}\n---\n"
    (tmp_path / "d" / "README.md").write_text(card, encoding="utf-8")
    assert "names a file that is not in it" in refused(str(tmp_path / "d"))


def test_damage_is_refused_without_a_traceback(tmp_path: Path) -> None:
    path = folder_with(tmp_path / "d", train=[{"text": "a"}])
    with Path(path, "train.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"text": ')
    refused(path)


def test_without_the_extra_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(RecipeError, match=r"pip install 'pegbox\[hub\]'"):
        rows_of("owner/name")


def test_no_server_is_told_what_is_read(tmp_path: Path) -> None:
    rows_of(folder_with(tmp_path / "d", train=[{"text": "a"}]))
    assert datasets.config.HF_UPDATE_DOWNLOAD_COUNTS is False


# ---- what the rows depend on -----------------------------------------------------------------------------------------


def test_the_fingerprint_of_a_folder_changes_with_its_files_alone(tmp_path: Path) -> None:
    def of(path: str) -> str:
        return fingerprint(HubSource(path=path))

    first = folder_with(tmp_path / "d", train=[{"text": "a"}])
    assert of(first) == of(folder_with(tmp_path / "e", train=[{"text": "a"}]))
    assert of(first) != of(folder_with(tmp_path / "f", train=[{"text": "b"}]))
    assert of(first) != of(folder_with(tmp_path / "g", test=[{"text": "a"}]))
