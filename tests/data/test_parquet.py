"""Parquet files are read row by row, and what is none is refused by name."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from pegbox.data.sources import read_all
from pegbox.errors import DataError


def test_every_row_of_a_parquet_file_is_read_in_order_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    values = [{"text": f"text {number}", "label": number % 3} for number in range(3000)]
    parquet.write_table(pyarrow.Table.from_pylist(values), path, row_group_size=700)
    rows = read_all([str(path)])
    assert [row.values for row in rows] == values
    assert [row.where for row in rows] == [f"{path}:{number}" for number in range(1, 3001)]


def test_what_is_no_parquet_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_text("text,label\n", encoding="utf-8")
    with pytest.raises(DataError, match="rows.parquet"):
        read_all([str(tmp_path / "rows.parquet")])
