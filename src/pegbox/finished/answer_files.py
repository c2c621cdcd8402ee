"""Answers as a file, in the format that its ending names: a table of writers, each given one line after the other.

A line is `{"id", "input", "answer"}`, or `{"id", "error"}` for a row that could not be answered. Tables have all four
columns; an answer that is no text (the likelihood of a plain text, say) stands in them as JSON.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pegbox.errors import RecipeError

COLUMNS = ("id", "input", "answer", "error")
ROWS_AT_ONCE = 1024  # of a Parquet file's row group

Line = Mapping[str, Any]


def writer_for(out: Path) -> Callable[[Iterable[Line], Path], None]:
    """What writes this file's format; JSONL where the name has no ending. Raises RecipeError for another ending."""
    ending = out.suffix.lower() or ".jsonl"
    if ending not in WRITERS:
        cure = f"give --out a name that ends in one of {', '.join(WRITERS)}"
        raise RecipeError(f"files that end in '{out.suffix}' are not written", where=str(out), cure=cure)
    return WRITERS[ending]


def as_json(line: Line) -> str:
    """One line of JSONL, without its line break."""
    return json.dumps(line, ensure_ascii=False)


def _write_jsonl(lines: Iterable[Line], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(as_json(line) + "\n" for line in lines)


def _write_json(lines: Iterable[Line], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        before = "[\n"
        for line in lines:
            file.write(before + as_json(line))
            before = ",\n"
        file.write("\n]\n" if before == ",\n" else "[]\n")


def _write_table(lines: Iterable[Line], path: Path, delimiter: str = ",") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows([_cell(line.get(name)) for name in COLUMNS] for line in lines)


def _write_tsv(lines: Iterable[Line], path: Path) -> None:
    _write_table(lines, path, "\t")


def _write_parquet(lines: Iterable[Line], path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    schema, left = pyarrow.schema([(name, pyarrow.string()) for name in COLUMNS]), iter(lines)
    with parquet.ParquetWriter(path, schema) as file:
        for group in in_groups(left, ROWS_AT_ONCE):
            cells = {name: [_cell(line.get(name)) for line in group] for name in COLUMNS}
            file.write_table(pyarrow.table(cells, schema=schema))


def in_groups(things: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size`, the last one shorter; no more than one is held."""
    return iter(lambda: list(islice(things, size)), [])


def _cell(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


WRITERS: Mapping[str, Callable[[Iterable[Line], Path], None]] = {
    ".jsonl": _write_jsonl,
    ".json": _write_json,
    ".csv": _write_table,
    ".tsv": _write_tsv,
    ".parquet": _write_parquet,
}
