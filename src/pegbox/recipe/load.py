"""A recipe from YAML and `key=value` overrides, with errors that name the key and the cure."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pegbox.errors import RecipeError
from pegbox.recipe.losses import OwnLoss
from pegbox.recipe.mistakes import explain
from pegbox.recipe.own import is_own, split
from pegbox.recipe.schema import Recipe
from pegbox.recipe.sources import FileSource, HubSource, SampleSource, Source

# a plain string in the place of a mapping stands for this key of it
SHORTHAND = {"model": "name", "task": "kind", "method": "kind", "data": "train", "train.loss": "kind"}


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
    for depth, parent in enumerate(parents, start=1):
        inner, place = here.get(parent, {}), ".".join(parents[:depth])
        if place in SHORTHAND and isinstance(inner, str):
            inner = {SHORTHAND[place]: inner}
        if inner is not None and not isinstance(inner, Mapping):
            raise RecipeError(f"'{parent}' has no keys in this recipe, so '{key.strip()}' cannot be set", where=parent)
        here[parent] = dict(inner or {})
        here = here[parent]
    here[last] = _parse(text, key.strip())


def _absolute(recipe: Recipe, base: Path) -> Recipe:
    """The recipe with its file names made absolute; a model's name is one where there is such a file or folder."""

    def resolve(name: str) -> str:
        return os.path.abspath(base / os.path.expanduser(name))

    def resolve_own(name: str) -> str:
        path, function = split(name) if is_own(name) else ("", name)
        return f"{resolve(path)}:{function}" if path else name

    def place(source: Source) -> Source:
        if isinstance(source, SampleSource):
            return source
        path = resolve(source.path)
        if isinstance(source, HubSource) and not os.path.exists(path):
            return source
        if (
            isinstance(source, HubSource) and "kind" not in source.model_fields_set
        ):  # a folder that reads like a hub's id
            return FileSource(path=path, weight=source.weight)
        return source.model_copy(update={"path": path})

    data, evaluate, loss, name = recipe.data, recipe.evaluate, recipe.train.loss, recipe.model.name
    placed: dict[str, Any] = {key: tuple(place(source) for source in given) for key, given in data.given.items()}
    placed |= {"benchmarks": data.benchmarks and tuple(map(place, data.benchmarks))}
    if isinstance(data.filter, str):
        placed["filter"] = resolve_own(data.filter)
    rated: dict[str, Any] = {"metrics": evaluate.metrics and tuple(map(resolve_own, evaluate.metrics))}
    rated |= {"primary": evaluate.primary and resolve_own(evaluate.primary)}
    update: dict[str, Any] = {"data": data.model_copy(update=placed), "evaluate": evaluate.model_copy(update=rated)}
    learnt: dict[str, Any] = {"metric_for_best_model": resolve_own(recipe.train.metric_for_best_model)}
    if isinstance(loss, OwnLoss):
        learnt["loss"] = loss.model_copy(update={"function": resolve_own(loss.function)})
    update["train"] = recipe.train.model_copy(update=learnt)
    if name.startswith((".", "~")) or name.endswith(".gguf") or os.path.exists(resolve(name)):
        update["model"] = recipe.model.model_copy(update={"name": resolve(name)})
    return recipe.model_copy(update=update)


def dump(recipe: Recipe) -> str:
    """The recipe as YAML with every default made explicit; `load` of it gives the same recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def validate(values: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Validate a mapping; all mistakes at once, each with its key and, for an unknown key, a did-you-mean."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        cure = "see README.md, 'The recipe', or run `pegbox schema`"
        raise RecipeError(explain(error), where=where, cure=cure) from None
