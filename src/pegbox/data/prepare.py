"""Step 1 of the five: from the recipe's files to split, encoded, trusted rows, and the list of what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pegbox.data import doctor
from pegbox.data.doctor import Finding
from pegbox.data.formats import refuse_idle_roles, to_record
from pegbox.data.records import Example, Record
from pegbox.data.sources import MalformedRow, read
from pegbox.data.splits import SPLITS, Splits, split
from pegbox.errors import DataError
from pegbox.recipe import Recipe


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


def prepare(recipe: Recipe, task: Encoder, max_length: int, vocabulary: int | None = None) -> Prepared:
    """Read, check, split and encode. Nothing is trained on before `doctor.refuse` has seen the findings.

    `max_length` in tokens; `vocabulary`: how many token ids the model knows (None: not checked). Raises DataError with
    every error among the findings that the recipe does not allow.
    """
    data = recipe.data
    refuse_idle_roles(recipe.task.kind, data.columns)
    unread: dict[str, str] = {}
    files = {name: value for name in SPLITS if not isinstance(value := getattr(data, name), float)}
    records = {name: list(read_records(value, recipe, unread)) for name, value in files.items()}
    everything = [record for given in records.values() for record in given]
    if not everything:
        message = "\n".join(f"{finding.check}: {finding}" for finding in doctor.malformed(unread))
        raise DataError(message or "no rows", where=", ".join(files["train"]))
    task.observe(everything)
    encoded = _Encoded(max_length, vocabulary, refused=unread)
    kept = {name: [record for record in given if encoded.take(record, task)] for name, given in records.items()}
    findings = [
        *doctor.malformed(encoded.refused),
        *doctor.leaks(records),
        *doctor.duplicates(everything),
        *doctor.too_long(encoded.lengths, max_length, data.truncation),
        *doctor.no_trained_token(encoded.untrained),
    ]
    doctor.refuse(findings, data.allow)
    if bare := [name for name, rows in kept.items() if not rows]:
        set_aside = "\n".join(map(str, findings)) or "no rows"
        raise DataError(f"no row is left of {', '.join(files[bare[0]])}\n{set_aside}", where=f"data.{bare[0]}")
    shares = {name: value for name in ("validation", "test") if isinstance(value := getattr(data, name), float)}
    splits = split(kept.pop("train"), kept, shares, recipe.seed)
    return Prepared(
        splits,
        encoded.of(splits.train),
        encoded.of(splits.validation),
        (*findings, *doctor.straddling(splits)),
    )


@dataclass
class _Encoded:
    """The examples of the records that can be learnt, and by name those that cannot."""

    limit: int
    vocabulary: int | None
    refused: dict[str, str]
    lengths: dict[str, int] = field(default_factory=dict)
    untrained: list[str] = field(default_factory=list)
    examples: dict[str, Example] = field(default_factory=dict)

    def take(self, record: Record, task: Encoder) -> bool:
        """Encode a record; False, and its reason noted, where it must be set aside."""
        try:
            example = task.encode(record)
        except ValueError as error:
            self.refused[record.where] = str(error)
            return False
        highest = max(example.input_ids, default=0)
        if len(example) > self.limit:
            self.lengths[record.where] = len(example)
        elif example.weight == 0:
            self.untrained.append(record.where)
        elif self.vocabulary is not None and highest >= self.vocabulary:
            self.refused[record.where] = f"has the token {highest}, and the model knows {self.vocabulary} tokens"
        else:
            self.examples[record.where] = example
            return True
        return False

    def of(self, records: Sequence[Record]) -> tuple[Example, ...]:
        """The examples of records, in order."""
        return tuple(self.examples[record.where] for record in records)
