"""Files -> rows. JSONL and JSON arrays, CSV and TSV, text, Parquet; each row keeps its `file:line` to the end.

Bytes are split on `\\n` only: `splitlines` would also cut at U+2028 and U+0085, which JSON strings may hold. Nothing a
stranger wrote may end in a traceback: what cannot be read becomes a finding of the doctor's.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pegbox.data import encoding
from pegbox.data.records import Row
from pegbox.data.strict_json import parse_json
from pegbox.errors import DataError

WHITE = " \t\r\n"  # JSON's own white space; `strip()` would also take away what only looks like it
SHOWN = 20  # rows named in a message


@dataclass(frozen=True)
class MalformedRow:
    """One row that cannot be read: where and why."""

    where: str
    why: str

    def __str__(self) -> str:
        return f"{self.where}: {self.why}"


def read(files: Sequence[str]) -> Iterator[Row | MalformedRow]:
    """All rows of the files in order; a row that cannot be read is yielded as a MalformedRow, never skipped.

    Raises DataError for a file that is missing, empty, not UTF-8 throughout, or of an unknown kind.
    """
    for name in files:
        path = Path(name)
        if not path.is_file():
            raise DataError("no such data file", where=name, cure="check the path")
        reader = READERS.get(path.suffix.lower())
        if reader is None:
            cure = f"convert it to one of {', '.join(READERS)}"
            raise DataError(f"files that end in '{path.suffix}' are not read yet", where=name, cure=cure)
        _refuse_unreadable(path)
        yield from reader(path)


def read_all(files: Sequence[str]) -> list[Row]:
    """All rows of the files. Raises DataError that counts the rows that cannot be read and names the first of them."""
    rows = list(read(files))
    if unread := [row for row in rows if isinstance(row, MalformedRow)]:
        raise refusal(unread)
    return [row for row in rows if isinstance(row, Row)]


def refusal(unread: Sequence[MalformedRow]) -> DataError:
    """The error for rows that cannot be read: how many, and the first of them with their reasons."""
    told = "".join(f"\n  {row}" for row in unread[:SHOWN])
    more = f"\n  and {len(unread) - SHOWN} more" if len(unread) > SHOWN else ""
    count = "1 row" if len(unread) == 1 else f"{len(unread)} rows"
    return DataError(f"{count} cannot be read{told}{more}", cure="mend these rows")


def _text_of(path: Path) -> str:
    """The whole of a UTF-8 file."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise encoding.refusal(path, data) from None


def _refuse_unreadable(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if not head:
        raise DataError("the file is empty", where=str(path), cure="give a file with at least one row")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
        raise DataError("the file is UTF-16 or UTF-32, not UTF-8 text", where=str(path), cure="save it as UTF-8")


# ---- JSON ------------------------------------------------------------------------------------------------------------


def _why(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return encoding.row_reason(error.object)
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg[0].lower()}{error.msg[1:]} at column {error.colno}"
    return f"not usable JSON: {error}"


def _read_jsonl(path: Path) -> Iterator[Row | MalformedRow]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            where = f"{path}:{number}"
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip(WHITE)
                if text:
                    yield _object(where, parse_json(text))
            except ValueError as error:
                yield MalformedRow(where, _why(error))


def _object(where: str, value: Any) -> Row | MalformedRow:
    if isinstance(value, dict):
        return Row(where, value)
    return MalformedRow(where, f"a row must be a JSON object, this is a {type(value).__name__}")


def _read_json(path: Path) -> Iterator[Row | MalformedRow]:
    """A JSON array of objects; the place of a row is its number in the array (several may stand on one line)."""
    text = _text_of(path)
    try:
        values = parse_json(text)
    except ValueError as error:
        where = f"{path}:{error.lineno}" if isinstance(error, json.JSONDecodeError) else str(path)
        raise DataError(_why(error), where=where, cure="mend the file, or write one JSON object a line") from None
    if not isinstance(values, list):
        raise DataError("not a JSON array of rows", where=str(path), cure="write [{...}, {...}] or JSONL")
    for number, value in enumerate(values, start=1):
        yield _object(f"{path}:{number}", value)


# ---- tables ----------------------------------------------------------------------------------------------------------


def _read_csv(path: Path, delimiter: str = ",") -> Iterator[Row | MalformedRow]:
    """A table whose first line names the columns; the place of a row is its first line. Blank lines are no rows."""
    lines = csv.reader(io.StringIO(_text_of(path), newline=""), delimiter=delimiter, strict=True)
    rows = _cells(lines)
    _, names = next(rows, (1, []))
    if isinstance(names, csv.Error) or not names or len(set(names)) < len(names):
        cure = "name the columns in the first line, and quote cells that hold the delimiter"
        raise DataError("the first line must name each column once", where=f"{path}:1", cure=cure)
    for number, cells in rows:
        where = f"{path}:{number}"
        if isinstance(cells, csv.Error):
            yield MalformedRow(where, f"not a row of a table: {cells}")
        elif len(cells) != len(names):
            yield MalformedRow(where, f"has {len(cells)} cells, and the first line names {len(names)} columns")
        else:
            yield Row(where, dict(zip(names, cells, strict=True)))


def _cells(lines: Any) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """The cells of each row that is not blank with the number of its first line, or why they cannot be read."""
    while True:
        number = lines.line_num + 1
        try:
            cells: list[str] | csv.Error = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            cells = error
        if cells:
            yield number, cells


def _read_tsv(path: Path) -> Iterator[Row | MalformedRow]:
    return _read_csv(path, "\t")


# ---- text ------------------------------------------------------------------------------------------------------------


def _read_paragraphs(path: Path) -> Iterator[Row]:
    """One row `{"text": paragraph}` for what stands between blank lines; its place is its first line.

    What a text says is not looked at: a blank line within a Markdown code block ends a paragraph too.
    """
    lines: list[str] = []
    for number, line in enumerate([*_text_of(path).split("\n"), ""], start=1):
        if line.strip(WHITE):
            lines.append(line.removesuffix("\r"))
        elif lines:
            yield Row(f"{path}:{number - len(lines)}", {"text": "\n".join(lines)})
            lines = []


# ---- Parquet ---------------------------------------------------------------------------------------------------------


def _read_parquet(path: Path) -> Iterator[Row]:
    """Column by column on disk, row by row here; the place of a row is its number."""
    from pyarrow import ArrowInvalid, parquet

    try:
        file = parquet.ParquetFile(path)
    except ArrowInvalid as error:
        raise DataError(f"not a Parquet file: {error}", where=str(path)) from None
    batches = file.iter_batches(batch_size=1024)
    rows = (values for batch in batches for values in batch.to_pylist())
    yield from (Row(f"{path}:{number}", values) for number, values in enumerate(rows, start=1))


READERS = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".txt": _read_paragraphs,
    ".md": _read_paragraphs,
    ".parquet": _read_parquet,
}
