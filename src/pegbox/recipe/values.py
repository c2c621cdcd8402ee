"""What a value of a recipe may be: the types of its fields, each with one message in our words where it is another.

A union of types would give a message for each of them, and Python takes true for 1; both are mended here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Frozen(BaseModel):
    """The base of every part of a recipe: immutable, strict about unknown keys, and finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


NoTruth = BeforeValidator(_no_truth)  # Python takes true for 1
Whole = Annotated[int, NoTruth]
Number = Annotated[float, NoTruth]
Count = Annotated[int, Field(gt=0), NoTruth]
Amount = Annotated[float, Field(gt=0), NoTruth]


UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
DURATION = re.compile(r"(?=.)" + "".join(rf"(?:(\d+){unit})?" for unit in UNITS))


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = DURATION.fullmatch(value.replace(" ", ""))
    if found is None:
        raise ValueError("must be a number of seconds, or a time like 90m, 2h or 1h30m")
    return sum(int(count or 0) * seconds for count, seconds in zip(found.groups(), UNITS.values(), strict=True))


Seconds = Annotated[float, Field(gt=0), NoTruth, BeforeValidator(_seconds, json_schema_input_type=float | str)]


def named(field: str, written: Any, **defaults: str) -> BeforeValidator:
    """Let a plain string stand for `{field: string}`: `task: chat` is `task: {kind: chat}`. `written`: for editors."""

    def whole(value: Any) -> Any:
        if isinstance(value, str):
            return {field: value}
        return defaults | value if isinstance(value, dict) else value

    return BeforeValidator(whole, json_schema_input_type=str | written)


def must_be(what: str, holds: Callable[[Any], bool]) -> BeforeValidator:
    """One message where a union of types would give one for each of them."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise ValueError(f"must be {what}")
        return value

    return BeforeValidator(check)


def _are_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(is_text(v) and v for v in value)


def is_text(value: Any) -> bool:
    """True for text without half of a surrogate pair, which is no character."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


def listed(value: Any) -> Any:
    """A plain string as a list of one."""
    return (value,) if isinstance(value, str) else value


def _are_different(value: list[Any] | tuple[Any, ...]) -> bool:
    return len(value) == 0 or _are_columns(tuple(value))


NameList = tuple[str, ...]
DifferentTexts = Annotated[
    NameList,
    must_be("a list of different texts", lambda value: isinstance(value, list | tuple) and _are_different(value)),
]
Names = Annotated[NameList, must_be("a list of names", _are_names)]
Share = Annotated[float, Field(gt=0, lt=1)]
AutoOrCount = Annotated[
    Literal["auto"] | Annotated[int, Field(gt=0)],
    must_be("'auto' or a whole number from 1 on", lambda value: value == "auto" or (type(value) is int and value > 0)),
]
AutoOrBool = Annotated[
    Literal["auto"] | bool,
    must_be("'auto', true or false", lambda value: value == "auto" or type(value) is bool),
]
AllLinearOrNames = Annotated[
    Literal["all-linear"] | NameList,
    must_be("'all-linear' or a list of names", lambda value: value == "all-linear" or _are_names(value)),
]


def _are_columns(value: Any) -> bool:
    return is_text(value) or (_are_names(value) and len(set(value)) == len(value))


ColumnOrColumns = Annotated[str | NameList, must_be("the name of a column, or a list of different names", _are_columns)]


def _is_weight(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value <= MOST_WEIGHT and math.isfinite(value)


def _are_weights(value: Any) -> bool:
    if value is None or not isinstance(value, dict):
        return value is None or value == "balanced"
    are_named = all(is_text(name) or type(name) is int for name in value)
    are_different = len({str(name) for name in value}) == len(value) > 0
    return are_named and are_different and all(map(_is_weight, value.values())) and any(value.values())


MOST_WEIGHT = 1e6
ClassWeights = Annotated[
    Literal["balanced"] | dict[str, float] | None,
    # labels that are whole numbers are names, in the rows and here alike
    BeforeValidator(lambda value: {str(k): v for k, v in value.items()} if isinstance(value, dict) else value),
    must_be("'balanced' or a mapping of labels to weights from 0 to 1,000,000, not all of them 0", _are_weights),
]
