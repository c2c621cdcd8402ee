"""What is wrong with a recipe, in our words: the key as the user wrote it, what is allowed, and a did-you-mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from pegbox.errors import meant
from pegbox.recipe import filters, sources
from pegbox.recipe.schema import Recipe

SHOWN = 20  # mistakes in one message
TAGS = (*filters.TAGS, *sources.TAGS)
# what is allowed, by pydantic's types of mistakes; the braces are its context
ALLOWED = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "string_unicode": "holds half of a surrogate pair, which is no character",
    "string_too_short": "must not be empty",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping of keys",
    "model_attributes_type": "must be a mapping of keys",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be one of {expected}",
    "invalid_key": "is no key",
    "value_error": "{error}",
}


def explain(error: ValidationError) -> str:
    """All that is wrong, a line each."""
    lines = list(dict.fromkeys(_explain(entry) for entry in error.errors(include_url=False)))
    if len(lines) > SHOWN:
        lines[SHOWN:] = [f"and {len(lines) - SHOWN} more"]
    return "\n  ".join(lines)


def _explain(entry: Any) -> str:
    """One line for one mistake: the key as the user wrote it, and what is allowed."""
    kind, given = entry["type"], entry.get("input")
    place, choices = _follow([str(part) for part in entry["loc"] if part != "[key]"])
    key = ".".join(place)
    if kind == "extra_forbidden":
        known = list(choices[0].model_fields)
        return f"unknown key '{key}'{_meant(place[-1], known) or ': known are ' + ', '.join(known)}"
    if kind == "missing":
        return f"'{key}' is missing"
    if kind.startswith("union_tag"):
        kinds = [_kind(choice) for choice in choices]
        written = given.get("kind") if isinstance(given, dict) else None
        return f"'{key}.kind' must be one of {', '.join(kinds)} (got {_brief(written)}){_meant(written, kinds)}"
    context = {
        name: f"{value:g}" if isinstance(value, float) else value for name, value in entry.get("ctx", {}).items()
    }
    said = ALLOWED[kind].format(**context) if kind in ALLOWED else f"is not allowed ({kind})"
    if kind == "value_error" and len(place) < 2 and isinstance(given, Mapping):
        return said  # about several keys at once, which it names itself
    hint = _meant(given, re.findall(r"'(.+?)'", said)) if kind == "literal_error" else ""
    return f"'{key}' {said} (got {_brief(given)}){hint}"


def _brief(value: Any) -> str:
    """A value for a message. Never what a list or a mapping holds: aliases in YAML can make that without end."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Sequence | set) and not isinstance(value, str | bytes):
        return "a list"
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}..."


def _meant(written: Any, known: Sequence[str]) -> str:
    found = meant(written, known) if isinstance(written, str) else ""
    return f": {found}" if found else ""


def _follow(loc: Sequence[str]) -> tuple[list[str], list[type[BaseModel]]]:
    """The key as the user wrote it, and the classes that are there; of a key that is none, those that it was sought in.

    Pydantic names the member of a tagged union as well, which nobody wrote.
    """
    place: list[str] = []
    choices: list[type[BaseModel]] = [Recipe]
    for part in loc:
        if len(choices) > 1 and part in map(_kind, choices):
            choices = [choice for choice in choices if _kind(choice) == part]
            continue
        if part in TAGS:
            continue
        place.append(part)
        if fields := [choice.model_fields[part] for choice in choices if part in choice.model_fields]:
            choices = _models_of(fields[0].annotation)
    return place, choices


def _kind(choice: type[BaseModel]) -> str:
    return str(choice.model_fields["kind"].default)


def _models_of(annotation: Any) -> list[type[BaseModel]]:
    """The classes among the choices of a field's type, however deep they stand in it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_of(part)]
