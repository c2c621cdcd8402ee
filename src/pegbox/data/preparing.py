"""How rows are prepared: twice through all of them, never all in memory.

First each is read, understood, examined and written down; then each is encoded, and that is written down. What is kept
of a row meanwhile is a few numbers: hashes, its place in the split, a MinHash signature. Rows that are too long are made
to fit here, or set aside; every row that does not arrive is named in a finding.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pegbox import progress
from pegbox.data.doctor import rows as doctor
from pegbox.data.doctor.checks import Examination
from pegbox.data.doctor.findings import Finding, refuse
from pegbox.data.doctor.shape import lengths
from pegbox.data.fingerprint import given_of
from pegbox.data.foreseen import blocks
from pegbox.data.reader import Reader
from pegbox.data.records import Content, Example, Record
from pegbox.data.render import Renderer
from pegbox.data.shorten import cut, pieces
from pegbox.data.sizes import Tally
from pegbox.data.splits import LEFT_OUT, NONE, SPLITS, Traits, place, refuse_empty
from pegbox.data.store import Writer, dump_example, dump_record, load_record
from pegbox.data.twins import MANY, near_twins
from pegbox.errors import DataError
from pegbox.recipe import Recipe

RECORDS, EXAMPLES, ROWS, SIZES, FOUND = "records.bin", "examples.bin", "rows.npz", "sizes.npz", "found.json"


class Encoder(Protocol):
    """What is needed of a task here."""

    renderer: Renderer

    @property
    def fingerprint(self) -> Any:
        """What decides how it encodes, beside the recipe, as JSON can write it."""

    def observe(self, records: Sequence[Record]) -> None:
        """See all records once before any is encoded."""

    def encode(self, record: Record) -> Example:
        """The record in tokens; ValueError where it cannot be learnt."""


class Preparation:
    """The rows of one recipe on their way; `build` fills a folder with them. `observed`: the task has seen the records."""

    def __init__(
        self, recipe: Recipe, task: Encoder, limit: int, vocabulary: int | None = None, written: int | None = None
    ) -> None:
        self.recipe, self.task, self.limit, self.vocabulary, self.written = recipe, task, limit, vocabulary, written
        self.observed = False
        self.reader = Reader(recipe)
        self.unread = self.reader.unread
        self.untrained: list[str] = []
        self.lengths: dict[str, int] = {}  # of rows that stay too long
        self.lost: dict[str, int] = {}  # tokens cut from an input
        self.made: dict[str, int] = {}  # pieces of a row that was split
        self.kept = array("q")  # numbers of the records that an example was made of
        self.sizes = Tally()  # of the examples
        self.source = array("q")  # of each example, by its number in the recipe
        self.traits = Traits(recipe.seed)

    def build(self, folder: Path) -> None:
        """All of it. Raises DataError with every error that the recipe does not allow."""
        folder.chmod(0o700)  # it holds a copy of the user's rows
        self.examined = Examination(self.recipe)
        with (
            Writer(folder / RECORDS, dump_record) as self.records,
            Writer(folder / EXAMPLES, dump_example) as self.examples,
        ):
            origin = self._read()
            read = len(origin)
            self._encode(origin)
            findings, rows = self._place()
        np.savez(folder / ROWS, allow_pickle=False, **rows)
        np.savez(folder / SIZES, allow_pickle=False, **self.sizes.columns())
        found = {"read": read, "findings": [finding.to_json() for finding in findings], "shape": self._shape()}
        (folder / FOUND).write_text(json.dumps(found), encoding="utf-8")

    # ---- the first time ----------------------------------------------------------------------------------------------

    def _read(self) -> array[int]:
        """Write down and examine every record; the number of each one's source in the recipe."""
        origin = array("q")
        given = given_of(self.recipe)
        with progress.bar("rows read and examined", None) as bar:
            for number, record in self.reader.records(given):
                self.records.append(record)
                self.examined.see(record)
                origin.append(number)
                bar.advance()
        if not origin:
            found = [*doctor.malformed(self.unread), *doctor.filtered(self.reader.filtered)]
            message = "\n".join(f"{finding.check}: {finding}" for finding in found)
            files = ", ".join(source.path for source in self.recipe.data.train)
            raise DataError(message or "no rows", where=files)
        self.task.observe(self.records.stored(load_record))
        self.observed = True
        return origin

    # ---- the second time ---------------------------------------------------------------------------------------------

    def _encode(self, origin: array[int]) -> None:
        """Write down the examples of the records that can be learnt; note why the others cannot."""
        records = self.records.stored(load_record)
        with progress.bar("rows in tokens", len(records), shown=len(records) >= MANY) as bar:
            for number, record in enumerate(self._foreseen(records)):
                fitted = self._fitted(record)
                if fitted and not any(example.weight for _, example in fitted):
                    self.untrained.append(record.where)
                for fitting, example in fitted:
                    if example.weight == 0:  # a piece may hold nothing that is learnt where another does
                        continue
                    self.kept.append(number if fitting is record else self.records.append(fitting))
                    self.examples.append(example)
                    self.traits.see(fitting)
                    self.sizes.see(example)
                    self.source.append(origin[number])
                bar.advance()

    def _foreseen(self, records: Sequence[Record]) -> Iterator[Record]:
        """The records, the tokenizer having been asked for a block of them before its first comes."""
        for block in blocks(records):
            self.task.renderer.foresee(record.content for record in block)
            yield from block
        self.task.renderer.foresee(())

    def _fitted(self, record: Record) -> list[tuple[Record, Example]]:
        """The record and its example; several where it is split; none, and the reason noted, where it is set aside."""
        try:
            example = self._encoded(record)
        except ValueError as error:
            self.unread[record.where] = str(error)
            return []
        if example.longest <= self.limit:
            return [(record, example)]
        if made := self._shortened(record, len(example)):
            return made
        self.lengths[record.where] = example.longest
        return []

    def _encoded(self, record: Record) -> Example:
        example = self.task.encode(record)
        highest = max(example.input_ids, default=0)
        if self.vocabulary is not None and highest >= self.vocabulary:
            raise ValueError(f"has the token {highest}, and the model knows {self.vocabulary} tokens")
        if self.written is not None and example.written > self.written and example.longest <= self.limit:
            raise ValueError(f"has a target of {example.written} tokens, and the model writes {self.written} at most")
        return example

    def _shortened(self, record: Record, length: int) -> list[tuple[Record, Example]]:
        """The record made to fit as the recipe wants it; empty where it cannot be."""

        def fits(content: Content) -> bool:
            return self.task.encode(replace(record, content=content)).longest <= self.limit

        try:
            if self.recipe.data.truncation == "cut" and (content := cut(record.content, fits)) is not None:
                record = replace(record, content=content)
                self.lost[record.where] = length - len(example := self._encoded(record))
                return [(record, example)]
            if self.recipe.data.truncation == "split" and (found := pieces(record.content, fits)):
                self.made[record.where] = len(found)
                group = record.group or record.where  # the pieces of a row stay on one side
                named = [
                    replace(record, where=f"{record.where}#{i}", content=piece, group=group)
                    for i, piece in enumerate(found, 1)
                ]
                return [(piece, self._encoded(piece)) for piece in named]
        except ValueError:  # a shorter form that the task cannot encode is none
            return []
        return []

    # ---- where each belongs ------------------------------------------------------------------------------------------

    def _place(self) -> tuple[list[Finding], dict[str, NDArray[np.int64]]]:
        """The findings, and the numbers of the examples of each split."""
        data, kept = self.recipe.data, self.records.stored(load_record).take(np.array(self.kept, np.int64))
        source = np.array(self.source, np.int64)
        file = np.repeat(np.arange(len(data.given)), [len(given) for given in data.given.values()])[source]

        def where(row: int) -> str:
            return kept[int(row)].where

        twins = near_twins(kept, self.traits)
        near = twins.pairs
        findings = [
            *doctor.malformed(self.unread),
            *doctor.leaks(self.traits, file.astype(np.int8), near, where),
            *doctor.duplicates(self.traits, where),
            *doctor.too_long(self.lengths, self.limit, data.truncation),
            *doctor.no_trained_token(self.untrained),
            *doctor.filtered(self.reader.filtered),
            *doctor.remarked(self.reader.remarks),
            *doctor.shortened(self.lost, self.made, self.limit),
        ]
        examined = list(self.examined.findings())
        refuse([*findings, *examined], data.allow)
        self._refuse_bare(file, findings)
        sides = np.array([SPLITS.index(name) for name in data.given], np.int8)[file]
        mine = int((file == 0).sum())  # those of train come first
        joined = near[(near < mine).all(axis=1)] if "near_duplicate" not in data.allow else NONE
        sides[:mine] = place(self.traits, data.shares, joined, mine)
        rows = {name: np.flatnonzero(sides == side) for side, name in enumerate(SPLITS)}
        refuse_empty(rows)
        rows["train"] = self._mixed(rows["train"], source)
        if not len(rows["train"]):
            raise DataError("the weights of its sources leave train no row", where="data.train", cure="raise them")
        findings += doctor.near_duplicates(near, sides, where, twins.cut_short)
        findings += doctor.straddling(sides, where)
        findings += examined
        return findings, rows | {"left_out": np.flatnonzero(sides == LEFT_OUT), "kept": np.array(self.kept, np.int64)}

    def _shape(self) -> dict[str, Any]:
        """What the rows look like, their lengths in tokens among it."""
        tokens = np.append(self.sizes.columns()["tokens"], np.array([*self.lengths.values()], np.int64))
        return {**self.examined.shape(), "formats": self.reader.formats, "tokens": lengths(tokens, self.limit)}

    def _refuse_bare(self, file: NDArray[np.int64], findings: Sequence[Finding]) -> None:
        """Raise DataError where no row is left of a split's own files."""
        for number, (name, sources) in enumerate(self.recipe.data.given.items()):
            if not (file == number).any():
                told = "\n".join(map(str, findings)) or "no rows"
                files = ", ".join(source.path for source in sources)
                raise DataError(f"no row is left of {files}\n{told}", where=f"data.{name}")

    def _mixed(self, train: NDArray[np.int64], source: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of an epoch by the weights of their sources: as often as the whole part says, and a share of them
        for the rest, chosen by a hash of what they ask."""
        weight = np.array([given.weight for given in self.recipe.data.train])[source[train]]
        drawn = (self.traits.twin[train] * np.uint64(0x9E3779B97F4A7C15)).astype(np.float64) / 2.0**64
        times = np.floor(weight).astype(np.int64) + (drawn < weight % 1)
        return np.repeat(train, times)
