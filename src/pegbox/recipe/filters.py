"""Which rows are kept: `data.filter`, conditions on columns or a function of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from pegbox.recipe.own import as_reference, split
from pegbox.recipe.values import Frozen, Number, must_be

OWN, COLUMNS, RANGE, VALUES = TAGS = (
    "<own>",
    "<columns>",
    "<range>",
    "<values>",
)  # pydantic's names for the members of a union, which nobody writes
Cell = str | int | float | bool | None


class Range(Frozen):
    """Numbers from `min` to `max`, both included; either may be left away."""

    min: Number | None = Field(default=None, description="the smallest number that is kept")
    max: Number | None = Field(default=None, description="the largest number that is kept")

    @model_validator(mode="after")
    def _has_an_end(self) -> Range:
        if self.min is None and self.max is None:
            raise ValueError("a range needs min or max")
        return self


def _is_cell(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _is_condition(value: Any) -> bool:
    is_list = isinstance(value, list | tuple) and len(value) > 0 and all(map(_is_cell, value))
    return is_list or isinstance(value, Mapping | Range)


Condition = Annotated[
    Annotated[Range, Tag(RANGE)] | Annotated[tuple[Cell, ...], Tag(VALUES)],
    Discriminator(lambda value: VALUES if isinstance(value, tuple | list) else RANGE),
    must_be("a value, a list of values, or a range {min: , max: }", _is_condition),
    BeforeValidator(
        lambda value: [value] if _is_cell(value) else value, json_schema_input_type=Cell | tuple[Cell, ...] | Range
    ),
]


def _formed(value: Any) -> Any:
    if isinstance(value, str):
        split(value)
    return value


Filter = Annotated[
    Annotated[str, Tag(OWN)] | Annotated[dict[str, Condition], Tag(COLUMNS), Field(min_length=1)],
    Discriminator(lambda value: OWN if isinstance(value, str) else COLUMNS),
    must_be("a mapping of columns to what is kept, or ./my_filter.py:name", lambda v: isinstance(v, str | Mapping)),
    BeforeValidator(_formed),
    BeforeValidator(as_reference, json_schema_input_type=str | dict[str, Cell | tuple[Cell, ...] | Range]),
]
