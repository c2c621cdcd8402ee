"""The pages that are made from the program itself, so that they cannot say what it does not do.

`recipe_reference`: every key of a recipe, from the pydantic models. `command_reference`: every command's own help.
`sample_reference`: every sample with its licence. `conf.py` puts what they return in the place of a line
`<!-- generated: recipe -->` (`commands`, `samples`) of a page, when the site is built; nothing generated is kept. All
return Markdown.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import typer.main
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pegbox.cli.commands import app
from pegbox.recipe import Recipe
from pegbox.samples import SAMPLES

WIDTH = 90  # of a command's help, in characters
MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
KINDS = {"string": "text", "number": "number", "integer": "whole number", "boolean": "`true` or `false`"}
LIMITS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
WITHIN = "A plain name stands for a mapping with that `path`; there may be several, in a list."
PLURALS = {"text": "texts", "number": "numbers", "whole number": "whole numbers"}


# ---- the recipe ------------------------------------------------------------------------------------------------------


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """The models among the choices of a field's type."""
    if typing.get_origin(annotation) is typing.Annotated:
        return models_of(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return [model for part in typing.get_args(annotation) for model in models_of(part)]
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return [annotation] if is_model else []


def parts_of(annotation: Any, key: str = "") -> list[tuple[str, type[BaseModel]]]:
    """The models in a field's type, those in lists and mappings as well; each with its place, `.*` for any key."""
    origin, within = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return parts_of(within[0], key)
    if origin is dict:
        return parts_of(within[1], f"{key}.*")
    if origin in (tuple, types.UnionType, typing.Union):
        return [part for inner in within for part in parts_of(inner, key)]
    return [(key, model) for model in models_of(annotation)]


def in_words(schema: Mapping[str, Any]) -> str:
    """What a key may hold, from its JSON schema."""
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return _either([f"`{value}`" for value in schema["enum"]])
    if "$ref" in schema or "oneOf" in schema:
        return "a mapping"
    if "anyOf" in schema:
        choices = [in_words(part) for part in schema["anyOf"] if part.get("type") != "null"]
        return _either(list(dict.fromkeys(choices)))
    if schema["type"] == "array":
        inner = in_words(schema["items"])
        return f"a list of {PLURALS.get(inner, inner)}"
    if schema["type"] == "object":
        names = in_words(schema["propertyNames"]) if "propertyNames" in schema else "names"
        return f"a mapping; keys: {names}"
    limits = [f"{word} {schema[key]}" for key, word in LIMITS.items() if key in schema]
    return f"{KINDS[schema['type']]} {' and '.join(limits)}".strip()


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def default_in_words(default: Any) -> str:
    """A default as it is written in YAML; what pegbox chooses is said in the meaning."""
    if default is None:
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, float):
        return f"`{default:g}`"
    return f"`{list(default) if isinstance(default, tuple) else default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _rows(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """One line of a table for each key of a part of the recipe, `kind` apart."""
    properties = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        if name == "kind" or models_of(field.annotation):
            continue
        default = "(needed)" if field.is_required() else default_in_words(field.get_default(call_default_factory=True))
        cells = (f"`{prefix}{name}`", in_words(properties[name]), default, field.description or "")
        yield f"| {' | '.join(map(_cell, cells))} |"


def _table(model: type[BaseModel], prefix: str) -> list[str]:
    rows = list(_rows(model, prefix))
    return ["| key | may be | default | meaning |", "|---|---|---|---|", *rows, ""] if rows else []


def _default_kind(field: FieldInfo) -> str:
    """Which choice is taken where the key is left away."""
    if field.is_required():
        return "It must be given."
    return f"Default: `{field.default.kind}`." if field.default else f"It is {field.description}."


def _section(name: str, field: FieldInfo, level: str, told: set[type[BaseModel]]) -> Iterator[str]:
    """A heading and a table for what a key holds, and below it those of its own keys; for each choice of a `kind`.

    A model is told once: where sources may stand in several places, their keys are those of the first.
    """
    parts = [(key, model) for key, model in parts_of(field.annotation) if model not in told]
    told |= {model for _, model in parts}
    if not parts:
        return
    choices = [model for _, model in parts]
    yield from (f"{level} {name}", "")
    if "kind" in choices[0].model_fields:
        kinds = _either([f"`{choice.model_fields['kind'].default}`" for choice in choices])
        short = f"{_default_kind(field)} `{name}: X` is short for `{name}: {{kind: X}}`."
        yield f"`{name}.kind` is {kinds}. {short if models_of(field.annotation) else WITHIN}"
        yield ""
    for key, choice in parts:
        if "kind" in choice.model_fields:
            yield from (f"{level}# {name}: {choice.model_fields['kind'].default}", "")
        yield from (choice.__doc__ or "", "", *_table(choice, f"{name}{key}."))
        for inner, part in choice.model_fields.items():
            yield from _section(f"{name}{key}.{inner}", part, f"{level}#", told)


def recipe_reference() -> str:
    """A section for each part of a recipe, with a table of its keys; one below it for each choice of a `kind`."""
    told: set[type[BaseModel]] = set()
    fields = Recipe.model_fields.items()
    lines = [line for name, field in fields for line in _section(name, field, "##", told)]
    return "\n".join([*lines, "## The rest", "", *_table(Recipe, "")])


# ---- the commands ----------------------------------------------------------------------------------------------------


def command_reference() -> str:
    """The help of every command, as a person sees it."""
    group: Any = typer.main.get_command(app)
    sections = []
    for name, command in group.commands.items():
        parent = group.context_class(group, info_name="pegbox", terminal_width=WIDTH, max_content_width=WIDTH)
        context = command.context_class(command, info_name=name, parent=parent)
        sections.append(f"## pegbox {name}\n\n```text\n{command.get_help(context).rstrip()}\n```\n")
    return "\n".join(sections)


# ---- the samples -----------------------------------------------------------------------------------------------------


def sample_reference() -> str:
    """A table of the samples, in the order of their names."""
    lines = ["| name | a row | task | read out of | licence | whom to name |", "|---|---|---|---|---|---|"]
    for name, sample in sorted(SAMPLES.items()):
        package = sample.package.replace("==", " ")
        cells = (f"`{name}`", sample.about, f"`{sample.task}`", package, sample.licence, sample.attribution)
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join(lines)


GENERATED: Mapping[str, Callable[[], str]] = {
    "recipe": recipe_reference,
    "commands": command_reference,
    "samples": sample_reference,
}


def fill(source: str) -> str:
    """A page with its marks replaced by what they name."""
    return MARK.sub(lambda mark: GENERATED[mark.group(1)](), source)
