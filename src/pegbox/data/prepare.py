"""Step 1 of the five: from the recipe's files to split, encoded, trusted rows, and the list of what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pegbox.data import doctor
from pegbox.data.doctor import Finding
from pegbox.data.formats import to_record
from pegbox.data.records import Example, Record
from pegbox.data.sources import MalformedRow, read
from pegbox.data.splits import SPLITS, Splits, split
from pegbox.errors import DataError
from pegbox.recipe import Data, Recipe


class Encoder(Protocol):
    """What is needed of a task here."""

    def observe(self, records: Sequence[Record]) -> None:
        """See all records once before any is encoded."""

    def encode(self, record: Record) -> Example:
        """The record in tokens; ValueError where it cannot be learnt."""


@dataclass(frozen=True)
class Prepared:
    """Rows ready to be learnt and asked. The records and examples of a split stand in the same order."""

    splits: Splits
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    findings: tuple[Finding, ...]


def read_records(files: Sequence[str], recipe: Recipe, unread: dict[str, str]) -> Iterator[Record]:
    """The records of the files; a row that cannot be understood goes to `unread` with its reason."""
    for row in read(files):
        if isinstance(row, MalformedRow):
            unread[row.where] = row.why
            continue
        try:
            yield to_record(row, recipe.task.kind, recipe.data.columns, recipe.data.instruction)
        except ValueError as error:
            unread[row.where] = str(error)


def prepare(recipe: Recipe, task: Encoder, max_length: int) -> Prepared:
    """Read, check, split and encode. Nothing is trained on before `doctor.refuse` has seen the findings.

    `max_length` in tokens. Raises DataError with every error among the findings that the recipe does not allow.
    """
    data = recipe.data
    unread: dict[str, str] = {}
    files = {name: value for name in SPLITS if not isinstance(value := getattr(data, name), float)}
    read_files = {name: list(read_records(value, recipe, unread)) for name, value in files.items()}
    findings = [*doctor.malformed(unread), *doctor.leaks(read_files)]
    findings += doctor.duplicates(record for records in read_files.values() for record in records)
    if not any(read_files.values()):
        raise DataError("\n".join(map(str, findings)) or "no rows", where=", ".join(files["train"]))
    task.observe([record for records in read_files.values() for record in records])
    fitted = _fit(read_files, task.encode, max_length, data)
    findings += fitted.findings
    shares = {name: value for name in ("validation", "test") if isinstance(value := getattr(data, name), float)}
    given = {name: records for name, records in fitted.records.items() if name != "train"}
    doctor.refuse(findings, data.allow)
    splits = split(fitted.records["train"], given, shares, recipe.seed)
    findings += doctor.straddling(splits)
    examples = fitted.examples
    return Prepared(
        splits,
        tuple(examples[record.where] for record in splits.train),
        tuple(examples[record.where] for record in splits.validation),
        tuple(findings),
    )


@dataclass(frozen=True)
class _Fitted:
    records: dict[str, list[Record]]
    examples: dict[str, Example]
    findings: list[Finding]


def _fit(read_files: dict[str, list[Record]], encode: Callable[[Record], Example], limit: int, data: Data) -> _Fitted:
    """Encode every record; set aside, by name, those that are too long or have nothing to learn."""
    kept: dict[str, list[Record]] = {}
    examples: dict[str, Example] = {}
    refused: dict[str, str] = {}
    lengths: dict[str, int] = {}
    untrained: list[str] = []
    for name, records in read_files.items():
        kept[name] = []
        for record in records:
            try:
                example = encode(record)
            except ValueError as error:
                refused[record.where] = str(error)
                continue
            if len(example) > limit:
                lengths[record.where] = len(example)
            elif example.weight == 0:
                untrained.append(record.where)
            else:
                examples[record.where] = example
                kept[name].append(record)
    findings = [
        *doctor.malformed(refused),
        *doctor.too_long(lengths, limit, data.truncation),
        *doctor.no_trained_token(untrained),
    ]
    return _Fitted(kept, examples, findings)
