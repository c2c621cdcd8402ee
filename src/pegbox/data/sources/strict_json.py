"""JSON as the standard has it (RFC 8259), of what strangers wrote: Python's parser lets some of it pass and dies of some."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

DIGITS = 1000  # of a whole number; Python refuses to read 4,300


def parse_json(text: str) -> Any:
    """JSON as the standard has it. Raises ValueError for what Python's parser lets pass or dies of.

    Refused: NaN and infinities (also as 1e400), duplicate keys, lone surrogates, integers of thousands of digits,
    nesting deeper than the parser's stack.
    """
    with _refusals():
        value = DECODER.decode(text)
        _check_pairs(text, value)
    return value


def parse_json_at(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that begins at `start`, and where it ends. Raises ValueError as `parse_json` does."""
    with _refusals():
        value, end = DECODER.raw_decode(text, start)
        _check_pairs(text[start:end], value)
    return value, end


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what the parser dies of into ValueErrors."""
    try:
        yield
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair, which is no character") from None


def _check_pairs(text: str, value: Any) -> None:
    text.encode("utf-8")
    if "\\u" in text:  # an escape can write half a pair that the text itself does not hold
        json.dumps(value, ensure_ascii=False).encode("utf-8")


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text if len(text) < 20 else 'a number'} is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"a whole number of {len(text)} digits is too large")
    return int(text)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"the key '{key}' is given twice")
        values[key] = value
    return values


DECODER = json.JSONDecoder(
    object_pairs_hook=_without_duplicates,
    parse_constant=_refuse,
    parse_float=_finite,
    parse_int=_whole,
)
