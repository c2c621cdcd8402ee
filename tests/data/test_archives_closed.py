"""A zip archive is closed when its rows have been read, when reading fails, and when nobody reads on."""

from __future__ import annotations

import gc
import json
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pytest

from pegbox.data.sources import files, read
from pegbox.data.sources.files import File
from pegbox.data.sources.outcomes import Remark
from pegbox.errors import DataError


def archive(folder: Path, *, damaged: bool = False) -> Path:
    path = folder / "rows.json.zip"
    with ZipFile(path, "w", ZIP_DEFLATED) as packed:
        packed.writestr("rows.jsonl", "".join(json.dumps({"text": os.urandom(64).hex()}) + "\n" for _ in range(2_000)))
    if damaged:
        data = bytearray(path.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
        path.write_bytes(data)
    return path


def whole(path: Path) -> None:
    assert len(list(read([str(path)]))) == 2_000


def failing(path: Path) -> None:
    with pytest.raises(DataError, match="cannot be unpacked"):
        list(read([str(path)]))


def abandoned(path: Path) -> None:
    rows = read([str(path)])
    next(rows)


def unclosed(action: Callable[[Path], None], path: Path) -> list[str]:
    """What the interpreter says of files that the collector had to close; how many are open must be as before."""
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ResourceWarning)
        action(path)
        gc.collect()
    if before:
        assert len(os.listdir("/proc/self/fd")) == before
    return [str(one.message) for one in said if one.category is ResourceWarning]


WAYS = {"read to its end": whole, "damaged": failing, "left in the middle": abandoned}


@pytest.mark.parametrize("way", WAYS)
def test_an_archive_is_closed_by_who_opened_it(tmp_path: Path, way: str) -> None:
    assert unclosed(WAYS[way], archive(tmp_path, damaged=way == "damaged")) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_archive_left_to_the_collector_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(path: Path, told: list[Remark]) -> Iterator[File]:
        packed = ZipFile(path.open("rb"))
        yield from (files._member(packed, info, str(path), told) for info in packed.infolist())

    monkeypatch.setattr(files, "_in_archive", careless)
    assert "rows.json.zip" in unclosed(failing, archive(tmp_path, damaged=True))[0]
