"""`pegbox check --fix`: a cleaned copy of the rows and a list of every change. What the user gave is never touched.

Left out are rows that cannot be used, are empty or teach nothing, later ones of exact twins with the same answer, and
rows of train that leak into the user's own validation or test. Mended are damaged letters and control characters; with
`redact` secrets and personal data are replaced by their kind. What takes a person to decide (contradictions, doubtful
labels, near twins within train, rows that are too long) stays as it is.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pegbox.data.doctor import personal, secrets
from pegbox.data.doctor.damage import mend
from pegbox.data.doctor.findings import Finding
from pegbox.data.formats import to_record
from pegbox.data.records import Row
from pegbox.data.sources import MalformedRow, read
from pegbox.data.splits import parts, twin_key
from pegbox.errors import RecipeError
from pegbox.recipe import Recipe
from pegbox.recipe.sources import Source

CHANGES = "changes.jsonl"
HOPELESS = ("malformed", "no_trained_token", "empty", "filtered")  # findings whose rows cannot be kept

Change = dict[str, Any]


def fix(recipe: Recipe, findings: Iterable[Finding], out: Path, *, redact: bool) -> dict[str, Any]:
    """Write each split's rows to `out` (new or empty) as JSONL, and `changes.jsonl`.

    `findings`: those of the recipe's rows. The recipe's columns and options hold for the copy. Returns the files by
    their split and how often each change was made. Raises RecipeError where `out` is not empty.
    """
    refuse_used(out)
    out.mkdir(parents=True, exist_ok=True)
    fixer = _Fixer(recipe, findings, redact)
    files: dict[str, list[str]] = {}
    with (out / CHANGES).open("x", encoding="utf-8") as changes:
        for split, sources in recipe.data.given.items():
            names = [f"{split}.jsonl"] if len(sources) == 1 else [f"{split}-{i + 1}.jsonl" for i in range(len(sources))]
            files[split] = [str(out / name) for name in names]
            for source, name in zip(sources, names, strict=True):
                with (out / name).open("x", encoding="utf-8") as file:
                    for values, change in fixer.rows(source, split):
                        if values is not None:
                            file.write(json.dumps(values, ensure_ascii=False) + "\n")
                        if change:
                            changes.write(json.dumps(change, ensure_ascii=False) + "\n")
    return {"files": files, "changes": dict(fixer.counts), "list": str(out / CHANGES)}


def refuse_used(out: Path) -> None:
    """Raise RecipeError where something is there already; asked before any work is done."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
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
        self._seen: dict[tuple[str, str], str] = {}  # what is asked and answered -> the first row that does
        self.counts: Counter[str] = Counter()

    def rows(self, source: Source, split: str) -> Iterator[tuple[dict[str, Any] | None, Change | None]]:
        """The values of each row as they shall be (None: left out), and what was changed."""
        for row in read([source]):
            why = self._why_not(row, split)
            if why is not None or isinstance(row, MalformedRow):
                self.counts["left out"] += 1
                yield None, {"row": row.where, "change": "left out", "why": why}
                continue
            values, done = self._mended(row.values)
            self.counts.update(done)
            yield (
                values,
                {"row": row.where, "change": ", ".join(done), "columns": self._differing(row.values, values)}
                if done
                else None,
            )

    def _why_not(self, row: Row | MalformedRow, split: str) -> str | None:
        if isinstance(row, MalformedRow):
            return row.why
        if row.where in self._bad:
            return self._bad[row.where]
        if split == "train" and row.where in self._leaks:
            return "leak"
        data = self._recipe.data
        record = to_record(row, self._recipe.task.kind, data.columns, data.instruction, data.format)
        key = (twin_key(record.content), parts(record.content)[1])
        first = self._seen.setdefault(key, row.where)
        return None if first == row.where else f"duplicate of {first}"

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
        return personal.redact(secrets.redact(text)) if self._redact else text

    @staticmethod
    def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
        return [column for column, value in after.items() if value != before[column]]


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    """The value with every text in it changed, however deep it stands; keys stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _each_text(inner, change) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_each_text(inner, change) for inner in value]
    return value
