"""`data.filter`: which rows are kept, by their columns or by a function of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from pegbox.data.cells import listed, number
from pegbox.errors import RecipeError
from pegbox.recipe import load_own
from pegbox.recipe.filters import Filter, Range

Keep = Callable[[Mapping[str, Any]], bool]
WHERE = "data.filter"


def keeper(wanted: Filter | None) -> Keep:
    """Whether the values of a row are kept. What it returns raises ValueError for a row that it cannot judge."""
    if wanted is None:
        return lambda values: True
    if isinstance(wanted, str):
        return _own(wanted)
    return lambda values: all(_holds(values, column, condition) for column, condition in wanted.items())


def _holds(values: Mapping[str, Any], column: str, condition: Range | tuple[Any, ...]) -> bool:
    if column not in values:
        raise ValueError(f"has no column '{column}', which data.filter asks for; it has {listed(values)}")
    cell = values[column]
    if not isinstance(condition, Range):
        return any(_same(cell, value) for value in condition)
    found = number(cell, column)
    return (condition.min is None or found >= condition.min) and (condition.max is None or found <= condition.max)


def _same(cell: Any, value: Any) -> bool:
    """Whether a cell is a value: `true` is not 1, and a table's cell is the text that the value is written as."""
    if isinstance(cell, str) and isinstance(value, bool):
        return cell.strip().casefold() == str(value).casefold()
    if isinstance(cell, str) and isinstance(value, int | float):
        return _as_number(cell) == value
    return isinstance(cell, bool) == isinstance(value, bool) and bool(cell == value)


def _as_number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _own(reference: str) -> Keep:
    function = load_own(reference, WHERE)

    def keep(values: Mapping[str, Any]) -> bool:
        try:
            kept = function(deepcopy(dict(values)))  # it may change what it is given
        except Exception as error:  # the user's own program: whatever it raises is told
            raise RecipeError(f"{reference} raised {type(error).__name__}: {error}", where=WHERE) from error
        if not isinstance(kept, bool):
            raise RecipeError(f"{reference} must return True or False, not {type(kept).__name__}", where=WHERE)
        return kept

    return keep
