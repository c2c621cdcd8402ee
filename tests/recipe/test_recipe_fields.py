"""Every field of every class of the recipe: it round-trips, and what is wrong with it is said in our words with its key."""

from __future__ import annotations

import json
import re
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from named_sources import paths
from pegbox.errors import RecipeError
from pegbox.recipe import (
    Adapter,
    Chat,
    Classification,
    Completion,
    Data,
    Embedding,
    Evaluate,
    Freeze,
    Full,
    Lora,
    MaskedLM,
    Model,
    Multilabel,
    Peft,
    Recipe,
    Regression,
    Seq2Seq,
    TokenClassification,
    Train,
    dump,
    load,
    validate,
)

LEAST: dict[str, Any] = {"model": "some/model", "task": "chat", "data": "/rows.jsonl"}

# another value than the default for every key that a recipe can have
OTHER: dict[str, Any] = {
    "model.name": "other/model",
    "model.quantization": "nf4",
    "model.add_tokens": ["<order>", "<price>"],
    "task.kind": "completion",
    "task.fim_rate": 0.5,
    "task.fim_spm_rate": 0.25,
    "task.mlm_probability": 0.3,
    "task.source_lang": "en_XX",
    "task.target_lang": "de_DE",
    "task.pooling": "cls",
    "task.temperature": 0.1,
    "data.train": ["/a.jsonl", "/b.csv"],
    "data.validation": 0.25,
    "data.test": ["/test.jsonl"],
    "data.columns": {"prompt": "question", "group": "customer"},
    "data.instruction": "Antworte kürzer: ja",
    "data.max_length": 512,
    "data.format": "openai",
    "data.truncation": "split",
    "data.filter": {"stars": [1, "5"], "year": {"min": 2020.0, "max": None}},
    "data.benchmarks": ["/exam.txt"],
    "data.allow": ["leak", "malformed"],
    "method.kind": "full",
    "method.r": 8,
    "method.lora_alpha": 12.5,
    "method.lora_dropout": 0.1,
    "method.use_rslora": True,
    "method.use_dora": True,
    "method.init_lora_weights": "pissa_niter_4",
    "method.loraplus_lr_ratio": 16.0,
    "method.target_modules": ["q_proj", "v_proj"],
    "method.top_layers": 2,
    "method.parts": ["norms", "biases"],
    "method.variant": "pfeiffer",
    "method.bottleneck_size": 8,
    "method.non_linearity": "gelu",
    "method.peft_type": "IA3",
    "train.num_train_epochs": 0.5,
    "train.max_steps": 100,
    "train.batch_size": 3,
    "train.micro_batch_size": 2,
    "train.gradient_checkpointing": True,
    "train.torch_compile": True,
    "train.loss": {"kind": "cross_entropy", "label_smoothing": 0.1, "class_weights": None},
    "train.learning_rate": 2e-4,
    "train.lr_scheduler_type": "linear",
    "train.warmup_ratio": 0.0,
    "train.weight_decay": 0.01,
    "train.max_grad_norm": 0.3,
    "train.eval_steps": 7,
    "train.save_steps": 8,
    "train.save_total_limit": 5,
    "train.early_stopping_patience": 3,
    "train.metric_for_best_model": "chrf",
    "train.max_time": 90.0,
    "train.early_stopping_threshold": 0.001,
    "train.bf16": True,
    "train.report_to": ["mlflow", "wandb"],
    "evaluate.metrics": ["exact_match", "chrf"],
    "evaluate.primary": "chrf",
    "evaluate.max_new_tokens": 64,
    "evaluate.few_shot": 0,
    "evaluate.max_rows": 50,
    "evaluate.num_beams": 4,
    "seed": 7,
}
NEEDS: dict[str, dict[str, Any]] = {
    "train.early_stopping_threshold": {"train.early_stopping_patience": 3},
    "task.fim_rate": {"task.kind": "completion"},
    "task.fim_spm_rate": {"task.kind": "completion", "task.fim_rate": 0.9},
    "task.mlm_probability": {"task.kind": "masked_lm"},
    **{f"task.{key}": {"task.kind": "embedding"} for key in ("pooling", "temperature")},
    **{key: {"task.kind": "seq2seq"} for key in ("task.source_lang", "task.target_lang", "evaluate.num_beams")},
    **{f"method.{key}": {"method.kind": "freeze"} for key in ("top_layers", "parts")},
    **{f"method.{key}": {"method.kind": "adapter"} for key in ("variant", "bottleneck_size", "non_linearity")},
    "method.peft_type": {"method.kind": "peft"},
}
TASKS = [Chat, Completion, Classification, Multilabel, Regression, TokenClassification, MaskedLM, Seq2Seq, Embedding]
CLASSES = {"model": [Model], "task": TASKS, "data": [Data], "method": [Full, Freeze, Lora, Adapter, Peft]}
CLASSES |= {"train": [Train], "evaluate": [Evaluate]}
KINDS = "chat, completion, classification, multilabel, regression, token_classification, masked_lm, seq2seq, embedding"


