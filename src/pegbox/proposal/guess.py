"""A guess of what some columns are: the form in which rules tell it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from pegbox.proposal import names
from pegbox.proposal.columns import Column

Sureness = Literal["sure", "likely", "a guess"]
Columns = Sequence[Column]


@dataclass(frozen=True)
class Guess:
    """A task and its columns. `roles`: role -> column, or several; `others`: columns that are read by their names as well."""

    kind: str
    sureness: Sureness
    reasons: tuple[str, ...]
    roles: Mapping[str, str | tuple[str, ...]]
    others: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def reads(self) -> frozenset[str]:
        """Every column that is read."""
        alone = ((column,) if isinstance(column, str) else column for column in self.roles.values())
        return frozenset((*chain.from_iterable(alone), *self.others))


def find(columns: Columns, wanted: Iterable[str]) -> Column | None:
    """The column with the first of these names that there is."""
    by_name = {column.normal: column for column in sorted(columns, key=lambda c: (c.name == c.normal, c.name))}
    return next((by_name[name] for name in wanted if name in by_name), None)


def prose(columns: Columns) -> list[Column]:
    """The columns that a model could read."""
    return [column for column in columns if column.is_prose]


def best_text(texts: Columns) -> Column | None:
    """The one whose name says that it is the text, else the longest."""
    return find(texts, names.TEXT) or max(texts, key=lambda column: column.length, default=None)
