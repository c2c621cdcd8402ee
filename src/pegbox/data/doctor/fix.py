"""`pegbox check --fix`: a cleaned copy of the rows and a list of every change. What the user gave is never touched.

Left out are rows that cannot be used, are empty or teach nothing, rows that say to the letter what an earlier one says, and
rows of train that leak into the user's own validation or test. Mended are damaged letters and control characters; with
`redact` secrets and personal data are replaced by their kind. What takes a person to decide (contradictions, doubtful
labels, near twins within train, rows that are too long) stays as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from pegbox.data.doctor.damage import mend
from pegbox.data.doctor.findings import Finding
from pegbox.data.doctor.redaction import redact
from pegbox.data.fingerprint import given_of
from pegbox.data.formats import to_record
from pegbox.data.records import Row
from pegbox.data.sources import MalformedRow, numbered
from pegbox.data.store import dump_record
from pegbox.errors import RecipeError
from pegbox.recipe import Recipe

CHANGES = "changes.jsonl"
HOPELESS = ("malformed", "no_trained_token", "empty", "filtered")  # findings whose rows cannot be kept

Change = dict[str, Any]


def fix(recipe: Recipe, findings: Iterable[Finding], out: Path, *, redact: bool) -> dict[str, Any]:
    """Write each split's rows to `out` (see `refuse_used`) as JSONL, and `changes.jsonl`.

    `findings`: those of the recipe's rows. The recipe's columns and options hold for the copy. Returns the files by
    their split and how often each change was made.
    """
    fixer = _Fixer(recipe, findings, redact)
    files = {split: _names(split, len(sources), out) for split, sources in recipe.data.given.items()}
    with (out / CHANGES).open("x", encoding="utf-8") as changes, ExitStack() as stack:
        names = [name for split in files.values() for name in split]
        writers = [stack.enter_context(Path(name).open("x", encoding="utf-8")) for name in names]
        for number, values, change in fixer.rows():
            if values is not None:
                writers[number].write(json.dumps(values, ensure_ascii=False) + "\n")
            if change:
                changes.write(json.dumps(change, ensure_ascii=False) + "\n")
    return {"files": files, "changes": dict(fixer.counts), "list": str(out / CHANGES)}


def _names(split: str, count: int, out: Path) -> list[str]:
    """The files of a split's sources."""
    return [str(out / (f"{split}.jsonl" if count == 1 else f"{split}-{i + 1}.jsonl")) for i in range(count)]


def refuse_used(out: Path) -> None:
    """Make the folder. Raises RecipeError where it holds something or cannot be made; asked before any work is done."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        used = any(out.iterdir())
    except OSError as error:
        what = f"the folder for the cleaned copy cannot be made: {error.strerror}"
        raise RecipeError(what, where=str(out), cure="give another --fix") from None
    if used:
        raise RecipeError("the folder for the cleaned copy is not empty", where=str(out), cure="give another --fix")


class _Fixer:
    def __init__(self, recipe: Recipe, findings: Iterable[Finding], redact: bool) -> None:
        self._recipe, self._redact = recipe, redact
        self._bad: dict[str, str] = {}
        self._leaks: set[str] = set()
        for finding in findings:
            if finding.check in HOPELESS:
                self._bad |= dict.fromkeys(finding.rows, finding.check)
            elif finding.check == "leak":
                self._leaks |= set(finding.rows)
        self._train = len(recipe.data.train)  # sources; they come first
        self._seen: dict[bytes, str] = {}  # a hash of a record -> the first row that says so
        self.counts: Counter[str] = Counter()

    def rows(self) -> Iterator[tuple[int, dict[str, Any] | None, Change | None]]:
        """Of each row the number of its source, its values as they shall be (None: left out), and what was changed."""
        for number, row in numbered(given_of(self._recipe)):
            why = self._why_not(row, number)
            if why is not None or isinstance(row, MalformedRow):
                self.counts["left out"] += 1
                yield number, None, {"row": row.where, "change": "left out", "why": why}
                continue
            values, done = self._mended(row.values)
            self.counts.update(done)
            columns = [column for column, value in values.items() if value != row.values[column]]
            yield number, values, {"row": row.where, "change": ", ".join(done), "columns": columns} if done else None

    def _why_not(self, row: Row | MalformedRow, number: int) -> str | None:
        if isinstance(row, MalformedRow):
            return row.why
        data = self._recipe.data
        try:
            record = to_record(row, self._recipe.task.kind, data.columns, data.instruction, data.format)
        except ValueError as error:
            return str(error)
        if row.where in self._bad:
            return self._bad[row.where]
        if number < self._train and row.where in self._leaks:
            return "leak"
        said = hashlib.blake2b(dump_record(replace(record, where="")), digest_size=16).digest()
        first = self._seen.setdefault(said, row.where)
        return None if first == row.where else f"the same as {first}"

    def _mended(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The values with their texts mended, and what was done to them."""
        done, kept = [], dict(values)
        for name, change in (("mended", mend), ("redacted", self._hidden)):
            changed = {column: _each_text(value, change) for column, value in kept.items()}
            if changed != kept:
                done.append(name)
            kept = changed
        return kept, done

    def _hidden(self, text: str) -> str:
        return redact(text) if self._redact else text


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    """The value with every text in it changed, however deep it stands; keys stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _each_text(inner, change) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_each_text(inner, change) for inner in value]
    return value
