"""What reading brings besides rows: rows that cannot be read, and remarks on how a file was read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pegbox.errors import DataError

SHOWN = 20  # rows named in a message


@dataclass(frozen=True)
class MalformedRow:
    """One row that cannot be read: where and why."""

    where: str
    why: str

    def __str__(self) -> str:
        return f"{self.where}: {self.why}"


@dataclass(frozen=True)
class Remark:
    """How a file was read where that was a guess, or what was left out; `check`: "encoding" or "source"."""

    where: str
    check: str
    message: str
    cure: str


def refusal(unread: Sequence[MalformedRow]) -> DataError:
    """The error for rows that cannot be read: how many, and the first of them with their reasons."""
    told = "".join(f"\n  {row}" for row in unread[:SHOWN])
    more = f"\n  and {len(unread) - SHOWN} more" if len(unread) > SHOWN else ""
    count = "1 row" if len(unread) == 1 else f"{len(unread)} rows"
    return DataError(f"{count} cannot be read{told}{more}", cure="mend these rows")


def check_names(names: Sequence[str], where: str, cure: str) -> None:
    """Raise DataError unless each column has a name, and one of its own. The first may lack it: an index, as pandas writes."""
    if not names or len(set(names)) < len(names) or "" in names[1:] or names == [""]:
        raise DataError("the file must name each column once", where=where, cure=cure)
