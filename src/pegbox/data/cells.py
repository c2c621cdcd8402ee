"""What a cell of a row must be for a role: text, a name, a number, names, numbers. ValueError says what it is instead."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pegbox.data.sources.strict_json import parse_json

SHOWN = 8  # names in a message


def listed(keys: Iterable[Any]) -> str:
    """A few keys for a message."""
    given = list(map(str, keys))
    more = f" and {len(given) - SHOWN} more" if len(given) > SHOWN else ""
    return ", ".join(given[:SHOWN]) + more if given else "nothing"


def text(values: Mapping[str, Any], role: str) -> str:
    """The text of a role."""
    value = values[role]
    if not isinstance(value, str):
        raise ValueError(f"'{role}' must be text, this is {type(value).__name__}")
    return value


def name(value: Any, role: str) -> str:
    """A name as it stands, a whole number as its digits."""
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        got = "an empty text" if value == "" else type(value).__name__
        raise ValueError(f"'{role}' must be a name or a whole number, this is {got}")
    return str(value)


def number(value: Any, role: str) -> float:
    """A finite number, as such or as written in a table."""
    found = math.nan
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            found = float(value)
        except (ValueError, OverflowError):
            found = math.nan
    if not math.isfinite(found):
        got = "an empty cell" if value is None or value == "" else f"{type(value).__name__} {str(value)[:40]!r}"
        raise ValueError(f"'{role}' must be a finite number, this is {got}")
    return found


def items(value: Any, role: str) -> list[Any]:
    """A list, as such or as a table holds it: written as JSON."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = parse_json(value)
        except ValueError as error:
            raise ValueError(f"'{role}' begins like a JSON list and is none: {error}") from None
    if not isinstance(value, list):
        raise ValueError(f"'{role}' must be a list (in a table: one written as JSON), this is {type(value).__name__}")
    return value


def truth(value: Any, role: str) -> bool:
    """0 or 1, true or false."""
    if value in (0, 1, "0", "1", "0.0", "1.0"):
        return float(value) == 1
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise ValueError(f"'{role}' must be 0 or 1, this is {str(value)[:40]!r}")
