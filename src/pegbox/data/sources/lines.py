"""Rows that are lines: JSONL, an object on each; and texts, a paragraph between blank lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pegbox.data.records import Row
from pegbox.data.sources.files import File
from pegbox.data.sources.outcomes import MalformedRow
from pegbox.data.sources.strict_json import parse_json
from pegbox.data.sources.text import ROW_LIMIT, TOO_LONG, Text

WHITE = " \t\r\n"  # JSON's own white space; `strip()` would also take away what only looks like it


def read_jsonl(file: File) -> Iterator[Row | MalformedRow]:
    """A row for each line that is not blank; its place is the line."""
    text = Text(file)
    for number, raw in text.lines():
        where = f"{file.where}:{number}"
        if raw is None:
            yield MalformedRow(where, TOO_LONG)
            continue
        try:
            line = text.decode(raw).strip(WHITE)
        except ValueError as error:
            yield MalformedRow(where, str(error))
            continue
        try:
            if line:
                yield as_row(where, parse_json(line))
        except ValueError as error:
            yield MalformedRow(where, why(error))


def why(error: ValueError) -> str:
    """Why a text is not JSON that can be used."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg[0].lower()}{error.msg[1:]} at column {error.colno}"
    return f"not usable JSON: {error}"


def as_row(where: str, value: Any) -> Row | MalformedRow:
    """The row that a JSON value is."""
    if isinstance(value, dict):
        return Row(where, value)
    return MalformedRow(where, f"a row must be a JSON object, this is a {type(value).__name__}")


def read_paragraphs(file: File) -> Iterator[Row | MalformedRow]:
    """One row `{"text": paragraph}` for what stands between blank lines; its place is its first line.

    What a text says is not looked at: a blank line within a Markdown code block ends a paragraph too.
    """
    lines: list[str] = []
    first, size = 0, 0
    for number, line in _and_a_blank(Text(file).texts()):
        if line is None or line.strip(WHITE):
            first = first if size else number
            size += ROW_LIMIT if line is None else len(line)
            if line is not None and size < ROW_LIMIT:
                lines.append(line.removesuffix("\n").removesuffix("\r"))
        elif size:
            where = f"{file.where}:{first}"
            if size < ROW_LIMIT:
                yield Row(where, {"text": "\n".join(lines)})
            else:
                yield MalformedRow(where, f"a paragraph {TOO_LONG}; blank lines end a paragraph")
            lines, size = [], 0


def _and_a_blank(lines: Iterator[tuple[int, str | None]]) -> Iterator[tuple[int, str | None]]:
    """The lines, and one more that ends the last paragraph."""
    yield from lines
    yield 0, ""
