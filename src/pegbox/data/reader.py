"""From sources to records: each row read, kept or not, and understood; of every other row it is noted why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from pegbox.data.filters import keeper
from pegbox.data.formats import detect, to_record
from pegbox.data.records import Record, Row
from pegbox.data.sources import MalformedRow, Remark, read
from pegbox.recipe import Recipe
from pegbox.recipe.sources import Source


class Reader:
    """Reads as a recipe says. `unread`: why a row cannot be used, by its `file:line`; `filtered`: those that
    `data.filter` left out; `remarks`: what was guessed about a source; `formats`: what the first row of each is read as,
    and why."""

    def __init__(self, recipe: Recipe) -> None:
        self._task, self._data = recipe.task.kind, recipe.data
        self._keep = keeper(recipe.data.filter)
        self._paths: Counter[str] = Counter()
        self.unread: dict[str, str] = {}
        self.filtered: list[str] = []
        self.remarks: list[Remark] = []
        self.formats: dict[str, str] = {}

    def records(self, source: Source) -> Iterator[Record]:
        """The records of a source, in order. Of one that is read again (another query to the same database) the places
        say so: `shop.db[2]:17`."""
        path = source.path
        self._paths[path] += 1
        again = f"{path}[{self._paths[path]}]"
        first = True
        for row in read([source], self.remarks):
            if self._paths[path] > 1:
                row = replace(row, where=row.where.replace(path, again, 1))
            try:
                record = self._understood(row, first)
            except ValueError as error:
                self.unread[row.where] = str(error)
            else:
                if record is not None:
                    first = False
                    yield record

    def _understood(self, row: Row | MalformedRow, first: bool) -> Record | None:
        """The record; None where the filter leaves it out. Raises ValueError where the row cannot be used."""
        data = self._data
        if isinstance(row, MalformedRow):
            raise ValueError(row.why)
        if not self._keep(row.values):
            self.filtered.append(row.where)
            return None
        if first:
            found = detect(row.values, self._task, data.columns, data.format)
            self.formats.setdefault(found.name, found.why)
        return to_record(row, self._task, data.columns, data.instruction, data.format)
