"""What a recipe needs that depends on the number of rows: shares that give a verdict its test rows, epochs, batch size.

The splits are made by hash, so how many rows a share gives is not its product but found out: by splitting, with the seed
and the function that training will use.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from pegbox.data.records import LabelledText, Record
from pegbox.data.splits import NONE, Splits, Traits, split, traits_of
from pegbox.data.twins import near_twins, together
from pegbox.errors import DataError

SEED = 42  # the recipe's default
UNITS = 30  # test rows that a verdict takes (evaluation.verdict.MINIMUM_UNITS)
TEST = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
VALIDATION = (0.1, 0.15, 0.2, 0.3)
LEAST_OF_TRAIN = 0.8  # of the rows that its share would be
UPDATES = 100  # where three epochs are fewer, few rows are shown more often


@dataclass(frozen=True)
class Settings:
    """Shares, epochs and batch size; `test_units` are the test rows that a verdict counts."""

    validation: float
    test: float
    num_train_epochs: int
    batch_size: int
    test_units: int
    near_apart: bool = False  # near twins are so many that only exact ones can be kept on one side


def choose_settings(records: Sequence[Record], complete: bool, where: str) -> Settings:
    """The least share of test rows that a verdict takes, where there is one. `complete`: these are all records.

    Raises DataError where they cannot be split into train, validation and test at all.
    """
    traits = traits_of(records, SEED)
    near = near_twins(records, traits).pairs
    tries = [(UNITS, TEST, VALIDATION[:2]), (1, (0.2, 0.3, 0.4), VALIDATION)]
    for (least, tests, validations), joined in product(tries, (near, NONE)):
        for test, validation in product(tests, validations):
            made = _tried(records, traits, {"validation": validation, "test": test}, joined)
            if made is None or len(made.validation) < min(5, least):
                continue
            if (units := _units(made.test, joined is near)) < least:
                continue
            rows = len(made.train)
            if joined is near and rows < LEAST_OF_TRAIN * (1 - test - validation) * len(records):
                continue  # near twins have drawn what was to be learnt to another side
            batch_size = 16 if rows >= 160 else 8 if rows >= 24 else 4
            epochs = 3 if not complete else max(3, min(10, math.ceil(UPDATES * batch_size / rows)))
            return Settings(validation, test, epochs, batch_size, units, near_apart=joined is NONE and len(near) > 0)
    what = f"{len(records)} rows are too few to be split into train, validation and test"
    raise DataError(what if len(records) > 1 else "one row cannot be split", where=where, cure=MORE)


MORE = f"give more rows: about 80 for a verdict, which takes {UNITS} test rows"


def _tried(
    records: Sequence[Record], traits: Traits, shares: Mapping[str, float], near: NDArray[np.int64]
) -> Splits | None:
    """The split as training will make it; None where a part is empty or nothing can be told apart."""
    try:
        made = split(records, {}, shares, SEED, near, traits)
    except DataError:
        return None
    labels = {record.content.label for record in made.train if isinstance(record.content, LabelledText)}
    return None if isinstance(records[0].content, LabelledText) and len(labels) < 2 else made


def _units(test: Sequence[Record], near: bool) -> int:
    return int(together(test, near=near).max(initial=-1)) + 1
