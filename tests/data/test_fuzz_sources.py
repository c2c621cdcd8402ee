"""A short form of benchmarks/fuzz_sources.py, and the proof that a reader which breaks its promises fails it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pegbox.data.records import Row
from pegbox.data.sources import reading
from pegbox.errors import DataError
from source_tree import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks"))

from fuzz_files import mutant, valid
from fuzz_sources import FAULTY, outcome


def tally(folder: Path, make: Any, seeds: range) -> Counter[str]:
    """How often each outcome; a fault under its seed."""
    found: Counter[str] = Counter()
    for seed in seeds:
        told = outcome(make(seed), folder)
        found[f"{seed}: {told}" if told.startswith(FAULTY) else told] += 1
    return found


def test_no_mutated_file_breaks_the_reading(tmp_path: Path) -> None:
    found = tally(tmp_path, mutant, range(100_000, 100_240))
    assert set(found) == {"read", "rows refused", "file refused"}, found
    assert min(found.values()) > 10  # the mutants reach all of it


def test_no_valid_file_is_refused_however_it_is_written(tmp_path: Path) -> None:
    assert set(tally(tmp_path, valid, range(100_000, 100_060))) == {"read"}


BROKEN = {
    "raises something else": KeyError("x"),
    "gives no cure": DataError("refused", where="/"),
    "gives no place": DataError("refused", cure="mend it"),
}


@pytest.mark.parametrize("how", [*BROKEN, "loses a row", "changes a value"])
def test_a_reader_that_breaks_a_promise_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    def broken(file: Any) -> Iterator[Any]:
        if how in BROKEN:
            raise BROKEN[how]
        rows = list(right[file.kind](file))
        for row in rows[how == "loses a row" :]:
            yield Row(row.where, {**row.values, "text": "another"}) if how == "changes a value" else row

    right = dict(reading.READERS)
    monkeypatch.setattr(reading, "READERS", dict.fromkeys(right, broken))
    assert all(FAULTY in told for told in tally(tmp_path, valid, range(5)))
