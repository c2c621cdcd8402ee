"""A recipe from YAML and `key=value` overrides, with errors that name the key and the cure."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from pegbox.errors import RecipeError
from pegbox.recipe.schema import Recipe

# a plain string in the place of a mapping stands for this key of it
SHORTHAND = {"model": "name", "task": "kind", "method": "kind", "data": "train"}


# ---- YAML ------------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML 1.1's safe loader, but `2e-4` is a number, and a key that is given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":  # merges of merges grow without bound
                raise yaml.constructor.ConstructorError(None, None, "merge keys (<<) are not read", key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"the key '{key.value}' is given twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _parse(text: str, where: str) -> Any:
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}" if mark else where
        raise RecipeError(f"not valid YAML: {getattr(error, 'problem', error)}", where=place) from None
    except (ValueError, OverflowError) as error:  # a date with a thirteenth month, a number of 5,000 digits
        raise RecipeError(f"not valid YAML: {error}", where=where) from None
    except RecursionError:
        raise RecipeError("nested too deeply", where=where) from None


def _read(path: Path) -> Any:
    if not path.is_file():
        raise RecipeError("no such recipe file", where=str(path), cure="give the path of a YAML recipe")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RecipeError("the recipe is not UTF-8 text", where=str(path), cure="save it as UTF-8") from None
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror}", where=str(path)) from None
    return _parse(text, str(path))


# ---- from a file or a mapping to a recipe ----------------------------------------------------------------------------


def load(source: str | Path | Mapping[str, Any] | Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """A validated recipe from a YAML file, a mapping or a recipe, with `key=value` overrides applied.

    Files named in a recipe file are relative to it, others to the working directory; the recipe that comes out names
    them absolutely, so that it means the same wherever it is kept. Raises RecipeError.
    """
    base, where = Path.cwd(), "recipe"
    if isinstance(source, Recipe):
        values: Any = source.model_dump(mode="json")
    elif isinstance(source, Mapping):
        values = dict(source)
    else:
        values, base, where = _read(Path(source)), Path(source).parent.absolute(), str(source)
    if not isinstance(values, dict):
        raise RecipeError("a recipe is a mapping of keys: model, task, data, ...", where=where)
    for override in overrides:
        _apply(values, override)
    return _absolute(validate(values, where), base)


def _apply(values: dict[str, Any], override: str) -> None:
    """Set one dotted key: `train.learning_rate=1e-3`. A string shorthand on the way becomes a mapping."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"'{override}' is not key=value", cure="write for example train.learning_rate=1e-3")
    *parents, last = key.strip().split(".")
    here = values
    for parent in parents:
        inner = here.get(parent, {})
        if here is values and parent in SHORTHAND and isinstance(inner, str):
            inner = {SHORTHAND[parent]: inner}
        if inner is not None and not isinstance(inner, Mapping):
            raise RecipeError(f"'{parent}' has no keys in this recipe, so '{key.strip()}' cannot be set", where=parent)
        here[parent] = dict(inner or {})
        here = here[parent]
    here[last] = _parse(text, key.strip())


def _absolute(recipe: Recipe, base: Path) -> Recipe:
    """The recipe with its file names made absolute; a model's name is one where there is such a file or folder."""

    def resolve(name: str) -> str:
        return os.path.abspath(base / os.path.expanduser(name))

    data, name = recipe.data, recipe.model.name
    files = {
        key: value for key, value in data if key in ("train", "validation", "test") and not isinstance(value, float)
    }
    update: dict[str, Any] = {
        "data": data.model_copy(update={key: tuple(map(resolve, names)) for key, names in files.items()})
    }
    if name.startswith((".", "~")) or name.endswith(".gguf") or os.path.exists(resolve(name)):
        update["model"] = recipe.model.model_copy(update={"name": resolve(name)})
    return recipe.model_copy(update=update)


def dump(recipe: Recipe) -> str:
    """The recipe as YAML with every default made explicit; `load` of it gives the same recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


# ---- mistakes --------------------------------------------------------------------------------------------------------


def validate(values: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Validate a mapping; all mistakes at once, each with its key and, for an unknown key, a did-you-mean."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        lines = list(dict.fromkeys(_explain(entry) for entry in error.errors(include_url=False)))
        if len(lines) > SHOWN:
            lines[SHOWN:] = [f"and {len(lines) - SHOWN} more"]
        cure = "see README.md, 'The recipe', or run `pegbox schema`"
        raise RecipeError("\n  ".join(lines), where=where, cure=cure) from None


SHOWN = 20  # mistakes in one message
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


def _explain(entry: Any) -> str:
    """One line for one mistake: the key as the user wrote it, and what is allowed."""
    kind, given = entry["type"], entry.get("input")
    place = [str(part) for part in entry["loc"] if part != "[key]"]
    if len(place) > 1 and place[0] in ("task", "method"):
        tagged, place = place[1], [place[0], *place[2:]]  # pydantic names the member of the union as well
    else:
        tagged = None
    key = ".".join(place)
    if kind == "extra_forbidden":
        known = _keys(place[:-1], tagged)
        return f"unknown key '{key}'{_meant(place[-1], known) or ': known are ' + ', '.join(known)}"
    if kind == "missing":
        return f"'{key}' is missing"
    if kind.startswith("union_tag"):
        kinds = [str(option.model_fields["kind"].default) for option in _options(place[0])]
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
    close = difflib.get_close_matches(written, known, n=1, cutoff=0.5) if isinstance(written, str) else []
    return f": did you mean '{close[0]}'?" if close else ""


def _keys(path: Sequence[str], tagged: str | None) -> list[str]:
    """The keys allowed at a place of the recipe."""
    if not path:
        return list(Recipe.model_fields)
    chosen = [o for o in _options(path[0]) if tagged is None or o.model_fields["kind"].default == tagged]
    return list(chosen[0].model_fields)


def _options(section: str) -> list[type[BaseModel]]:
    """The classes that a section of the recipe can have."""
    annotation: Any = Recipe.model_fields[section].annotation
    return list(get_args(annotation)) or [annotation]