def with_key(key: str, value: Any) -> dict[str, Any]:
    """The least recipe with one dotted key set (and those that it needs to have an effect)."""
    values: dict[str, Any] = dict(LEAST)
    values["model"], values["task"], values["data"] = {"name": "some/model"}, {"kind": "chat"}, {"train": "/rows.jsonl"}
    for path, wanted in (*NEEDS.get(key, {}).items(), (key, value)):
        *parents, last = path.split(".")
        here = values
        for parent in parents:
            here = here.setdefault(parent, {})
        here[last] = wanted
    return values


def at(recipe: Recipe, key: str) -> Any:
    here: Any = recipe.model_dump(mode="json")
    for part in key.split("."):
        here = here[part]
    return here


def test_the_list_above_has_every_key() -> None:
    keys = {f"{section}.{name}" for section, kinds in CLASSES.items() for kind in kinds for name in kind.model_fields}
    assert keys | {"seed"} == set(OTHER)
    assert set(Recipe.model_fields) == {*CLASSES, "seed"}


@pytest.mark.parametrize("key", OTHER)
def test_a_key_is_taken_over_and_survives_being_written_and_read(key: str) -> None:
    recipe = load(with_key(key, OTHER[key]))
    assert at(recipe, key) == OTHER[key]
    assert recipe != load(LEAST)
    assert load(yaml.safe_load(dump(recipe))) == recipe
    assert load(recipe) == recipe


@pytest.mark.parametrize("key", OTHER)
def test_a_key_can_be_overridden_from_the_command_line(key: str) -> None:
    overrides = [f"{path}={json.dumps(value)}" for path, value in {**NEEDS.get(key, {}), key: OTHER[key]}.items()]
    assert load(LEAST, overrides) == load(with_key(key, OTHER[key]))


