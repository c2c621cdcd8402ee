"""Files -> rows. JSONL and JSON arrays, CSV and TSV; each row keeps its `file:line` to the end.

Bytes are split on `\\n` only: `splitlines` would also cut at U+2028 and U+0085, which JSON strings may hold. Nothing a
stranger wrote may end in a traceback: what cannot be read becomes a finding of the doctor's.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pegbox.data.records import Row
from pegbox.errors import DataError


class MalformedRow(Exception):
    """One row that cannot be read; says where and why."""

    def __init__(self, where: str, why: str) -> None:
        self.where, self.why = where, why
        super().__init__(f"{where}: {why}")


def read(files: Sequence[str]) -> Iterator[Row | MalformedRow]:
    """All rows of the files in order; a row that cannot be read is yielded as a MalformedRow, never skipped.

    Raises DataError for a file that is missing, empty, or of an unknown kind.
    """
    for name in files:
        path = Path(name)
        if not path.is_file():
            raise DataError("no such data file", where=name, cure="check the path under `data:` in the recipe")
        if path.stat().st_size == 0:
            raise DataError("the file is empty", where=name, cure="give a file with at least one row")
        reader = READERS.get(path.suffix.lower())
        if reader is None:
            cure = f"convert it to one of {', '.join(READERS)}"
            raise DataError(f"files that end in '{path.suffix}' are not read yet", where=name, cure=cure)
        yield from reader(path)


def parse_json(text: str) -> Any:
    """JSON as the standard has it. Raises ValueError for what Python's parser lets pass or dies of.

    Refused: NaN and infinities (also as 1e400), duplicate keys, lone surrogates, integers of thousands of digits,
    nesting deeper than the parser's stack.
    """
    try:
        value = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    try:
        text.encode("utf-8")
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair, which is no character") from None
    return value


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key '{next(key for key in keys if keys.count(key) > 1)}' is given twice")
    return values


def _why(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg.lower()} at column {error.colno}"
    return f"not usable JSON: {error}"


def _read_jsonl(path: Path) -> Iterator[Row | MalformedRow]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            where = f"{path}:{number}"
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                yield MalformedRow(where, "not UTF-8 text")
                continue
            if text:
                yield _json_row(where, text)


def _json_row(where: str, text: str) -> Row | MalformedRow:
    try:
        values = parse_json(text)
    except ValueError as error:
        return MalformedRow(where, _why(error))
    if not isinstance(values, dict):
        return MalformedRow(where, f"a row must be a JSON object, this is a {type(values).__name__}")
    return Row(where, values)


def _read_json(path: Path) -> Iterator[Row | MalformedRow]:
    """A JSON array of objects; the place of a row is its number in the array."""
    try:
        values = parse_json(path.read_bytes().decode("utf-8-sig"))
    except ValueError as error:
        raise DataError(_why(error), where=str(path), cure="mend the file, or write one JSON object a line") from None
    if not isinstance(values, list):
        raise DataError("not a JSON array of rows", where=str(path), cure="write [{...}, {...}] or JSONL")
    for number, row in enumerate(values, start=1):
        where = f"{path}:{number}"
        yield Row(where, row) if isinstance(row, dict) else MalformedRow(where, "a row must be a JSON object")


def _read_csv(path: Path, delimiter: str = ",") -> Iterator[Row | MalformedRow]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError("not UTF-8 text", where=str(path), cure="save the table as UTF-8") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    if reader.fieldnames is None or len(set(reader.fieldnames)) < len(reader.fieldnames):
        raise DataError("the first line must name each column once", where=f"{path}:1")
    while True:
        where = f"{path}:{reader.line_num + 1}"
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield MalformedRow(where, f"not a row of a table: {error}")
            continue
        if None in values or None in values.values():
            yield MalformedRow(where, "has more or fewer cells than the first line has names")
        else:
            yield Row(where, values)


def _read_tsv(path: Path) -> Iterator[Row | MalformedRow]:
    return _read_csv(path, "\t")


READERS = {".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_csv, ".tsv": _read_tsv}
