"""What is known of a sample before its rows are read."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

Row = dict[str, Any]
One = TypeVar("One")

SEED = 42


@dataclass(frozen=True)
class Sample:
    """Rows that are read at run time out of something that others published; none of them is kept in pegbox.

    about: what a row is, in a line ("the title of a disease -> its chapter"); task: the kind of task that it is for.
    package: what the rows are read from, with its version: `Archive.pinned`, or `python==3.12.3`.
    licence: an SPDX identifier; attribution: whom the licence wants named, and where the words stand.
    rows: reads them, in an order that is always the same; the keys are the names of roles (`text`, `label`, ...).
    """

    about: str
    task: str
    package: str
    licence: str
    attribution: str
    rows: Callable[[], list[Row]]


def shuffled(rows: Iterable[One]) -> list[One]:
    """The rows in an order that only their number decides."""
    drawn = list(rows)
    random.Random(SEED).shuffle(drawn)
    return drawn
