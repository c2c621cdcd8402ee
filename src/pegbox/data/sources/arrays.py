"""A JSON array of objects, row by row: a window moves over the text and grows until one value fits into it.

What is no JSON ends the file, for nothing says where the next row would begin.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from pegbox.data.records import Row
from pegbox.data.sources.files import File
from pegbox.data.sources.lines import as_row, why
from pegbox.data.sources.outcomes import MalformedRow
from pegbox.data.sources.strict_json import parse_json_at
from pegbox.data.sources.text import ROW_LIMIT, TOO_LONG, Text
from pegbox.errors import DataError

WHITE = re.compile(r"[ \t\r\n]*")
TOKEN = 12  # characters: an error so near to the end of the window may only mean that the rest has not been read


def read_json(file: File) -> Iterator[Row | MalformedRow]:
    """A row for each value of the array; its place is its number in it (several may stand on one line)."""
    window = _Window(file)
    if window.take() != "[":
        cure = "write [{...}, {...}]; where each line is an object, name the file .jsonl"
        raise DataError("not a JSON array of rows", where=file.where, cure=cure)
    mark, number = "]" if window.next() == "]" else ",", 0
    window.at += mark == "]"
    while mark == ",":
        number += 1
        window.next()
        yield as_row(f"{file.where}:{number}", window.value(number))
        if window.next() not in (",", "]"):
            raise window.fault(json.JSONDecodeError("Expecting ',' delimiter", window.text, window.at))
        mark = window.take()
    if window.next():
        raise window.fault(json.JSONDecodeError("Extra data", window.text, window.at))


class _Window:
    """The part of a JSON text that is being read; `at` is the place in it up to which it has been."""

    def __init__(self, file: File) -> None:
        self.where, self.text, self.at = file.where, "", 0
        self._pieces = Text(file).pieces()
        self._line, self._column = 1, 0  # of where the window begins

    def next(self) -> str:
        """The next character that is not white, where `at` is then; nothing at the end."""
        while True:
            found = WHITE.match(self.text, self.at)
            self.at = found.end() if found else self.at
            if self.at < len(self.text) or not self._grow():
                return self.text[self.at : self.at + 1]

    def take(self) -> str:
        """The next character that is not white, and `at` behind it."""
        found = self.next()
        self.at += 1
        return found

    def value(self, number: int) -> Any:
        """The value at `at`, which moves behind it. Raises DataError for row `number` where there is none."""
        while True:
            try:
                value, end = parse_json_at(self.text, self.at)
            except ValueError as error:
                fault = self.fault(error, number)
                if not _is_unfinished(error, self.text) or not self._grow():
                    raise fault from None
            else:
                if end < len(self.text) or not self._grow():  # a number may go on behind the window
                    self.at = min(end, len(self.text))
                    return value
            if len(self.text) > 2 * ROW_LIMIT:
                raise DataError(f"row {number} is {TOO_LONG}", where=self.where, cure="cut it into several rows")

    def fault(self, error: ValueError, number: int = 0) -> DataError:
        """The error for a text that is no JSON, with its line, or its row where no line is known."""
        cure = "mend the file, or write one JSON object a line"
        if not isinstance(error, json.JSONDecodeError):
            return DataError(f"row {number}: {why(error)}", where=self.where, cure=cure)
        column = error.colno + (self._column if error.lineno == 1 else 0)
        placed = json.JSONDecodeError(error.msg, "", 0)
        placed.colno = column
        return DataError(why(placed), where=f"{self.where}:{self._line + error.lineno - 1}", cure=cure)

    def _grow(self) -> bool:
        """Leave out what has been read and read at least as much again as is left, so that retries cost no more."""
        gone, left = self.text[: self.at], [self.text[self.at :]]
        self._line += gone.count("\n")
        self._column = len(gone) - gone.rfind("\n") - 1 + (0 if "\n" in gone else self._column)
        wanted = max(1, len(left[0]))
        while wanted > 0 and (piece := next(self._pieces, "")):
            left.append(piece)
            wanted -= len(piece)
        self.text, self.at = "".join(left), 0
        return len(left) > 1


def _is_unfinished(error: ValueError, text: str) -> bool:
    """Whether more text could mend it."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.msg.startswith("Unterminated string") or error.pos >= len(text) - TOKEN
