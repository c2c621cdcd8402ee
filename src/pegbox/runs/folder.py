"""One run, one folder. Its files are listed in README.md, 'The run folder'; a file is replaced whole or not at all."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pegbox.errors import RecipeError
from pegbox.runs import durable

log = logging.getLogger("pegbox")

RECIPE = "recipe.yaml"
DRAFT = ".beginning"  # where the first files of a run lie until all are written
LOGS = ("metrics.jsonl", "timing.jsonl", "events.jsonl")


class RunFolder:
    """The paths of a run, and how its files are written and read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """A new folder, or an empty one: nothing of a user's is overwritten."""
        cls.refuse_used(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _closed(path, str(error.strerror)) from None
        return cls(path)

    @classmethod
    @contextmanager
    def begin(cls, path: Path) -> Iterator[RunFolder]:
        """A folder to write the first files of a run into: at the end all of them are in `path`, or it is no run yet."""
        folder, draft = cls.create(path), cls(path / DRAFT)
        with durable.explained(path):
            shutil.rmtree(draft.path, ignore_errors=True)
            draft.path.mkdir()
        yield draft
        with durable.explained(path):
            for file in sorted(draft.path.iterdir(), key=lambda file: file.name == RECIPE):
                durable.place(file, folder.path / file.name)
            draft.path.rmdir()

    @staticmethod
    def refuse_used(path: Path) -> None:
        """Raise RecipeError where something is there already, or nothing can be; asked before any work is done."""
        there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        begun = (path / DRAFT).is_dir() and not (path / RECIPE).exists()  # killed before it was a run
        if there == path and (not path.is_dir() or any(path.iterdir())) and not begun:
            cure = "give another --run-dir, or go on with `pegbox train --resume`"
            raise RecipeError("the run folder is not empty", where=str(path), cure=cure)
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise _closed(path, "nothing may be written there" if there.is_dir() else f"{there} is a file")

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The folder of an earlier run. Raises RecipeError where there is none."""
        if not (path / RECIPE).is_file():
            cure = "give the folder that `pegbox train` made"
            raise RecipeError("not a run folder: it has no recipe.yaml", where=str(path), cure=cure)
        return cls(path)

    @property
    def model(self) -> Path:
        """The chosen model in the hub's layout."""
        return self.path / "model"

    @property
    def checkpoints(self) -> Path:
        """The folder of `step-N` folders."""
        return self.path / "checkpoints"

    def write(self, name: str, text: str) -> Path:
        """Write a file whole: beside its place first, then moved there. Raises TrainingError where the disk is full."""
        durable.replace(self.path / name, [text.encode()])
        return self.path / name

    def write_json(self, name: str, value: Any) -> Path:
        """Write one JSON document."""
        return self.write(name, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def write_lines(self, name: str, rows: Iterable[Mapping[str, Any]]) -> Path:
        """Write one JSON object a line."""
        return self.write(name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """Add one line to a log. Raises TrainingError where the disk is full."""
        with durable.explained(self.path / name), (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def tell(self, step: int, event: str, **facts: Any) -> None:
        """Add to `events.jsonl` what happened on the way, beside the updates themselves."""
        self.append("events.jsonl", {"step": step, "event": event, **facts})

    def read_json(self, name: str) -> Any:
        """One JSON document. Raises RecipeError where the run has not come that far."""
        path = self.path / name
        if not path.is_file():
            cure = f"finish the run with `pegbox train --resume {self.path}`"
            raise RecipeError(f"the run has no {name}", where=str(self.path), cure=cure)
        return json.loads(path.read_text(encoding="utf-8"))

    def read_lines(self, name: str) -> Iterator[dict[str, Any]]:
        """The objects of a log; none where it does not exist yet. A last line without an end was never written whole."""
        path = self.path / name
        if path.is_file():
            with path.open(encoding="utf-8") as file:
                yield from (json.loads(line) for line in file if line.endswith("\n"))

    def sync_logs(self) -> dict[str, int]:
        """Let the disk hold the logs as they are; how many bytes each has."""
        files = [self.path / name for name in LOGS if (self.path / name).is_file()]
        with durable.explained(self.path):
            for file in files:
                durable.sync(file)
        return {file.name: file.stat().st_size for file in files}

    def truncate_logs(self, sizes: Mapping[str, int]) -> None:
        """Take away what the logs say of later updates, so that a run that goes on writes each line once."""
        for name in LOGS:
            path, size = self.path / name, sizes.get(name, 0)
            there = path.stat().st_size if path.is_file() else 0
            if there < size:
                log.warning("%s has lost %d bytes since the checkpoint was written", name, size - there)
            elif path.is_file():
                os.truncate(path, size)


def _closed(path: Path, why: str) -> RecipeError:
    return RecipeError(f"no folder can be made there: {why}", where=str(path), cure="give another, with --run-dir")
