"""CSV and TSV, row by row, in the dialect that the first lines show. Nothing within an unclosed quote is lost in silence."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import islice

from pegbox.data.records import Row
from pegbox.data.sources import dialects
from pegbox.data.sources.dialects import Dialect
from pegbox.data.sources.files import File
from pegbox.data.sources.outcomes import MalformedRow, check_names
from pegbox.data.sources.text import ROW_LIMIT, TOO_LONG, Text
from pegbox.errors import DataError

SAMPLE, SAMPLE_SIZE = 500, 2**20  # lines and characters in which the dialect is looked for
CURE = "name the columns in the first line, and quote cells that hold the delimiter"
# the beginnings of the messages of `csv` -> the same for people
WORDS = {
    "unexpected end of data": "a quoted cell is not closed",
    "field larger": f"a cell is longer than {csv.field_size_limit():,} characters, as when its quote is not closed",
    "new-line character": "a carriage return stands within a line, and not in quotes",
}


def read_csv(file: File, delimiter: str = ",") -> Iterator[Row | MalformedRow]:
    """A table whose first line names the columns; the place of a row is its first line. Blank lines are no rows."""
    text = Text(file)
    dialect = _dialect(text, delimiter)
    lines = _Lines(text)
    rows = _cells(lines, dialect)
    first, names = next(rows, (1, []))
    if isinstance(names, str):
        raise DataError(f"the first line must name each column once: {names}", where=f"{file.where}:{first}", cure=CURE)
    check_names(names, f"{file.where}:{first}", CURE)
    for number, cells in rows:
        where = f"{file.where}:{number}"
        if isinstance(cells, str):
            yield MalformedRow(where, f"not a row of a table: {cells}")
        elif len(cells) != len(names):
            yield MalformedRow(where, f"has {len(cells)} cells, and the first line names {len(names)} columns")
        else:
            if len(lines.row) > 2 and len(names) > 1 and not lines.suspected:
                _remark_on_rows_within(file, lines, dialect, len(names))
            yield Row(where, dict(zip(names, cells, strict=True)))


def read_tsv(file: File) -> Iterator[Row | MalformedRow]:
    """A table with tabs."""
    return read_csv(file, "\t")


def _dialect(text: Text, own: str) -> Dialect:
    """The dialect of the table; one that its name does not tell is remarked on."""
    sample: list[str] = []
    lines = text.texts()
    for _, line in islice(lines, SAMPLE):
        sample.append(line or "")
        if sum(map(len, sample)) > SAMPLE_SIZE:
            break
    whole = next(lines, None) is None
    found = dialects.find(sample, own, whole)
    told = f"its cells are separated by {dialects.NAMES[found.delimiter]}" if found.delimiter != own else ""
    if found.style != dialects.STANDARD:
        told += f"{' and' if told else 'its cells are'} quoted by {found.style}"
    if told:
        cure = "look whether its columns are right; if not, write it with quotes and the delimiter that its name says"
        text.file.remark("source", f"read as a table: {told}", cure)
    return found


class _Lines:
    """The lines of a table as `csv` asks for them, and those of the row that is being read."""

    def __init__(self, text: Text) -> None:
        self._left = text.texts()
        self.number, self.row, self._size = 0, list[str](), 0
        self.suspected = False  # whether rows within a row have been told

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        self.number, line = next(self._left)
        self._size += ROW_LIMIT if line is None else len(line)
        self.row.append(line or "")
        if line is None or self._size >= ROW_LIMIT:
            raise csv.Error(TOO_LONG)
        return line

    def begin(self) -> int:
        """A new row begins; the number of its first line."""
        self.row, self._size = [], 0
        return self.number + 1


def _cells(lines: _Lines, dialect: Dialect) -> Iterator[tuple[int, list[str] | str]]:
    """The cells of each row that is not blank with the number of its first line, or why they cannot be read."""
    reader = csv.reader(lines, **dialect.options)
    while True:
        number = lines.begin()
        try:
            cells: list[str] | str = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            cells = _why(str(error), number, lines, dialect)
        if cells:
            yield number, cells


def _why(error: str, number: int, lines: _Lines, dialect: Dialect) -> str:
    """The reason in people's words, and which lines went with it: those behind a quote are no rows any more."""
    told = next((words for start, words in WORDS.items() if error.startswith(start)), error)
    if len(lines.row) < 2:
        return told
    quote = dialects.STYLES[dialect.style].get("quotechar", '"')
    # what follows a closing quote and may not, stands in the last line; else its quotes count too
    known = lines.row[:-1] if "expected after" in error else lines.row
    inside, opened = False, number
    for place, line in enumerate(known, start=number):
        if count := line.replace(quote * 2, "").count(quote):
            inside ^= count % 2 == 1
            opened = place if inside else opened
    last = number + len(lines.row) - 1
    return f"{told}; the quote is opened in line {opened}, and the lines {number} to {last} are not read"


def _remark_on_rows_within(file: File, lines: _Lines, dialect: Dialect, width: int) -> None:
    """A cell over several lines that look like rows themselves may be a quote that was forgotten, and another."""
    inner = lines.row[1:-1]
    try:
        if any(len(cells) != width for cells in csv.reader(inner, **dialect.options)):
            return
    except csv.Error:
        return
    first = lines.number - len(lines.row) + 1
    message = f"the lines {first} to {lines.number} are one row by its quotes, and those within look like rows"
    file.remark("source", message, "look whether a quote is missing there")
    lines.suspected = True
