"""Education: exercises of a chosen level and their answers, for a model that fills in the answers of a sheet.

Source: mathematics_dataset 1.0.1, the generators of D. Saxton, E. Grefenstette, F. Hill and P. Kohli, "Analysing
Mathematical Reasoning Abilities of Neural Models", ICLR 2019. Licence: Apache-2.0 (`LICENSE` of its wheel). It holds no
exercises but draws them, so it has to be installed (the extra `samples`) and not only read; that is done in a process
of its own (`exercises.py`).

Eight topics of school: adding and subtracting, multiplying, dividing, the digits of a number, comparing two numbers, and
the k-th biggest, the closest and the order of several. A level is a third of the difficulties that the package draws
from: the longest number of an exercise has 3 digits at the level easy, 6 at hard (the medians).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from pegbox.errors import RecipeError
from pegbox.samples import exercises
from pegbox.samples.sample import Row, Sample

PACKAGE, VERSION = "mathematics-dataset", "1.0.1"
ROWS = 1520  # 190 of each topic


def drawn(level: str, count: int = ROWS) -> list[Row]:
    """Rows of `chat`: an exercise and its answer; always the same ones.

    Raises RecipeError where the package is not installed, or does not work beside what is.
    """
    _refuse_missing(f"sample education-{level}")
    program = subprocess.run(
        [sys.executable, "-P", exercises.__file__, level, str(count)],
        env=os.environ | {"PYTHONHASHSEED": "0"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if program.returncode != 0:
        said = program.stderr.strip().split("\n")[-1] or f"it ended with {program.returncode}"
        cure = "install numpy and sympy in the versions of constraints.txt"
        raise RecipeError(f"{PACKAGE} draws no exercises: {said}", where=f"sample education-{level}", cure=cure)
    return [json.loads(line) for line in program.stdout.splitlines()]


def _refuse_missing(where: str) -> None:
    """Raise RecipeError where the package is missing or of another version, which may draw other exercises."""
    try:
        found = version(PACKAGE)
    except PackageNotFoundError:
        found = "not installed"
    if found != VERSION:
        what = f"the exercises need the package {PACKAGE} {VERSION}; it is {found}"
        raise RecipeError(what, where=where, cure="pip install 'pegbox[samples]'")


def _level(level: str) -> Sample:
    return Sample(
        about=f"an exercise of the level {level} -> its answer",
        task="chat",
        package=f"{PACKAGE}=={VERSION}",
        licence="Apache-2.0",
        attribution="DeepMind Technologies Limited, github.com/deepmind/mathematics_dataset",
        rows=partial(drawn, level),
    )


EASY, MEDIUM, HARD = map(_level, exercises.LEVELS)
