"""How a table is written: what separates its cells and how they are quoted, found in its first lines.

The delimiter is that of the file's ending unless another divides the first line and suits the rows better; quotes are
those of RFC 4180 (`"`, doubled within) unless another style suits nearly all rows and they do not.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
STANDARD = "quotes, doubled within"
APOSTROPHES = "apostrophes"
# as people call it -> as the module `csv` does; preferred in this order
STYLES: Mapping[str, Mapping[str, Any]] = {
    STANDARD: {},
    APOSTROPHES: {"quotechar": "'"},
    "quotes, with a backslash before those within": {"escapechar": "\\"},
    "nothing: a quote is a letter like others": {"quoting": csv.QUOTE_NONE},
}
UNQUOTED = list(STYLES)[-1]
NEARLY_ALL = 0.95


@dataclass(frozen=True)
class Dialect:
    """What separates the cells, and the name of the style of their quotes."""

    delimiter: str
    style: str = STANDARD

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of `csv.reader`."""
        return {"delimiter": self.delimiter, "strict": True, **STYLES[self.style]}


def find(sample: Sequence[str], own: str, whole: bool) -> Dialect:
    """The dialect of a table by its first lines (all of them where `whole`); `own` is the delimiter of its ending."""
    delimiters = [own, *(mark for mark in NAMES if mark != own)]
    suits = {mark: _suits(sample, Dialect(mark), whole) for mark in delimiters}
    divides = [mark for mark in delimiters if suits[mark][0] > 1] or [own]
    delimiter = max(divides, key=lambda mark: suits[mark][1])
    styles = {
        style: _suits(sample, Dialect(delimiter, style), whole)[1]
        for style in STYLES
        if _is_thinkable(style, sample[0], delimiter)
    }
    best = max(styles, key=lambda style: (styles[style], style == APOSTROPHES))
    return Dialect(delimiter, best if styles[best] >= NEARLY_ALL else STANDARD)


def _is_thinkable(style: str, header: str, delimiter: str) -> bool:
    """Apostrophes are letters unless all names stand in them; tables without quotes are those with tabs."""
    if style == APOSTROPHES:
        cells = header.strip("\r\n").split(delimiter)
        return all(len(cell) > 2 and cell[0] == cell[-1] == "'" for cell in cells)
    return style != UNQUOTED or delimiter == "\t"


def _suits(sample: Sequence[str], dialect: Dialect, whole: bool) -> tuple[int, float]:
    """How many columns the first line has, and the share of the other rows that have as many cells."""
    reader = csv.reader(iter(sample), **dialect.options)
    widths = []
    while True:
        try:
            widths.append(len(next(reader)))
        except StopIteration:
            break
        except csv.Error:
            if whole or reader.line_num < len(sample):  # else the sample may end within a cell
                widths.append(-1)
    rows = [width for width in widths[1:] if width]
    return (widths or [0])[0], rows.count(widths[0]) / len(rows) if rows else 1.0
