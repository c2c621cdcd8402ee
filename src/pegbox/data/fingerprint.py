"""The name under which prepared rows are kept: a hash of everything that changes them.

The bytes and names of the files, every option that bears on rows, the tokenizer with its template and stop tokens, the
task, and the code that prepares: its own files and the versions of the packages it stands on. Change one, and the rows
are prepared anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pegbox import samples
from pegbox.recipe import Recipe, own_files
from pegbox.recipe.sources import HubSource, QuerySource, SampleSource, Source

PACKAGES = ("tokenizers", "transformers", "jinja2", "pydantic", "numpy", "pyarrow", "scikit-learn", "ftfy")
EXTRAS = ("py3langid", "rdflib", "datasets")  # where they are installed
CODE = ("data", "tasks", "recipe")  # the rooms whose code prepares


def sources_of(recipe: Recipe) -> list[Source]:
    """Everything that rows are read from, in the recipe's order."""
    return [*given_of(recipe), *(recipe.data.benchmarks or ())]


def given_of(recipe: Recipe) -> list[Source]:
    """The sources of train, validation and test, in the order in which they are read."""
    return [source for sources in recipe.data.given.values() for source in sources]


def files_of(sources: Iterable[Source]) -> list[str]:
    """The files of the sources, each once: those of a folder in order; none of a dataset on the hub.

    That of a sample is made where it is not there. Raises RecipeError where it cannot be.
    """
    found: dict[str, None] = {}
    for source in sources:
        if isinstance(source, SampleSource):
            found[str(samples.path_of(source.name))] = None
            continue
        path = Path(source.path)
        if path.is_dir():
            found |= dict.fromkeys(str(file) for file in sorted(path.rglob("*")) if file.is_file())
        elif not isinstance(source, HubSource):
            found[source.path] = None
            if isinstance(source, QuerySource) and os.path.exists(log := f"{source.path}-wal"):
                found[log] = None  # SQLite's rows that are not in the database's own file yet
    return list(found)


def belongs(file: str, source: Source) -> bool:
    """Whether a file is a source's own, or lies in its folder."""
    if isinstance(source, SampleSource):
        return samples.belongs(file, source.name)
    return Path(source.path) in (Path(file), *Path(file).parents)


def fingerprint(recipe: Recipe, **encoding: Any) -> str:
    """The name, 32 hex digits. `encoding`: what else decides how a record becomes tokens, as JSON can write it."""
    sources = sources_of(recipe)
    remote = any(isinstance(source, HubSource) and not Path(source.path).is_dir() for source in sources)
    known = {
        "files": {name: _digest(Path(name)) for name in (*files_of(sources), *own_files(recipe))},
        "data": recipe.data.model_dump(mode="json"),
        "task": recipe.task.model_dump(mode="json"),
        "seed": recipe.seed,
        "code": _code(),
        "remote": secrets.token_hex() if remote else "",  # what the hub holds now may not be what it holds next time
        **encoding,
    }
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:32]


def _digest(path: Path) -> str:
    """SHA-256 of a file; empty where it cannot be read, which reading its rows will tell."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _code() -> str:
    house = Path(__file__).parents[1]
    digest = hashlib.sha256(json.dumps({name: _version(name) for name in (*PACKAGES, *EXTRAS)}).encode())
    for room in CODE:
        for file in sorted((house / room).rglob("*.py")):
            digest.update(f"{file.relative_to(house)}\0".encode() + file.read_bytes())
    return digest.hexdigest()
