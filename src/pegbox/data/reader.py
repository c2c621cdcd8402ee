"""From sources to records: each row read, kept or not, and understood; of every other row it is noted why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from pegbox.data.filters import keeper
from pegbox.data.formats import to_record
from pegbox.data.records import Record
from pegbox.data.sources import MalformedRow, Remark, read
from pegbox.recipe import Recipe
from pegbox.recipe.sources import Source


class Reader:
    """Reads as a recipe says. `unread`: why a row cannot be used, by its `file:line`; `filtered`: those that
    `data.filter` left out; `remarks`: what was guessed about a source."""

    def __init__(self, recipe: Recipe) -> None:
        self._task, self._data = recipe.task.kind, recipe.data
        self._keep = keeper(recipe.data.filter)
        self._paths: Counter[str] = Counter()
        self.unread: dict[str, str] = {}
        self.filtered: list[str] = []
        self.remarks: list[Remark] = []

    def records(self, source: Source) -> Iterator[Record]:
        """The records of a source, in order. Of one that is read again (another query to the same database) the places
        say so: `shop.db[2]:17`."""
        data, path = self._data, source.path
        self._paths[path] += 1
        again = f"{path}[{self._paths[path]}]"
        for row in read([source], self.remarks):
            if self._paths[path] > 1:
                row = replace(row, where=row.where.replace(path, again, 1))
            try:
                if isinstance(row, MalformedRow):
                    raise ValueError(row.why)
                if self._keep(row.values):
                    yield to_record(row, self._task, data.columns, data.instruction, data.format)
                else:
                    self.filtered.append(row.where)
            except ValueError as error:
                self.unread[row.where] = str(error)
