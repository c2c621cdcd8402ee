"""The public names, listed: a name comes or goes on purpose, here and in `pegbox/__init__.py`."""

from __future__ import annotations

import pytest

import pegbox

NAMES = [
    "ChangedError",
    "DataError",
    "NotBetterError",
    "PegboxError",
    "Recipe",
    "RecipeError",
    "Run",
    "TrainingError",
    "check",
    "evaluate",
    "load",
    "train",
]


def test_the_public_names_are_exactly_these() -> None:
    assert sorted(pegbox.__all__) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_can_be_had_and_has_a_docstring(name: str) -> None:
    assert getattr(pegbox, name).__doc__


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    missing = "nothing_of_this_name"
    with pytest.raises(AttributeError, match=missing):
        getattr(pegbox, missing)
