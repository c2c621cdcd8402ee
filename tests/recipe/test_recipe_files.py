"""A recipe from a YAML file: numbers, paths, overrides, and every file that is not one."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from named_sources import paths
from pegbox.errors import RecipeError
from pegbox.recipe import load, mistakes

LEAST = "model: some/model\ntask: chat\ndata: rows.jsonl\n"


def written(folder: Path, text: str | bytes, name: str = "recipe.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


# ---- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2e-4", 2e-4),
        ("2E-4", 2e-4),
        ("1e3", 1000),
        ("+5e-1", 0.5),
        ("2.0e-4", 2e-4),
        (".5", 0.5),
        ("3", 3),
        ("1_0.5e1", 105),
    ],
)
def test_a_number_is_a_number_in_every_notation(tmp_path: Path, text: str, number: float) -> None:
    recipe = load(written(tmp_path, LEAST + f"train: {{learning_rate: {text}}}"))
    assert recipe.train.learning_rate == number
    assert load(written(tmp_path, LEAST), [f"train.learning_rate={text}"]).train.learning_rate == number


def test_what_only_looks_like_a_number_is_text(tmp_path: Path) -> None:
    for name in ("e5", "1e", "2e-4b", "--1e5"):
        assert load(written(tmp_path, f"model: {name}\ntask: chat\ndata: rows.jsonl\n")).model.name == name


# ---- paths -----------------------------------------------------------------------------------------------------------


def test_files_are_relative_to_the_recipe_and_absolute_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    text = (
        "model: m/n\ntask: chat\ndata: {train: [rows.jsonl, ../up.csv, /abs.jsonl], test: test.jsonl, validation: 0.2}"
    )
    path = written(tmp_path / "sub", text)
    wanted = (str(tmp_path / "sub/rows.jsonl"), str(tmp_path / "up.csv"), "/abs.jsonl")
    for folder, name in (
        (tmp_path, path),
        (tmp_path, Path("sub/recipe.yaml")),
        (tmp_path / "sub", Path("recipe.yaml")),
    ):
        monkeypatch.chdir(folder)
        data = load(name).data
        assert paths(data.train) == wanted
        assert paths(data.test) == (str(tmp_path / "sub/test.jsonl"),)
        assert data.validation == 0.2


def test_files_of_a_mapping_are_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load({"model": "m/n", "task": "chat", "data": "rows.jsonl"})
    assert paths(recipe.data.train) == (str(tmp_path / "rows.jsonl"),)
    monkeypatch.chdir("/")
    assert load(recipe) == recipe


def test_a_home_directory_is_spelt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    recipe = load({"model": "~/model.gguf", "task": "chat", "data": "~/rows.jsonl"})
    assert paths(recipe.data.train) == ("/home/somebody/rows.jsonl",)
    assert recipe.model.name == "/home/somebody/model.gguf"


@pytest.mark.parametrize(
    ("name", "is_path"),
    [
        ("./model", True),
        ("../model", True),
        ("model.gguf", True),
        ("here/model", True),
        ("org/model", False),
        ("gpt2", False),
    ],
)
def test_a_models_name_is_a_path_where_it_looks_like_one_or_is_one(tmp_path: Path, name: str, is_path: bool) -> None:
    (tmp_path / "here/model").mkdir(parents=True)
    got = load(written(tmp_path, f"model: {name}\ntask: chat\ndata: rows.jsonl\n")).model.name
    assert got == (os.path.abspath(tmp_path / name) if is_path else name)


# ---- overrides -------------------------------------------------------------------------------------------------------


def override(*given: str, **values: Any) -> Any:
    return load({"model": "some/model", "task": "chat", "data": "/rows.jsonl", **values}, given)


def test_a_shorthand_becomes_a_mapping_where_a_key_of_it_is_overridden() -> None:
    recipe = override("data.max_length=99", "model.name=other", "method.kind=full", "data.columns.prompt=question")
    assert paths(recipe.data.train) == ("/rows.jsonl",)
    assert (recipe.data.max_length, recipe.model.name, recipe.method.kind) == (99, "other", "full")
    assert recipe.data.columns == {"prompt": "question"}


def test_a_later_override_wins_and_the_mapping_given_is_left_alone() -> None:
    values = MappingProxyType({"model": "m/n", "task": "chat", "data": MappingProxyType({"train": "/rows.jsonl"})})
    recipe = load(values, ["seed=1", "seed=2", "data.max_length=9"])
    assert (recipe.seed, recipe.data.max_length, paths(recipe.data.train)) == (2, 9, ("/rows.jsonl",))
    assert dict(values["data"]) == {"train": "/rows.jsonl"}  # type: ignore[call-overload]


def test_an_empty_section_can_be_filled() -> None:
    assert override("train.batch_size=4", train=None).train.batch_size == 4


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("seed", "'seed' is not key=value"),
        ("=5", "'=5' is not key=value"),
        (" =5", "is not key=value"),
        ("trian.batch_size=5", "unknown key 'trian': did you mean 'train'"),
        ("train.batch_sise=5", "unknown key 'train.batch_sise': did you mean 'batch_size'"),
        ("train..batch_size=5", "unknown key 'train.'"),
        ("seed.x=5", "'seed' has no keys in this recipe, so 'seed.x' cannot be set"),
        ("train.batch_size=[1", "not valid YAML"),
        ("train.batch_size=", "'train.batch_size' must be a whole number (got nothing)"),
        ("data.train=", "'data.train' must be a file, a dataset or a list of them (got nothing)"),
    ],
)
def test_a_wrong_override_is_refused(given: str, said: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        override(given, seed=1)
    assert said in str(refusal.value)


# ---- files that are no recipe ----------------------------------------------------------------------------------------

NO_RECIPE = {
    "an empty file": (b"", "a recipe is a mapping of keys", None),
    "a comment": (b"# nothing\n", "a recipe is a mapping of keys", None),
    "a list": (b"- a\n- b\n", "a recipe is a mapping of keys", None),
    "a text": (b"hello", "a recipe is a mapping of keys", None),
    "a number": (b"5", "a recipe is a mapping of keys", None),
    "two documents": (b"a: 1\n---\nb: 2\n", "not valid YAML", 2),
    "a bracket left open": (b"model: m\ndata: [a,\n", "not valid YAML", 3),
    "a tab": (b"model: m\ndata:\n\ttrain: a\n", "not valid YAML", 3),
    "a key given twice": (b"model: m\ntask: chat\nseed: 1\nseed: 2\n", "the key 'seed' is given twice", 4),
    "a key given twice, deeper": (b"model: m\ntrain:\n  r: 1\n  q: 2\n  r: 3\n", "the key 'r' is given twice", 5),
    "a key that is a list": (b"[a]: 1\n", "not valid YAML", 1),
    "a merge": (b"a: &a {b: 1}\nc:\n  <<: *a\n", "merge keys (<<) are not read", 3),
    "an alias to nothing": (b"a: *b\n", "not valid YAML", 1),
    "a tag of Python's": (b"a: !!python/object/apply:os.system [ls]\n", "not valid YAML", 1),
    "a control character": (b"model: \x00\n", "not valid YAML", None),
    "bytes that are not UTF-8": (b"model: \xff\n", "not UTF-8", None),
    "UTF-16": ("model: m\n".encode("utf-16"), "not UTF-8", None),
    "a month too many": (b"seed: 2024-13-01\n", "not valid YAML", None),
    "a number of 5,000 digits": (b"seed: " + b"9" * 5000 + b"\n", "not valid YAML", None),
    "deep nesting": (b"a: " + b"[" * 20_000, "nested too deeply", None),
}


@pytest.mark.parametrize("hazard", NO_RECIPE)
def test_a_file_that_is_no_recipe_is_refused_with_its_name_and_line(tmp_path: Path, hazard: str) -> None:
    content, said, line = NO_RECIPE[hazard]
    path = written(tmp_path, content)
    with pytest.raises(RecipeError) as refusal:
        load(path)
    assert said in refusal.value.what
    assert refusal.value.where == (str(path) if line is None else f"{path}:{line}")


def test_a_missing_recipe_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "recipe.yaml", tmp_path):
        with pytest.raises(RecipeError, match="no such recipe file"):
            load(path)


def test_a_recipe_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refusing)
    with pytest.raises(RecipeError, match="cannot be read: Permission denied"):
        load(written(tmp_path, LEAST))


def test_a_byte_order_mark_and_carriage_returns_are_read_right(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + LEAST.replace("\n", "\r\n").encode()
    assert load(written(tmp_path, content)) == load(written(tmp_path, LEAST))


# ---- aliases ---------------------------------------------------------------------------------------------------------


def bomb(levels: int, opening: str = "[", closing: str = "]") -> str:
    """Each level names the one before nine times: nine to the power of `levels` when it is spelt out."""
    lines = ["l0: &l0 [lol]"]
    for level in range(1, levels):
        lines.append(f"l{level}: &l{level} {opening}{', '.join([f'*l{level - 1}'] * 9)}{closing}")
    return "\n".join(lines) + "\n"


BOMBS = {
    "a list": bomb(40) + "seed: *l39\n",
    "in the place of files": LEAST.replace("rows.jsonl", "*l39").join([bomb(40), ""]),
    "a mapping": "l0: &l0 {a: b}\n" + "\n".join(
        f"l{n}: &l{n} {{{', '.join(f'k{i}: *l{n - 1}' for i in range(9))}}}" for n in range(1, 40)
    ) + "\ntrain: *l39\n",
    "merges": "l0: &l0 {a: b}\n" + "\n".join(
        f"l{n}: &l{n} {{<<: [{', '.join([f'*l{n - 1}'] * 9)}]}}" for n in range(1, 40)
    ) + "\n",
    "a list that holds itself": "seed: &a [*a]\ntrain: &b {x: *b}\n",
}  # fmt: skip


def check_refused_at_once(path: Path) -> None:
    begun = time.process_time()
    with pytest.raises(RecipeError) as refusal:
        load(path)
    assert time.process_time() - begun < 2
    assert len(str(refusal.value)) < 10_000


@pytest.mark.parametrize("kind", BOMBS)
def test_a_recipe_that_grows_without_end_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    check_refused_at_once(written(tmp_path, BOMBS[kind]))


def test_a_message_that_spells_aliases_out_is_caught_when_there_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = written(tmp_path, bomb(6) + "seed: *l5\n")
    check_refused_at_once(small)
    monkeypatch.setattr(mistakes, "_brief", repr)
    with pytest.raises(AssertionError):
        check_refused_at_once(small)


def test_an_alias_is_read(tmp_path: Path) -> None:
    text = "model: some/model\ntask: chat\ndata: {train: &rows [a.jsonl], test: *rows}\n"
    data = load(written(tmp_path, text)).data
    assert data.train == data.test


@settings(max_examples=300)
@given(text=st.text(max_size=40) | st.text("model:taskd\n -{}[]&*!|>'\"#,?%@`<0123456789.e", max_size=40))
def test_any_text_is_a_recipe_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError):
        load(path)
