"""`train.loss`: every kind with every field, which fits which task, and what is wrong said in our words."""

from __future__ import annotations

import json
import re
import typing
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pegbox.errors import RecipeError
from pegbox.recipe import (
    MAE,
    MSE,
    BinaryCrossEntropy,
    CrossEntropy,
    Focal,
    Huber,
    Loss,
    OwnLoss,
    Recipe,
    Task,
    dump,
    load,
)

KINDS = {kind.model_fields["kind"].default: kind for kind in typing.get_args(Loss)}
TASKS = [kind.model_fields["kind"].default for kind in typing.get_args(typing.get_args(Task)[0])]
FITTING = {
    "cross_entropy": ["chat", "completion", "classification", "token_classification", "masked_lm", "seq2seq"],
    "focal": ["classification", "multilabel", "token_classification"],
    "binary_cross_entropy": ["multilabel"],
    "mse": ["regression"],
    "mae": ["regression"],
    "huber": ["regression"],
    "info_nce": ["embedding"],
    "cosine": ["embedding"],
    "own": TASKS,
}
# a task that the loss fits, and another value than the default for each of its fields
FIELDS: dict[tuple[str, str], Any] = {
    ("cross_entropy", "label_smoothing"): 0.1,
    ("cross_entropy", "class_weights"): {"yes": 2.0, "no": 0.5},
    ("focal", "gamma"): 0.5,
    ("focal", "class_weights"): "balanced",
    ("binary_cross_entropy", "class_weights"): {"1": 3.0, "2": 0.0},
    ("huber", "delta"): 2.5,
    ("own", "function"): "/folder/my_loss.py:costly",
}


def fitting(kind: str) -> str:
    """A task for which every field of a loss has an effect."""
    return next(task for task in FITTING[kind] if task not in ("chat", "completion", "masked_lm", "seq2seq"))


def recipe_with(loss: Any, task: str) -> dict[str, Any]:
    return {"model": "some/model", "task": task, "data": "/rows.jsonl", "train": {"loss": loss}}


def least(kind: str) -> dict[str, Any]:
    return {"kind": kind, **({"function": "/l.py:f"} if kind == "own" else {})}


def test_the_tables_above_name_every_kind_and_field() -> None:
    fields = {(kind, name) for kind, model in KINDS.items() for name in model.model_fields if name != "kind"}
    assert set(FIELDS) == fields
    assert set(FITTING) == set(KINDS)


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_a_field_is_taken_over_and_survives_being_written_and_read(kind: str, name: str) -> None:
    wanted = FIELDS[kind, name]
    recipe = load(recipe_with({"kind": kind, name: wanted}, fitting(kind)))
    assert getattr(recipe.train.loss, name) == wanted
    assert load(yaml.safe_load(dump(recipe))) == recipe
    assert load(recipe) == recipe
    assert load(recipe_with(least(kind), fitting(kind)), [f"train.loss.{name}={json.dumps(wanted)}"]) == recipe


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_stands_for_the_kind_and_can_be_added_to(kind: str) -> None:
    short = "/l.py:f" if kind == "own" else kind
    recipe = load(recipe_with(short, fitting(kind)))
    assert recipe.train.loss == KINDS[kind](**least(kind))
    assert load(recipe_with(None, fitting(kind)), [f"train.loss={short}"]) == recipe


def test_a_key_is_added_to_a_short_kind_on_the_command_line() -> None:
    assert load(recipe_with("focal", "classification"), ["train.loss.gamma=3"]).train.loss == Focal(gamma=3)
    assert load(recipe_with("huber", "regression"), ["train.loss.delta=3"]).train.loss == Huber(delta=3)


def test_without_a_loss_the_task_has_its_own() -> None:
    assert load(recipe_with(None, "chat")).train.loss is None


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_is_taken_for_the_tasks_that_it_fits_and_refused_with_the_cure_for_others(kind: str, task: str) -> None:
    if task in FITTING[kind]:
        assert load(recipe_with(least(kind), task)).train.loss == KINDS[kind](**least(kind))
        return
    with pytest.raises(RecipeError) as refusal:
        load(recipe_with(least(kind), task))
    what = refusal.value.what
    assert f"train.loss: {kind} does not fit task: {task}" in what
    offered = re.search(r"take (.*) or a function of your own", what)
    assert offered
    assert all(task in FITTING[other] for other in offered.group(1).split(", "))


@pytest.mark.parametrize("task", ["chat", "completion", "masked_lm", "seq2seq"])
def test_weights_of_labels_are_refused_where_there_are_no_labels(task: str) -> None:
    with pytest.raises(RecipeError, match=f"class_weights has no effect with task: {task}"):
        load(recipe_with({"kind": "cross_entropy", "class_weights": "balanced"}, task))


def test_labels_that_are_whole_numbers_are_names() -> None:
    loss = load(recipe_with({"kind": "focal", "class_weights": {1: 2, 0: 1}}, "classification")).train.loss
    assert loss == Focal(class_weights={"1": 2.0, "0": 1.0})