def test_a_written_recipe_has_every_default_made_explicit(tmp_path: Path) -> None:
    recipe = load(LEAST)
    written = yaml.safe_load(dump(recipe))
    for section, kinds in CLASSES.items():
        chosen = next(kind for kind in kinds if isinstance(getattr(recipe, section), kind))
        assert set(written[section]) == set(chosen.model_fields)
    (tmp_path / "recipe.yaml").write_text(dump(recipe), encoding="utf-8")
    assert load(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize("task", [kind() for kind in TASKS])
@pytest.mark.parametrize("method", [Full(), Lora(), Lora(r=4)])
def test_a_recipe_made_in_python_can_be_overridden(task: Any, method: Any) -> None:
    recipe = Recipe(model=Model(name="some/model"), task=task, data=Data(train=("/rows.jsonl",)), method=method)
    assert load(recipe) == recipe
    assert load(recipe, ["seed=1"]) == recipe.model_copy(update={"seed": 1})


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(LEAST).train.batch_size = 2  # type: ignore[misc]


# ---- shorthands and numbers ------------------------------------------------------------------------------------------


def test_a_text_stands_for_the_first_key_of_its_section() -> None:
    short = load({"model": "m/n", "task": "completion", "data": "/rows.jsonl", "method": "full"})
    assert (short.model.name, short.task.kind, paths(short.data.train)) == ("m/n", "completion", ("/rows.jsonl",))
    assert isinstance(short.method, Full)


def test_a_method_without_a_kind_is_the_default_one() -> None:
    assert load({**LEAST, "method": {"r": 3}}).method == Lora(r=3)
    assert load(LEAST, ["method.r=3"]).method == Lora(r=3)


def test_a_list_of_files_is_a_list_of_files() -> None:
    data = load({**LEAST, "data": {"train": ["/a.jsonl", "/b.jsonl"], "test": "/c.jsonl"}}).data
    assert paths(data.train) == ("/a.jsonl", "/b.jsonl")
    assert paths(data.test) == ("/c.jsonl",)
    assert data.validation == 0.1


# ---- mistakes --------------------------------------------------------------------------------------------------------

UNKNOWN = {
    "trian": "unknown key 'trian': did you mean 'train'?",
    "model.nmae": "unknown key 'model.nmae': did you mean 'name'?",
    "task.kinds": "unknown key 'task.kinds': did you mean 'kind'?",
    "data.max_lenght": "unknown key 'data.max_lenght': did you mean 'max_length'?",
    "data.max-length": "unknown key 'data.max-length': did you mean 'max_length'?",
    "method.lora_alhpa": "unknown key 'method.lora_alhpa': did you mean 'lora_alpha'?",
    "train.learning_rat": "unknown key 'train.learning_rat': did you mean 'learning_rate'?",
    "evaluate.fewshot": "unknown key 'evaluate.fewshot': did you mean 'few_shot'?",
    "evaluate.zzz": "unknown key 'evaluate.zzz': known are metrics, primary, max_new_tokens, few_shot, max_rows, num_beams",
}


@pytest.mark.parametrize("key", UNKNOWN)
def test_an_unknown_key_gets_a_did_you_mean_at_every_level(key: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        load(with_key(key, 1))
    assert refusal.value.what == UNKNOWN[key]
    assert refusal.value.cure


def test_a_key_of_another_method_is_unknown() -> None:
    with pytest.raises(RecipeError, match=r"unknown key 'method\.r': known are kind"):
        load({**LEAST, "method": {"kind": "full", "r": 8}})


WRONG: list[tuple[str, Any, str]] = [
    ("model.name", "", "'model.name' must not be empty (got '')"),
    ("model.name", 5, "'model.name' must be text (got 5)"),
    ("task.kind", "chatt", f"'task.kind' must be one of {KINDS} (got 'chatt'): did you mean 'chat'?"),
    ("task", None, "'task' must be a mapping of keys (got nothing)"),
    ("task", {}, f"'task.kind' must be one of {KINDS} (got nothing)"),
    ("task.fim_rate", -0.1, "'task.fim_rate' must be at least 0 (got -0.1)"),
    ("task.fim_rate", 2, "'task.fim_rate' must be at most 1 (got 2)"),
    ("task.fim_spm_rate", 2, "'task.fim_spm_rate' must be at most 1 (got 2)"),
    ("task.mlm_probability", 0, "'task.mlm_probability' must be greater than 0 (got 0)"),
    ("task.mlm_probability", 1, "'task.mlm_probability' must be less than 1 (got 1)"),
    ("method.kind", "qlora", "'method.kind' must be one of full, freeze, lora, adapter, peft (got 'qlora'): did you mean 'lora'?"),
    ("method", ["lora"], "'method' must be a mapping of keys (got a list)"),
    ("data.train", [], "'data.train' must be a file, a dataset or a list of them (got a list)"),
    ("data.train", ["/a", 5], "'data.train' must be a file, a dataset or a list of them (got a list)"),
    ("data.train", {"path": "/a", "wieght": 2}, "unknown key 'data.train.0.wieght': did you mean 'weight'?"),
    ("data.train", {"path": "/a.db", "query": ""}, "'data.train.0.query' must not be empty (got '')"),
    ("data.train", {"path": "/a", "kind": "zip"}, "'data.train.0.kind' must be one of file, sqlite, hub, rdf, sample (got 'zip')"),
    ("data.test", [{"path": "/a", "weight": 2}], "data.test: a weight has no effect on rows that are not learnt"),
    ("data.benchmarks", 3, "'data.benchmarks' must be a file, a dataset or a list of them (got 3)"),
    ("data.filter", {"stars": {}}, "'data.filter.stars' a range needs min or max (got a mapping)"),
    ("data.filter", {"stars": {"mim": 1}}, "unknown key 'data.filter.stars.mim': did you mean 'min'?"),
    ("data.filter", 5, "'data.filter' must be a mapping of columns to what is kept, or ./my_filter.py:name (got 5)"),
    ("data.filter", "keep.py", "'data.filter' must be PATH.py:NAME, not 'keep.py'; write for example ./my_loss.py:my_loss, the file and the name of a function in it (got 'keep.py')"),
    ("data.validation", 0, "'data.validation' must be a share between 0 and 1, a file, a dataset or a list of them (got 0)"),
    ("data.validation", 1.0, "'data.validation' must be a share between 0 and 1, a file, a dataset or a list of them (got 1.0)"),
    ("data.test", True, "'data.test' must be a share between 0 and 1, a file, a dataset or a list of them (got True)"),
    ("data.test", float("nan"), "'data.test' must be a share between 0 and 1, a file, a dataset or a list of them (got nan)"),
    ("data.columns", {"lable": "x"}, "'data.columns.lable' must be one of 'messages', 'prompt', 'completion', 'source', 'target', 'text', 'text_pair', 'negative', 'label', 'labels', 'score', 'tokens', 'tags', 'group' or 'sensitive_feature' (got 'lable'): did you mean 'label'?"),
    ("data.columns", {"completion": 5}, "'data.columns.completion' must be the name of a column, or a list of different names (got 5)"),
    ("data.columns", {"score": []}, "'data.columns.score' must be the name of a column, or a list of different names (got a list)"),
    ("data.columns", {"score": ["a", "a"]}, "'data.columns.score' must be the name of a column, or a list of different names (got a list)"),
    ("data.columns", {"labels": ["a", 5]}, "'data.columns.labels' must be the name of a column, or a list of different names (got a list)"),
    ("data.columns", {"text": ["a", "b"]}, "data.columns.text is one column: a list of columns is for score or labels; give the name of one"),
    ("data.columns", "text", "'data.columns' must be a mapping (got 'text')"),
    ("data.instruction", "", "'data.instruction' must not be empty (got '')"),
    ("data.max_length", 1, "'data.max_length' must be greater than 1 (got 1)"),
    ("data.truncation", "cutt", "'data.truncation' must be one of 'refuse', 'drop', 'split' or 'cut' (got 'cutt'): did you mean 'cut'?"),
    ("data.allow", ["leeks"], "'data.allow.0' must be one of 'malformed', 'no_trained_token', 'too_long', 'leak' or 'near_duplicate' (got 'leeks'): did you mean 'leak'?"),
    ("data.allow", "leak", "'data.allow' must be a list (got 'leak')"),
    ("method.r", 0, "'method.r' must be greater than 0 (got 0)"),
    ("method.r", True, "'method.r' must be a number, not true or false (got True)"),
    ("method.lora_dropout", 1, "'method.lora_dropout' must be less than 1 (got 1)"),
    ("method.use_rslora", "perhaps", "'method.use_rslora' must be true or false (got 'perhaps')"),
    ("method.target_modules", "q_proj", "'method.target_modules' must be 'all-linear' or a list of names (got 'q_proj')"),
    ("train", None, "'train' must be a mapping of keys (got nothing)"),
    ("train.batch_size", 1.5, "'train.batch_size' must be a whole number (got 1.5)"),
    ("train.batch_size", "many", "'train.batch_size' must be a whole number (got 'many')"),
    ("train.micro_batch_size", 0, "'train.micro_batch_size' must be 'auto' or a whole number from 1 on (got 0)"),
    ("train.micro_batch_size", True, "'train.micro_batch_size' must be 'auto' or a whole number from 1 on (got True)"),
    ("train.gradient_checkpointing", 1, "'train.gradient_checkpointing' must be 'auto', true or false (got 1)"),
    ("train.learning_rate", "fast", "'train.learning_rate' must be a number (got 'fast')"),
    ("train.learning_rate", True, "'train.learning_rate' must be a number, not true or false (got True)"),
    ("train.num_train_epochs", float("inf"), "'train.num_train_epochs' must be a finite number (got inf)"),
    ("train.warmup_ratio", 1.1, "'train.warmup_ratio' must be at most 1 (got 1.1)"),
    ("train.save_total_limit", 1, "'train.save_total_limit' must be at least 2 (got 1)"),
    ("train.lr_scheduler_type", "cosin", "'train.lr_scheduler_type' must be one of 'cosine', 'linear' or 'constant' (got 'cosin'): did you mean 'cosine'?"),
    ("evaluate.metrics", [], "'evaluate.metrics' must be a list of names (got a list)"),
    ("evaluate.metrics", "chrf", "'evaluate.metrics' must be a list of names (got 'chrf')"),
    ("seed", -1, "'seed' must be at least 0 (got -1)"),
    ("seed", 2**31, "'seed' must be less than 2147483648 (got 2147483648)"),
    ("seed", None, "'seed' must be a whole number (got nothing)"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "said"), WRONG)
def test_a_wrong_value_is_named_with_what_is_allowed(key: str, value: Any, said: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        load(with_key(key, value))
    assert refusal.value.what == said


def test_what_is_missing_is_named_all_at_once() -> None:
    with pytest.raises(RecipeError) as refusal:
        load({"train": {"batch_size": 0}})
    assert refusal.value.what.split("\n  ") == [
        "'model' is missing",
        "'task' is missing",
        "'data' is missing",
        "'train.batch_size' must be greater than 0 (got 0)",
    ]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"data": {"train": "/a", "validation": 0.5, "test": 0.5}}, r"take all rows \(0\.5 \+ 0\.5\)"),
        ({"task": {"kind": "completion", "fim_spm_rate": 0.5}}, "has no effect without task.fim_rate"),
        ({"train": {"early_stopping_threshold": 0.1}}, "has no effect without train.early_stopping_patience"),
    ],
)
def test_settings_that_cancel_each_other_are_an_error(values: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load({**LEAST, **values})


@pytest.mark.parametrize("task", [kind().kind for kind in TASKS])
def test_an_instruction_is_for_the_tasks_that_have_a_prompt(task: str) -> None:
    values = {**LEAST, "task": task, "data": {"train": "/a", "instruction": "b"}}
    if task in ("chat", "completion", "seq2seq"):
        assert load(values).data.instruction == "b"
    else:
        with pytest.raises(RecipeError, match=f"data.instruction has no effect with task: {task}"):
            load(values)


@pytest.mark.parametrize("task", KINDS.split(", "))
def test_beams_are_for_the_task_that_has_them(task: str) -> None:
    values = {**LEAST, "task": task, "evaluate": {"num_beams": 2}}
    if task == "seq2seq":
        assert load(values).evaluate.num_beams == 2
    else:
        with pytest.raises(RecipeError, match=f"evaluate.num_beams has no effect with task: {task}"):
            load(values)
    assert load({**values, "evaluate": {"num_beams": 1}}).evaluate.num_beams == 1


@pytest.mark.parametrize("role", ["score", "labels"])
def test_a_role_can_be_several_columns(role: str) -> None:
    for columns in (("one", "two"), ("one",), "one"):
        recipe = load({**LEAST, "data": {"train": "/a", "columns": {role: columns, "text": "said"}}})
        assert recipe.data.columns == {role: columns, "text": "said"}
        assert load(yaml.safe_load(dump(recipe))) == recipe
    assert recipe.data.column("text") == "said"
    assert recipe.data.column("text_pair") == "text_pair"


def test_a_thousand_mistakes_make_a_short_message() -> None:
    with pytest.raises(RecipeError, match="and 980 more") as refusal:
        load(with_key("data.allow", list(range(1000))))
    assert len(refusal.value.what.split("\n")) == 21


NOISE = re.compile(
    r"pydantic|Input should|[Vv]alue error|function-|tuple\[|literal\[|constrained|\[key\]|\[type=|errors\.|NoneType"
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.binary(max_size=3)
wrong = st.recursive(
    scalars | st.text(alphabet=st.characters(codec=None), max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(scalars, inner, max_size=3) | st.sets(st.integers(), max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=1000)
@given(key=st.sampled_from([*OTHER, *CLASSES]), value=wrong)
def test_any_value_is_taken_or_refused_in_our_words(key: str, value: Any) -> None:
    try:
        recipe = validate(with_key(key, value))
    except RecipeError as error:
        section = key.partition(".")[0]
        assert section in error.what
        assert not NOISE.search(error.what)
        assert len(error.what) < 1500
    else:
        assert (
            load(yaml.safe_load(dump(recipe))).model_copy(update={"data": recipe.data, "model": recipe.model}) == recipe
        )


@settings(max_examples=300)
@given(values=st.dictionaries(scalars | st.sampled_from([*CLASSES, "seed"]), wrong, max_size=4))
def test_any_mapping_is_taken_or_refused_in_our_words(values: dict[Any, Any]) -> None:
    with pytest.raises(RecipeError) as refusal:
        validate(values)  # nothing here happens to be a whole recipe
    assert not NOISE.search(refusal.value.what)


def test_no_kind_of_mistake_of_pydantics_is_without_words_of_ours() -> None:
    """The fallback sentence is for a kind that a later version invents; no value above may reach it."""
    for key, value, _ in WRONG:
        with pytest.raises(RecipeError) as refusal:
            load(with_key(key, value))
        assert "is not allowed (" not in refusal.value.what


# ---- the schema for editors ------------------------------------------------------------------------------------------


def test_an_editor_takes_the_shorthands_for_valid() -> None:
    schema = Recipe.model_json_schema()
    for section in ("model", "task", "data", "method"):
        assert {"type": "string"} in schema["properties"][section]["anyOf"]
    data = schema["$defs"]["Data"]["properties"]
    for name in ("train", "validation", "test"):
        assert {"type": "string"} in data[name]["anyOf"]
    assert set(data["columns"]["propertyNames"]["enum"]) == set(typing.get_args(roles()))


def roles() -> Any:
    from pegbox.recipe import schema

    return schema.Role


def test_every_class_and_field_that_an_editor_shows_has_its_limits() -> None:
    text = json.dumps(Recipe.model_json_schema())
    assert '"gt"' not in text and '"lt"' not in text  # pydantic's own words, which no editor knows
    for kinds in CLASSES.values():
        for kind in kinds:
            assert issubclass(kind, BaseModel) and kind.__doc__
