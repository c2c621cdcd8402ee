"""One run, one folder. Its files are listed in README.md, 'The run folder'; a file is replaced whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pegbox.errors import RecipeError


class RunFolder:
    """The paths of a run, and how its files are written and read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """A new folder, or an empty one: nothing of a user's is overwritten."""
        cls.refuse_used(path)
        path.mkdir(parents=True, exist_ok=True)
        return cls(path)

    @staticmethod
    def refuse_used(path: Path) -> None:
        """Raise RecipeError where something is there already; asked before any work is done."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            cure = "give another --run-dir, or go on with `pegbox train --resume`"
            raise RecipeError("the run folder is not empty", where=str(path), cure=cure)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The folder of an earlier run. Raises RecipeError where there is none."""
        if not (path / "recipe.yaml").is_file():
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
        """Write a file whole: beside its place first, then moved there."""
        target, draft = self.path / name, self.path / f".{name}.tmp"
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
        return target

    def write_json(self, name: str, value: Any) -> Path:
        """Write one JSON document."""
        return self.write(name, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def write_lines(self, name: str, rows: Iterable[Mapping[str, Any]]) -> Path:
        """Write one JSON object a line."""
        return self.write(name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """Add one line to a log."""
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def read_json(self, name: str) -> Any:
        """One JSON document. Raises RecipeError where the run has not come that far."""
        path = self.path / name
        if not path.is_file():
            cure = f"finish the run with `pegbox train --resume {self.path}`"
            raise RecipeError(f"the run has no {name}", where=str(self.path), cure=cure)
        return json.loads(path.read_text(encoding="utf-8"))

    def read_lines(self, name: str) -> Iterator[dict[str, Any]]:
        """The objects of a log; none where it does not exist yet."""
        path = self.path / name
        if path.is_file():
            with path.open(encoding="utf-8") as file:
                yield from (json.loads(line) for line in file if line.strip())

    def truncate_logs(self, step: int) -> None:
        """Take away what the logs say of updates after `step`, so that a resumed run writes each line once."""
        for name in ("metrics.jsonl", "timing.jsonl"):
            self.write_lines(name, [row for row in self.read_lines(name) if row["step"] <= step])
