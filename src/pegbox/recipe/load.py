"""A recipe from YAML and `key=value` overrides, with errors that name the key and the cure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from pegbox.errors import RecipeError
from pegbox.recipe.schema import Recipe


class _Loader(yaml.SafeLoader):
    """YAML 1.1's safe loader, but `2e-4` is a number, and a key that is given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise RecipeError(f"the key '{key}' is given twice", where=f"line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$|^[-+]?\d[\d_]*\.[\d_]*$|^[-+]?\.\d[\d_]*$"),
    list("-+0123456789."),
)


def _parse(text: str, where: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}" if mark else where
        raise RecipeError(f"not valid YAML: {getattr(error, 'problem', error)}", where=place) from None
    finally:
        loader.dispose()


def load(source: str | Path | Mapping[str, Any] | Recipe, overrides: Sequence[str] = ()) -> Recipe:
    """A validated recipe from a YAML file, a mapping or a recipe, with `key=value` overrides applied.

    Files named in a recipe file are relative to that file. Raises RecipeError.
    """
    if isinstance(source, Recipe):
        values: Any = source.model_dump(mode="json", exclude_unset=True)
        base, where = None, "recipe"
    elif isinstance(source, Mapping):
        values, base, where = dict(source), None, "recipe"
    else:
        path = Path(source)
        if not path.is_file():
            raise RecipeError("no such recipe file", where=str(path), cure="give the path of a YAML recipe")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise RecipeError("the recipe is not UTF-8 text", where=str(path)) from None
        values, base, where = _parse(text, str(path)), path.parent, str(path)
    if not isinstance(values, dict):
        raise RecipeError("a recipe is a mapping of keys: model, task, data, ...", where=where)
    for override in overrides:
        _apply(values, override)
    recipe = validate(values, where)
    return recipe if base is None else _relative_to(recipe, base)


def _apply(values: dict[str, Any], override: str) -> None:
    """Set one dotted key: `train.learning_rate=1e-3`. A string shorthand on the way becomes a mapping."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"'{override}' is not key=value", cure="write for example train.learning_rate=1e-3")
    shorthand = {"model": "name", "task": "kind", "method": "kind", "data": "train"}
    *parents, last = key.strip().split(".")
    here = values
    for parent in parents:
        inner = here.get(parent)
        if isinstance(inner, str) and parent in shorthand:
            inner = {shorthand[parent]: inner}
        here[parent] = dict(inner) if isinstance(inner, dict) else {}
        here = here[parent]
    here[last] = _parse(text, key)


def validate(values: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Validate a mapping; every mistake at once, each with its key and, for an unknown key, a did-you-mean."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        lines = [_explain(entry, values) for entry in error.errors()]
        cure = "see README.md, 'The recipe', or run `pegbox schema`"
        raise RecipeError("\n  ".join(lines), where=where, cure=cure) from None


def _explain(entry: Any, values: Mapping[str, Any]) -> str:
    """One line for one mistake: the key as the user wrote it, and what is allowed."""
    path = [str(part) for part in entry["loc"]]
    shown = ".".join(part for index, part in enumerate(path) if index == 0 or _is_written_by_users(part))
    if entry["type"] == "extra_forbidden":
        known = _siblings(path[:-1])
        close = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean '{close[0]}'?" if close else f"allowed: {', '.join(known)}"
        return f"unknown key '{shown}': {hint}"
    if entry["type"] == "missing":
        return f"'{shown}' is missing"
    if entry["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return f"'{shown}.kind' must be one of {entry['ctx'].get('expected_tags', '')or 'the known kinds'}"
    return f"'{shown}': {entry['msg'][0].lower()}{entry['msg'][1:]} (got {entry.get('input')!r})"


def _is_written_by_users(part: str) -> bool:
    """False for what pydantic adds to a place: the tag of a union's member, or the member's type."""
    tags = {"chat", "completion", "classification", "full", "lora", "float", "int"}
    return part not in tags and re.fullmatch(r"\w+", part) is not None


def _siblings(path: Sequence[str]) -> list[str]:
    """The keys allowed at a place of the recipe."""
    here: Any = Recipe
    for part in path:
        field = here.model_fields.get(part) if isinstance(here, type) and issubclass(here, BaseModel) else None
        if field is not None:
            here = field.annotation
            continue
        options = [option for option in getattr(here, "__args__", ()) if isinstance(option, type)]
        here = next((o for o in options if issubclass(o, BaseModel) and o.model_fields["kind"].default == part), here)
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []


def _relative_to(recipe: Recipe, base: Path) -> Recipe:
    """The recipe with its file names resolved against the recipe file's folder."""

    def resolve(files: Any) -> Any:
        return files if isinstance(files, float) else tuple(str(base / file) for file in files)

    data = recipe.data
    update = {key: resolve(getattr(data, key)) for key in ("train", "validation", "test")}
    name = recipe.model.name
    local = base / name
    model = recipe.model if not (name.endswith(".gguf") or name.startswith(".")) else recipe.model.model_copy(
        update={"name": str(local)}
    )
    return recipe.model_copy(update={"data": data.model_copy(update=update), "model": model})


def dump(recipe: Recipe) -> str:
    """The recipe as YAML with every default made explicit; `load` of it gives the same recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
