"""The table of the checks: adding one is a class and a row here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pegbox.data.doctor.damage import Encoding
from pegbox.data.doctor.findings import Check, Finding
from pegbox.data.doctor.label_noise import LabelNoise
from pegbox.data.doctor.languages import Languages
from pegbox.data.doctor.overlap import Overlap
from pegbox.data.doctor.personal import personal_data
from pegbox.data.doctor.secrets import secrets
from pegbox.data.doctor.shape import Shape
from pegbox.data.doctor.sizes import Empty, Oversize
from pegbox.data.records import Record
from pegbox.data.sources import MalformedRow, read, refusal
from pegbox.recipe import Recipe
from pegbox.recipe.sources import Source

CHECKS: tuple[Callable[[Recipe], Check], ...] = (
    Empty,
    Oversize,
    Encoding,
    secrets,
    personal_data,
    LabelNoise,
    Languages,
)


def named_texts(sources: Sequence[Source]) -> Iterator[str]:
    """Every text in the rows of sources. Raises DataError for a row that cannot be read."""
    for row in read(sources):
        if isinstance(row, MalformedRow):
            raise refusal([row])
        yield from _texts_in(row.values)


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts_in(inner)


class Examination:
    """All checks on one recipe's rows."""

    def __init__(self, recipe: Recipe) -> None:
        self._shape = Shape()
        self._checks: list[Check] = [*(check(recipe) for check in CHECKS), self._shape]
        if recipe.data.benchmarks:
            self._checks.insert(0, Overlap(named_texts(recipe.data.benchmarks)))

    def see(self, record: Record) -> None:
        """Show a record to all."""
        for check in self._checks:
            check.see(record)

    def findings(self) -> Iterator[Finding]:
        """What they found, in the order of the table."""
        for check in self._checks:
            yield from check.findings()

    def shape(self) -> dict[str, Any]:
        """What the rows look like, in counts."""
        return self._shape.shape()
