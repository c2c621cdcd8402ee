"""What is wrong with the rows, all of it at once: findings with their rows, severity and cure.

A check is a function that yields findings and a row in a table. An error refuses training unless the recipe's
`data.allow` names it; a row that is dropped is listed in the finding that dropped it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pegbox.data.records import Record
from pegbox.data.splits import Splits, parts, twin_key
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

    def __str__(self) -> str:
        return f"{self.message}\n  rows: {_listed(self.rows, SHOWN)}\n  cure: {self.cure}"


def _listed(rows: Sequence[str], shown: int) -> str:
    more = f" and {len(rows) - shown} more" if len(rows) > shown else ""
    return ", ".join(rows[:shown]) + more


def _rows(count: int, one: str, several: str) -> str:
    """The beginning of a sentence: "1 row has", "2 rows have"."""
    return f"1 row {one}" if count == 1 else f"{count} rows {several}"


def malformed(reasons: Mapping[str, str]) -> Iterator[Finding]:
    """Rows that cannot be used; `reasons` says why for each `file:line`. The message tells each reason once."""
    if reasons:
        by_reason: dict[str, list[str]] = defaultdict(list)
        for where, why in reasons.items():
            by_reason[why].append(where)
        told = [f"\n  {_listed(rows, 1)}: {why}" for why, rows in list(by_reason.items())[:SHOWN]]
        more = f"\n  and {len(by_reason) - SHOWN} other reasons" if len(by_reason) > SHOWN else ""
        message = _rows(len(reasons), "cannot be used", "cannot be used") + "".join(told) + more
        cure = "mend the rows, or drop them with data.allow: [malformed]"
        yield Finding("malformed", "error", tuple(reasons), message, cure)


def leaks(given: Mapping[str, Sequence[Record]]) -> Iterator[Finding]:
    """Rows of one of the user's own files whose twin stands in another of them."""
    first: dict[str, tuple[str, str]] = {}
    rows: dict[str, None] = {}
    for name, records in given.items():
        for record in records:
            side, where = first.setdefault(twin_key(record.content), (name, record.where))
            if side != name:
                rows |= dict.fromkeys((where, record.where))
    if rows:
        has = _rows(len(rows), "stands", "stand")
        message = f"{has} in more than one of the files for train, validation and test"
        yield Finding("leak", "error", tuple(rows), message, "take them out of one side, or data.allow: [leak]")


def duplicates(records: Iterable[Record]) -> Iterator[Finding]:
    """Rows with the same input: repeated with the same answer, or contradicting each other."""
    same: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        same[twin_key(record.content)].append(record)
    repeated: list[str] = []
    contradicting: list[str] = []
    for twins in same.values():
        if len(twins) > 1:
            answers = {parts(twin.content)[1] for twin in twins}
            (repeated if len(answers) == 1 else contradicting).extend(twin.where for twin in twins)
    if repeated:
        message = f"{len(repeated)} rows are repeated; twins are kept on the same side of the split"
        yield Finding("duplicate", "warning", tuple(repeated), message, "keep one of each unless the weight is meant")
    if contradicting:
        message = f"{len(contradicting)} rows have the same input as another row, and a different answer"
        yield Finding("contradiction", "warning", tuple(contradicting), message, "decide which answer is right")


def straddling(splits: Splits) -> Iterator[Finding]:
    """Rows left out because their twins stand on another side of the split."""
    if splits.left_out:
        rows = tuple(record.where for record in splits.left_out)
        were = _rows(len(rows), "was", "were")
        message = f"{were} left out: a row with the same input stands in a group on another side"
        yield Finding("duplicate", "warning", rows, message, "put rows with the same input into the same group")


def too_long(lengths: Mapping[str, int], limit: int, truncation: str) -> Iterator[Finding]:
    """Rows of more tokens than fit; dropped where the recipe says so."""
    if not lengths:
        return
    longest = max(lengths.values())
    message = f"{_rows(len(lengths), 'has', 'have')} more than {limit} tokens (the longest {longest})"
    if truncation == "drop":
        cure = "raise data.max_length, as far as the model allows, or shorten them"
        yield Finding("too_long", "note", tuple(lengths), message + "; dropped", cure)
    else:
        cure = (
            "raise data.max_length, as far as the model allows, shorten them, or drop them with data.truncation: drop"
        )
        yield Finding("too_long", "error", tuple(lengths), message, cure)


def no_trained_token(rows: Sequence[str]) -> Iterator[Finding]:
    """Rows in which nothing would be learnt."""
    if rows:
        cure = "give them an answer with a weight above 0, or drop them with data.allow: [no_trained_token]"
        message = f"{_rows(len(rows), 'has', 'have')} no trained token"
        yield Finding("no_trained_token", "error", tuple(rows), message, cure)


def refuse(findings: Iterable[Finding], allow: Sequence[str]) -> None:
    """Raise DataError with every error among the findings that the recipe does not allow."""
    errors = [finding for finding in findings if finding.severity == "error" and finding.check not in allow]
    if errors:
        raise DataError("\n".join(f"{finding.check}: {finding}" for finding in errors))
