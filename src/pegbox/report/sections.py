"""What a task's own section of the report is made of: blocks of pictures, a table, and the same in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from pegbox.report import wording


@dataclass(frozen=True)
class Given:
    """What a section is made from: lines of `predictions.jsonl`, `evaluation.json`, the systems' names, and the task's
    `state` of the receipt."""

    lines: Sequence[Mapping[str, Any]]
    evaluation: Mapping[str, Any]
    names: Mapping[str, str]
    state: Mapping[str, Any]
    seed: int

    @property
    def rival(self) -> str:
        """The rival on which the verdict hangs."""
        return str(wording.deciding(self.evaluation)["against"])

    @property
    def rival_name(self) -> str:
        """What it is called."""
        return self.names[self.rival]


@dataclass(frozen=True)
class Figure:
    """A picture with what is said of it; `shown`: "", or "broad" or "narrow" where it is for such windows alone."""

    picture: Markup
    caption: str = ""
    shown: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of a name and cells; a cell is a value and what stands small below it. `heads`: of the name and of the cells."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[str, str]]]]


@dataclass(frozen=True)
class Block:
    """A part of a section; `numbers`: a picture's contents as names and values, for those who cannot see it."""

    title: str
    told: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    table: Table | None = None
    after: Sequence[str] = ()
    numbers: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Section:
    """A section of the page; `link`: what leads to it."""

    title: str
    link: str
    blocks: Sequence[Block]
