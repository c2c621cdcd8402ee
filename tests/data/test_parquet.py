"""Parquet, Arrow and Feather files are read row by row as plain values; what is damaged or none is refused by name."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from written_tables import TABLES

from pegbox.data.records import Row
from pegbox.data.sources import MalformedRow, read, read_all
from pegbox.errors import DataError

pytestmark = pytest.mark.parametrize("ending", TABLES)


def written(folder: Path, ending: str, table: Any) -> str:
    path = folder / f"rows{ending}"
    path.write_bytes(TABLES[ending](table))
    return str(path)


def test_every_row_is_read_in_order_with_its_number(tmp_path: Path, ending: str) -> None:
    values = [{"text": f"text {number}", "label": number % 3} for number in range(3000)]
    path = written(tmp_path, ending, pyarrow.Table.from_pylist(values))
    rows = read_all([path])
    assert [row.values for row in rows] == values
    assert [row.where for row in rows] == [f"{path}:{number}" for number in range(1, 3001)]


def test_what_is_no_such_file_is_refused(tmp_path: Path, ending: str) -> None:
    for content in (b"text,label\n", b"PAR1", b"ARROW1", b"\xff\xff\xff\xff" * 9):
        (tmp_path / f"rows{ending}").write_bytes(content)
        with pytest.raises(DataError) as refusal:
            read_all([str(tmp_path / f"rows{ending}")])
        assert refusal.value.where == str(tmp_path / f"rows{ending}") and refusal.value.cure


def test_a_file_that_is_cut_off_is_refused_and_no_row_of_it_changed(tmp_path: Path, ending: str) -> None:
    values = [{"text": f"text {number}"} for number in range(3000)]
    path = Path(written(tmp_path, ending, pyarrow.Table.from_pylist(values)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    rows: list[Any] = []
    with pytest.raises(DataError, match="damaged"):
        rows.extend(row for row in read([str(path)]))
    assert [row.values for row in rows] == values[: len(rows)]


ODD = [
    (pyarrow.array([datetime.date(2024, 5, 1)]), "2024-05-01"),
    (pyarrow.array([datetime.datetime(2024, 5, 1, 2, 3)]), "2024-05-01T02:03:00"),
    (pyarrow.array([datetime.time(2, 3)]), "02:03:00"),
    (pyarrow.array([datetime.timedelta(minutes=2)]), 120.0),
    (pyarrow.array([Decimal("1.10")]), 1.1),
    (pyarrow.array([Decimal("12345678901234567890")]), 12345678901234567890),
    (pyarrow.array([Decimal("0.12345678901234567890")]), "0.12345678901234567890"),
    (pyarrow.array([float("nan")]), None),
    (pyarrow.array([True]), True),
    (pyarrow.array(["a"]).dictionary_encode(), "a"),
    (pyarrow.array([[{"role": "user", "when": datetime.date(2024, 5, 1)}]]), [{"role": "user", "when": "2024-05-01"}]),
    (pyarrow.array([[("k", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int64())), [["k", 1]]),
    (pyarrow.array(["long"], pyarrow.large_string()), "long"),
]


@pytest.mark.parametrize("number", range(len(ODD)))
def test_a_value_of_an_odd_type_is_one_that_json_can_write(tmp_path: Path, ending: str, number: int) -> None:
    array, wanted = ODD[number]
    (row,) = read_all([written(tmp_path, ending, pyarrow.table({"a": array}))])
    assert row.values == {"a": wanted} and type(row.values["a"]) is type(wanted)
    json.dumps(row.values, allow_nan=False)


UNUSABLE = [
    (pyarrow.array([b"\x89PNG"]), "'a' holds bytes"),
    (pyarrow.array([[b"x"]]), "'a' holds bytes"),
    (pyarrow.array([float("inf")]), "'a' is infinite"),
    (pyarrow.array([b"\xff"]).view(pyarrow.string()), "not usable values"),
    (pyarrow.array([2**60], pyarrow.int64()).view(pyarrow.timestamp("s")), "not usable values"),
]


@pytest.mark.parametrize("number", range(len(UNUSABLE)))
def test_a_row_that_json_cannot_write_is_refused_and_those_beside_it_are_read(
    tmp_path: Path, ending: str, number: int
) -> None:
    array, why = UNUSABLE[number]
    if pyarrow.types.is_timestamp(array.type) and ending == ".parquet":
        array = array.view(pyarrow.timestamp("ms"))  # Parquet has no seconds
    table = pyarrow.table(
        {"a": pyarrow.concat_arrays([pyarrow.nulls(1, array.type), array, pyarrow.nulls(1, array.type)])}
    )
    path = written(tmp_path, ending, table)
    before, refused, behind = read([path])
    assert isinstance(refused, MalformedRow) and refused.where == f"{path}:2" and why in refused.why
    assert (before, behind) == (Row(f"{path}:1", {"a": None}), Row(f"{path}:3", {"a": None}))


@pytest.mark.parametrize("names", [["a", "a"], ["a", ""]])
def test_columns_without_a_name_of_their_own_are_refused(tmp_path: Path, ending: str, names: list[str]) -> None:
    if ending == ".feather" and names == ["a", "a"]:
        pytest.skip("Feather does not write them")
    table = pyarrow.Table.from_arrays([pyarrow.array([1])] * 2, names=names)
    with pytest.raises(DataError, match="name each column once"):
        read_all([written(tmp_path, ending, table)])


def test_rows_without_end_in_a_few_bytes_are_a_bomb(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path, ending, pyarrow.table({"a": pyarrow.nulls(300_000)}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pegbox.data.sources.unpacking.FREE", 200_000)
        patch.setattr("pegbox.data.sources.unpacking.RATIO", 1)
        with pytest.raises(DataError, match="as a bomb does"):
            read_all([path])
