"""What each column of some rows looks like: the evidence of a proposal, from names and contents alike.

A name says what a column is meant to be, its contents whether it can be that. Ids, dates, numbers and constants are told
apart first; of the rest *prose* is what a model could read, and a *label* is one of a few short values.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pegbox.data.records import Row

NUMBER = re.compile(r"[-+]?\d{1,15}(?:[.,]\d+)?(?:[eE][-+]?\d{1,2})?")
WHOLE = re.compile(r"[-+]?\d{1,15}(?:[.,]0+)?")
DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:[T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}(?:[T ].*)?", re.ASCII)
CODE = re.compile(r"[!-~]*\d[!-~]*|[a-z]+://[!-~]+|[\w.+-]+@[\w.-]+", re.ASCII)  # one ASCII word with a digit, URLs
CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
LONGEST_LABEL = 60  # characters
MOST_LABELS, MOST_GUESSED = 1000, 50
MOST_STEPS = 10  # different numbers that may still be names (stars, grades) and not measured
LONGEST_NAME = 40  # characters of a name or value shown


def shown(value: object) -> str:
    """A column's name or a value for a sentence: quoted, short, printable."""
    text = str(value)
    text = text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"
    return "'" + "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text) + "'"


def listed(names: Iterable[object], most: int = 8) -> str:
    """A few names for a sentence."""
    given = list(names)
    more = f" and {len(given) - most} more" if len(given) > most else ""
    return ", ".join(map(shown, given[:most])) + more


def normal(name: str) -> str:
    """A name without differences of case and spelling: `documentId`, `Document ID` -> `document_id`."""
    return re.sub(r"[\W_]+", "_", CAMEL.sub("_", name).casefold()).strip("_")


@dataclass(frozen=True, eq=False)
class Column:
    """One column: its name, the number of rows looked at, and its cells that are not empty."""

    name: str
    rows: int
    values: tuple[Any, ...]

    @cached_property
    def normal(self) -> str:
        """The name without differences of spelling."""
        return normal(self.name)

    @cached_property
    def counts(self) -> Counter[str]:
        """How often each value occurs; lists and objects count as all different."""
        return Counter(_key(value, place) for place, value in enumerate(self.values))

    @property
    def distinct(self) -> int:
        """The number of different values."""
        return len(self.counts)

    @cached_property
    def length(self) -> float:
        """The mean number of characters of its texts."""
        return sum(len(value) for value in self.values if isinstance(value, str)) / max(1, len(self.values))

    def all(self, *kinds: type) -> bool:
        """True where every cell is of one of these types exactly (a truth value is no number)."""
        return bool(self.values) and all(type(value) in kinds for value in self.values)

    def _match(self, pattern: re.Pattern[str], share: float = 1.0) -> bool:
        return self.all(str) and sum(
            pattern.fullmatch(value.strip()) is not None for value in self.values
        ) >= share * len(self.values)

    @cached_property
    def is_number(self) -> bool:
        """Numbers, as such or as written in a table."""
        return self.all(int, float) or self._match(NUMBER)

    @cached_property
    def is_whole(self) -> bool:
        """Whole numbers, also those that are written 4.0."""
        if self.all(int, float):
            return all(value.is_integer() for value in self.values if type(value) is float)
        return self._match(WHOLE)

    @cached_property
    def is_date(self) -> bool:
        """Dates, by what they look like."""
        return self._match(DATE, 0.9)

    @cached_property
    def is_id(self) -> bool:
        """A different value in each row that is a code, or a whole number."""
        unique = len(self.values) > 1 and self.distinct == len(self.values)
        return unique and not self.is_date and (self.is_whole or self._match(CODE, 0.9))

    @cached_property
    def is_prose(self) -> bool:
        """Texts that a model could read: of several words or some length, and not the same few over and over."""
        if not self.all(str) or self.is_number or self.is_date or self._match(CODE, 0.9):
            return False
        worded = sum(len(value.split()) > 1 or not value.isascii() for value in self.values)
        varied = self.distinct > 0.2 * len(self.values) or (self.length > LONGEST_LABEL and self.distinct > 1)
        return varied and (worded >= 0.3 * len(self.values) or self.length >= 20)

    def is_label(self, named: bool, numbers: int = MOST_STEPS) -> bool:
        """A few short values that repeat. `named`: the column's name says so too, and more of them are believed.

        `numbers`: how many different whole numbers are still names and no scale.
        """
        few = self.distinct < len(self.values) if named else 5 * self.distinct <= len(self.values)
        most = MOST_LABELS if named else MOST_GUESSED
        if not self.all(str, int, float, bool) or not few or not 2 <= self.distinct <= most or self.is_date:
            return False
        if self.is_number and self.distinct > (numbers if self.is_whole else MOST_STEPS):
            return False
        return max(map(len, self.counts)) <= LONGEST_LABEL

    @property
    def is_constant(self) -> bool:
        """The same in every row."""
        return self.rows > 1 and len(self.values) == self.rows and self.distinct == 1

    @cached_property
    def is_objects(self) -> bool:
        """Lists whose items are objects."""
        return self.all(list) and all(value and all(isinstance(item, dict) for item in value) for value in self.values)

    @cached_property
    def is_names(self) -> bool:
        """Lists of names."""
        return self.all(list) and all(isinstance(item, str) for value in self.values for item in value)

    def has_keys(self, *keys: str) -> bool:
        """True for lists of objects that have these keys in nearly all rows."""
        if not self.is_objects:
            return False
        good = sum(all(set(keys) <= set(item) for item in value) for value in self.values)
        return good >= 0.9 * len(self.values)

    def __str__(self) -> str:
        return f"{shown(self.name)} ({self._described()})"

    def _described(self) -> str:
        if not self.values:
            return "empty"
        if self.is_constant:
            return "the same in every row"
        if self.is_id:
            return "a different code in every row"
        if self.is_date:
            return "dates"
        if self.is_prose:
            return f"text, {self.distinct} different, {self.length:.0f} characters on average"
        if self.is_number:
            return f"numbers, {self.distinct} different"
        kinds = ", ".join(sorted({type(value).__name__ for value in self.values}))
        return f"{self.distinct} different values" if self.all(str, bool) else f"of type {kinds}"


def _key(value: Any, place: int) -> str:
    if isinstance(value, list | dict):  # which may be nested deeper than `repr` can go
        return f"{place}"
    return value if isinstance(value, str) else repr(value)


def columns_of(rows: Sequence[Row]) -> tuple[Column, ...]:
    """The columns of the rows by name, so that the order of a file's columns changes nothing."""
    cells: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.values.items():
            kept = cells.setdefault(name, [])
            if value is not None and not (isinstance(value, str) and not value.strip()):
                kept.append(value)
    return tuple(Column(name, len(rows), tuple(values)) for name, values in sorted(cells.items()))
