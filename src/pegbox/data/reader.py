"""From sources to records: each row read, kept or not, and understood; of every other row it is noted why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pegbox.data.filters import keeper
from pegbox.data.formats import detect, to_record
from pegbox.data.records import Record, Row
from pegbox.data.sources import MalformedRow, Remark, numbered
from pegbox.recipe import Recipe
from pegbox.recipe.sources import Source


class Reader:
    """Reads as a recipe says. `unread`: why a row cannot be used, by its `file:line`; `filtered`: those that
    `data.filter` left out; `remarks`: what was guessed about a source; `formats`: what the first row of each is read as,
    and why."""

    def __init__(self, recipe: Recipe) -> None:
        self._task, self._data = recipe.task.kind, recipe.data
        self._keep = keeper(recipe.data.filter)
        self.unread: dict[str, str] = {}
        self.filtered: list[str] = []
        self.remarks: list[Remark] = []
        self.formats: dict[str, str] = {}

    def records(self, sources: Sequence[Source]) -> Iterator[tuple[int, Record]]:
        """The records of the sources, in order, each with the number of its source."""
        begun: set[int] = set()
        for number, row in numbered(sources, self.remarks):
            try:
                record = self._understood(row, number not in begun)
            except ValueError as error:
                self.unread[row.where] = str(error)
            else:
                if record is not None:
                    begun.add(number)
                    yield number, record

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
