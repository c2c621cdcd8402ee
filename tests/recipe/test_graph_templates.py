"""The templates of a knowledge graph: what they may hold, and errors that name the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pegbox.errors import RecipeError
from pegbox.recipe.load import dump, load
from pegbox.recipe.sources import GraphSource

QUESTION = {"prompt": "{predicate} of {subject}?", "completion": "{object}"}


def recipe(train: Any) -> dict[str, Any]:
    return {"model": "owner/model", "task": "chat", "data": {"train": train}}


def graph(**keys: Any) -> dict[str, Any]:
    return {"path": "/facts.ttl", **keys}


def test_a_graph_with_nothing_said_about_it_is_written_as_its_name_alone() -> None:
    assert load(recipe("/facts.ttl")).model_dump(mode="json")["data"]["train"] == ["/facts.ttl"]


@pytest.mark.parametrize(
    "keys", [{"language": "de"}, {"rows": "facts"}, {"templates": {"*": None}}, {"templates": {"ex:a": QUESTION}}, {"weight": 2}]
)  # fmt: skip
def test_whatever_is_said_about_a_graph_is_kept_when_the_recipe_is_written(tmp_path: Path, keys: Any) -> None:
    first = load(recipe(graph(**keys)))
    (tmp_path / "again.yaml").write_text(dump(first), encoding="utf-8")
    again = load(tmp_path / "again.yaml")
    assert again == first
    assert again.data.train == (GraphSource(**graph(**keys)),)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"templates": {"a": QUESTION | {"prompt": "{predicat}"}}}, "'data.train.0.templates.a.prompt' may hold {subject}"),
        ({"templates": {"a": QUESTION | {"completion": "{object.__class__}"}}}, "templates.a.completion' may hold"),
        ({"templates": {"a": QUESTION | {"prompt": "{subject!r}"}}}, "and not {subject!r}"),
        ({"templates": {"a": QUESTION | {"prompt": "{subject:>9}"}}}, "templates.a.prompt' may hold"),
        ({"templates": {"a": QUESTION | {"prompt": "{}"}}}, "and not {}"),
        ({"templates": {"a": QUESTION | {"prompt": "a { b"}}}, "templates.a.prompt' has a brace that is alone"),
        ({"templates": {"a": {"prompt": "a"}}}, "'data.train.0.templates.a' must have prompt and completion, or text"),
        ({"templates": {"a": QUESTION | {"text": "a"}}}, "'data.train.0.templates.a' must have"),
        ({"templates": {"a": {}}}, "'data.train.0.templates.a' must have"),
        ({"templates": {"a": QUESTION}, "rows": "facts"}, "templates.a must have text"),
        ({"templates": {"a": {"text": "{object}"}}}, "templates.a must have prompt and completion"),
        ({"templates": {"a": {"txt": "{object}"}}}, "'data.train.0.templates.a.txt': did you mean 'text'?"),
        ({"langauge": "de"}, "did you mean 'language'?"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_used_is_refused_by_its_key(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as refused:
        load(recipe(graph(**keys)))
    assert said in str(refused.value)


def test_braces_can_be_written() -> None:
    load(recipe(graph(templates={"a": QUESTION | {"prompt": '{{"of": "{subject}"}}'}})))
