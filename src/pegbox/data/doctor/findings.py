"""What is wrong with the rows, all of it at once: findings with their rows, severity and cure.

A check sees every record once and then yields its findings; it is a class and a row in a table. An error refuses
training unless the recipe's `data.allow` names it; a row that is dropped is listed in the finding that dropped it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from pegbox.data.records import Record
from pegbox.errors import DataError

Severity = Literal["error", "warning", "note"]
SHOWN = 20  # rows and reasons named in a message; `data.json` names all rows


@dataclass(frozen=True)
class Finding:
    """One kind of defect, every row that has it, and how to mend it."""

    check: str
    severity: Severity
    rows: tuple[str, ...]
    message: str
    cure: str

    @property
    def count(self) -> int:
        """How many rows have it."""
        return len(self.rows)

    def to_json(self) -> dict[str, Any]:
        """The finding as the contract has it."""
        return {**asdict(self), "rows": list(self.rows), "count": self.count}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Finding:
        """What `to_json` told."""
        return cls(told["check"], told["severity"], tuple(told["rows"]), told["message"], told["cure"])

    def __str__(self) -> str:
        rows = f"\n  rows: {listed(self.rows, SHOWN)}" if self.rows else ""
        return f"{self.message}{rows}\n  cure: {self.cure}"


class Check(Protocol):
    """One thing that the doctor looks for."""

    def see(self, record: Record) -> None:
        """Look at one record; all of them come by, in order. What is kept of each is a few bytes."""

    def findings(self) -> Iterator[Finding]:
        """What was found, when all have been seen."""


def listed(rows: Sequence[str], shown: int) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(rows) - shown} more" if len(rows) > shown else ""
    return ", ".join(rows[:shown]) + more


def count_of(count: int, one: str, several: str) -> str:
    """The beginning of a sentence: "1 row has", "2 rows have"."""
    return f"1 row {one}" if count == 1 else f"{count} rows {several}"


def refuse(findings: Iterable[Finding], allow: Sequence[str]) -> None:
    """Raise DataError with every error among the findings that the recipe does not allow, and behind them all warnings."""
    found = list(findings)
    if errors := [finding for finding in found if finding.severity == "error" and finding.check not in allow]:
        warnings = [finding for finding in found if finding.severity == "warning"]
        told = [f"{finding.check}: {finding}" for finding in errors]
        raise DataError("\n".join(told + [f"warning {finding.check}: {finding}" for finding in warnings]))
