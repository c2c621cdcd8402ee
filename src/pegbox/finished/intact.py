"""The half of `pegbox verify` that hashes can tell: are the files of a run, its rows and its models what they were?

A check takes the subject and returns what it found. The receipt is what all is held against.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, TypeVar

from pegbox.data.fingerprint import files_of, given_of, sources_of
from pegbox.data.formats import to_record
from pegbox.data.records import Record, Row
from pegbox.data.sources import read
from pegbox.errors import PegboxError, RecipeError
from pegbox.finished.continuing import resolve
from pegbox.finished.run import Run
from pegbox.runs import checkpoint
from pegbox.runs.folder import RunFolder

Line = TypeVar("Line")
NAMED = 3  # files, rows or numbers in a message
PUT_BACK = "put back the files that the run wrote, or make the run again from its recipe"


@dataclass(frozen=True)
class Finding:
    """What a check found. `ok`: True holds, False is another than it was, None cannot be told."""

    ok: bool | None
    message: str
    cure: str | None = None


class Subject:
    """The run that is looked at, what was found so far, and what the checks share. A file is hashed once."""

    def __init__(self, folder: RunFolder, told: dict[str, Any], rows: int) -> None:
        self.folder, self.receipt, self.rows = folder, told, rows
        self.found: dict[str, Finding] = {}
        self._digests: dict[Path, str] = {}

    @cached_property
    def run(self) -> Run:
        """The run with its recipe and its models. Raises RecipeError where the recipe cannot be read."""
        return Run(self.folder.path)

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """`evaluation.json` as it stands there."""
        kept: dict[str, Any] = self.folder.read_json("evaluation.json")
        return kept

    @cached_property
    def lines(self) -> list[dict[str, Any]]:
        """`predictions.jsonl` as it stands there."""
        return list(self.folder.read_lines("predictions.jsonl"))

    @cached_property
    def records(self) -> dict[str, Record] | None:
        """The rows that were set aside for the test, by their names, in order; None where their files are not as they were.

        A row that is set aside and stands in no file is left out.
        """
        recipe = self.run.recipe
        sources = recipe.data.train if isinstance(recipe.data.test, float) else recipe.data.test
        if any(self.faults({name: self.receipt["data"].get(name, "") for name in files_of(sources)}).values()):
            return None
        names = [line["id"] for line in self.folder.read_lines("splits.jsonl") if line["split"] == "test"]
        findings = self.folder.read_json("data.json")["findings"]
        changed = {row for found in findings if found["check"] in ("cut", "split") for row in found["rows"]}
        if changed.intersection(name.partition("#")[0] for name in names):  # they stand otherwise in their files
            return None
        wanted = set(names)
        rows = {row.where: row for row in read(given_of(recipe)) if isinstance(row, Row) and row.where in wanted}
        task, data = recipe.task.kind, recipe.data
        return {
            name: to_record(rows[name], task, data.columns, data.instruction, data.format)
            for name in names
            if name in rows
        }

    def faults(self, known: Mapping[str, str], folder: Path = Path()) -> dict[str, list[str]]:
        """The names of the files that have `changed`, and of those that are `missing`."""
        there = [name for name in known if (folder / name).is_file()]
        changed = [name for name in there if self._digest(folder / name) != known[name]]
        return {"changed": changed, "missing": [name for name in known if name not in there]}

    def _digest(self, file: Path) -> str:
        if file not in self._digests:
            self._digests[file] = checkpoint.sha256(file)
        return self._digests[file]

    def look(self, name: str, check: Callable[[Subject], Finding]) -> None:
        """Note what a check finds. Where files have changed it may meet anything; where none has, an error is ours."""
        try:
            self.found[name] = check(self)
        except Exception as error:
            if all(finding.ok is not False for finding in self.found.values()):
                raise
            said = error.what if isinstance(error, PegboxError) else f"{type(error).__name__}: {error}"
            self.found[name] = Finding(False, f"cannot be done with the files as they are now: {said}", PUT_BACK)

    def to_json(self) -> dict[str, Any]:
        """All that was found."""
        checks = [{"check": name, **asdict(finding)} for name, finding in self.found.items()]
        ok = all(finding.ok is not False for finding in self.found.values())
        return {"run": str(self.folder.path), "ok": ok, "checks": checks}


def run_files(subject: Subject) -> Finding:
    """The recipe, the logs, the predictions, the evaluation: as they were when the run ended."""
    if "files" not in subject.receipt:
        cure = f"`pegbox train --resume {subject.folder.path}` asks and measures again, and writes them"
        return Finding(None, "the receipt holds no hashes of them", cure)
    known = subject.receipt["files"]
    return _judged(subject.faults(known, subject.folder.path), known)


def data_files(subject: Subject) -> Finding:
    """The user's rows. A file that is not there proves nothing."""
    known = subject.receipt["data"]
    added = [name for name in files_of(sources_of(subject.run.recipe)) if name not in known]  # to a folder
    faults = subject.faults(known) | ({"added": added} if added else {})
    if faults["missing"] and not faults["changed"]:
        cure = "put the rows back where they were"
        return Finding(None, f"cannot be checked, not there: {listed(faults['missing'])}", cure)
    return _judged(faults, known, "put the rows back as they were, or train again on those that there are now")


def model_files(subject: Subject) -> Finding:
    """The tuned model's folder: its files as they were saved, and no other."""
    known, folder = subject.receipt["model_files"], subject.folder.model
    expected = {*known, *(str(parent) for name in known for parent in PurePath(name).parents)}
    there = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    added = sorted(name for name in there if name not in expected)
    return _judged(subject.faults(known, folder) | {"added": added}, known)


def base_model(subject: Subject) -> Finding:
    """The untouched model, where it can be had."""
    known = subject.receipt["model"]["files"]
    try:
        folder = resolve(subject.receipt["model"]["name"]).path
    except RecipeError as error:
        return Finding(None, f"cannot be checked: {error.what}", error.cure)
    return _judged(subject.faults(known, folder), known, "put the model back that the run was made from")


def checkpoints(subject: Subject) -> Finding:
    """Every checkpoint that is kept: whole, and of the run's recipe."""
    folder = subject.folder.checkpoints
    kept = [path.name for path in reversed(checkpoint.by_step(folder))]
    if not kept:
        return Finding(None, "none is kept")
    damaged = [name for name in kept if not checkpoint.verifies(folder / name)]
    recipe = subject.receipt.get("files", {}).get("recipe.yaml")
    known = {recipe, *subject.receipt.get("earlier_recipes", [])}
    whole = [name for name in kept if recipe and name not in damaged]
    other = [name for name in whole if checkpoint.manifest_of(folder / name)["recipe"] not in known]
    cure = "delete them: --resume goes on from a whole one, and the saved model needs none"
    return _judged({"damaged": damaged, "of another recipe": other}, kept, cure)


def _judged(
    faults: Mapping[str, Sequence[str]], known: Sequence[str] | Mapping[str, str], cure: str = PUT_BACK
) -> Finding:
    parts = [f"{what}: {listed(names)}" for what, names in faults.items() if names]
    if parts:
        return Finding(False, "; ".join(parts), cure)
    return Finding(True, "1, as it was" if len(known) == 1 else f"{len(known)}, all as they were")


def evenly(lines: Sequence[Line], count: int) -> list[Line]:
    """So many lines, evenly spaced; all where there are no more."""
    count = min(count, len(lines))
    return [lines[index * len(lines) // count] for index in range(count)]


def listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