KINDS_TOLD = "cross_entropy, focal, binary_cross_entropy, mse, mae, huber, info_nce, cosine, own"
WEIGHTS_TOLD = "must be 'balanced' or a mapping of labels to weights from 0 to 1,000,000, not all of them 0"
FORM_TOLD = "write for example ./my_loss.py:my_loss, the file and the name of a function in it"
WRONG: list[tuple[Any, str]] = [
    ("cross_entrpy", f"'train.loss.kind' must be one of {KINDS_TOLD} (got 'cross_entrpy'): did you mean 'cross_entropy'?"),
    ("", f"'train.loss.kind' must be one of {KINDS_TOLD} (got '')"),
    ({"gamma": 2}, f"'train.loss.kind' must be one of {KINDS_TOLD} (got nothing)"),
    (5, "'train.loss' must be a mapping of keys (got 5)"),
    (["focal"], "'train.loss' must be a mapping of keys (got a list)"),
    ("own", "'train.loss.function' is missing"),
    ("my_loss.py", f"'train.loss.function' must be PATH.py:NAME, not 'my_loss.py'; {FORM_TOLD} (got 'my_loss.py')"),
    ("my_loss.py:", f"'train.loss.function' must be PATH.py:NAME, not 'my_loss.py:'; {FORM_TOLD} (got 'my_loss.py:')"),
    ("my_loss.py:a b", f"'train.loss.function' must be PATH.py:NAME, not 'my_loss.py:a b'; {FORM_TOLD} (got 'my_loss.py:a b')"),
    ({"kind": "focal", "gama": 1}, "unknown key 'train.loss.gama': did you mean 'gamma'?"),
    ({"kind": "focal", "delta": 1}, "unknown key 'train.loss.delta': known are kind, gamma, class_weights"),
    ({"kind": "focal", "gamma": -0.5}, "'train.loss.gamma' must be at least 0 (got -0.5)"),
    ({"kind": "cross_entropy", "label_smoothing": 1}, "'train.loss.label_smoothing' must be less than 1 (got 1)"),
    ({"kind": "huber", "delta": 0}, "'train.loss.delta' must be greater than 0 (got 0)"),
    ({"kind": "huber", "delta": True}, "'train.loss.delta' must be a number, not true or false (got True)"),
    *(
        ({"kind": "focal", "class_weights": wrong}, f"'train.loss.class_weights' {WEIGHTS_TOLD} (got {told})")
        for wrong, told in (
            ("balancd", "'balancd'"),
            ([1, 2], "a list"),
            ({}, "a mapping"),
            ({"a": -1, "b": 1}, "a mapping"),
            ({"a": 0, "b": 0}, "a mapping"),
            ({"a": float("inf")}, "a mapping"),
            ({"a": True}, "a mapping"),
            ({"a": "much"}, "a mapping"),
            ({1: 2, "1": 3}, "a mapping"),
            ({True: 2}, "a mapping"),
            ({"\ud800": 2}, "a mapping"),
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("loss", "said"), WRONG)
def test_a_wrong_loss_is_named_with_what_is_allowed(loss: Any, said: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        load(recipe_with(loss, "classification"))
    assert refusal.value.what == said


NOISE = re.compile(
    r"pydantic|Input should|[Vv]alue error|function-|tuple\[|literal\[|dict\[|constrained|\[key\]|tagged"
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.binary(max_size=3)
wrong = st.recursive(
    scalars | st.text(alphabet=st.characters(codec=None), max_size=3) | st.sampled_from([*KINDS, "a.py:b", "balanced"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(scalars, inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=500)
@given(kind=st.sampled_from(list(KINDS)), value=wrong, whole=st.booleans(), data=st.data())
def test_any_loss_is_taken_or_refused_in_our_words(kind: str, value: Any, whole: bool, data: st.DataObject) -> None:
    loss = value if whole else {"kind": kind, data.draw(st.sampled_from(list(KINDS[kind].model_fields))): value}
    try:
        recipe = load(recipe_with(loss, fitting(kind)))
    except RecipeError as error:
        assert "train.loss" in error.what
        assert not NOISE.search(error.what)
        assert "is not allowed (" not in error.what
        assert len(error.what) < 1000
    else:
        assert load(yaml.safe_load(dump(recipe))) == recipe


def test_an_editor_takes_the_short_forms_for_valid_and_knows_every_kind() -> None:
    schema = Recipe.model_json_schema()
    offered = schema["$defs"]["Train"]["properties"]["loss"]["anyOf"]
    assert {"type": "string"} in offered
    assert {"type": "null"} in offered
    text = json.dumps(offered)
    classes = (CrossEntropy, Focal, BinaryCrossEntropy, MSE, MAE, Huber, OwnLoss)
    assert all(f"#/$defs/{model.__name__}" in text for model in classes)
