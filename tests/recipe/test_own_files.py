"""A function of the user's own: found, run afresh, and each way to be wrong told with the place in the user's file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pegbox.errors import RecipeError
from pegbox.recipe import OwnLoss, is_own, load, load_own, own_files
from pegbox.recipe.own import failure


def written(folder: Path, text: str | bytes, name: str = "mine.py") -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return str(path)


def test_the_function_of_that_name_is_loaded(tmp_path: Path) -> None:
    path = written(tmp_path, "import math\n\ndef one(x):\n    return math.sqrt(x)\n\ndef other(x):\n    return x\n")
    assert load_own(f"{path}:one", "train.loss")(9) == 3.0
    assert load_own(f"{path}:other", "train.loss")(9) == 9


def test_a_file_that_changed_within_the_second_and_to_the_same_size_is_run_as_it_is(tmp_path: Path) -> None:
    """Python's own cache of bytecode would give the first of them again: it goes by whole seconds and the size."""
    now = 1_700_000_000
    for number in (1, 2):
        path = written(tmp_path, f"def f():\n    return {number}\n")
        os.utime(path, (now, now))
        assert load_own(f"{path}:f", "train.loss")() == number
    assert os.listdir(tmp_path) == ["mine.py"]  # and it leaves nothing beside the user's file


def test_two_files_of_one_name_are_two(tmp_path: Path) -> None:
    loaded: list[Callable[..., Any]] = []
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        path = written(tmp_path / str(number), f"VALUE = {number}\ndef f():\n    return VALUE\n")
        loaded.append(load_own(f"{path}:f", "train.loss"))
    assert [function() for function in loaded] == [1, 2]


def test_what_looks_its_module_up_works_in_it(tmp_path: Path) -> None:
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n"
        "@dataclass\nclass Costs:\n    fine: float\n\ndef f():\n    return Costs(2.5).fine\n"
    )
    assert load_own(f"{written(tmp_path, text)}:f", "train.loss")() == 2.5


def test_its_folder_is_no_place_to_import_from(tmp_path: Path) -> None:
    """One hash could not tell whether a second file changed."""
    written(tmp_path, "COST = 1\n", "beside.py")
    with pytest.raises(RecipeError, match=r"No module named 'beside' \(line 1\)"):
        load_own(f"{written(tmp_path, 'import beside')}:f", "train.loss")


WRONG: dict[str, tuple[str | bytes, str, str]] = {
    "no such name": ("def g(): pass\n", "has no 'f'", "it defines g"),
    "nothing in it": ("", "has no 'f'", "it defines no function"),
    "no function": ("f = 3\n", "is no function, it is int", "./my_loss.py:my_loss"),
    "an import": ("\nimport no_such_package\n", "No module named 'no_such_package' (line 2)", "what is installed"),
    "a raise below": ("def g():\n    raise KeyError('x')\n\ng()\n", "KeyError: 'x' (line 2)", "until `python mine.py` runs"),
    "a division": ("x = 1 / 0\n", "ZeroDivisionError: division by zero (line 1)", "until `python mine.py` runs"),
    "an exit": ("import sys\nsys.exit(3)\n", "SystemExit: 3 (line 2)", "until `python mine.py` runs"),
    "bad syntax": ("x = 1\ndef f(:\n    pass\n", "SyntaxError: invalid syntax (line 2)", "until `python mine.py` runs"),
    "bad indentation": ("def f():\nreturn\n", "(line 2)", "until `python mine.py` runs"),
    "no UTF-8": (b"x = '\xff'\n", "SyntaxError", "until `python mine.py` runs"),
    "a zero byte": (b"\x00", "null bytes", "until `python mine.py` runs"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG)
def test_a_file_that_does_not_serve_is_refused_with_the_place_and_the_cure(tmp_path: Path, fault: str) -> None:
    text, said, cure = WRONG[fault]
    path = written(tmp_path, text)
    before = set(sys.modules)
    with pytest.raises(RecipeError) as refusal:
        load_own(f"{path}:f", "train.loss")
    assert refusal.value.where == "train.loss"
    assert said in refusal.value.what
    assert path in refusal.value.what
    assert cure in str(refusal.value.cure)
    if "cannot be run" in refusal.value.what:
        assert set(sys.modules) == before


@pytest.mark.parametrize("reference", ["mine.py", "mine.py:", "mine.py:a.b", "mine.txt:f", ":f", "f", "mine.py:a b"])
def test_a_name_of_another_form_is_refused(reference: str) -> None:
    with pytest.raises(RecipeError, match="is not PATH.py:NAME"):
        load_own(reference, "--metric")


@pytest.mark.parametrize("name", ["none.py", "folder.py"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(RecipeError, match=f"train.loss: cannot read .*{name}"):
        load_own(f"{tmp_path / name}:f", "train.loss")


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("./mine.py:f", True),
        ("mine.py", True),
        ("mine.py:", True),
        ("C:\\folder\\mine.py:f", True),
        ("f1_macro", False),
        ("recall_at_10", False),
        ("happy", False),
    ],
)
def test_what_is_ones_own_is_told_from_a_name_of_pegboxs(name: str, own: bool) -> None:
    assert is_own(name) == own


def test_the_last_line_of_the_users_own_file_is_named(tmp_path: Path) -> None:
    text = "import json\n\ndef f(said):\n    return json.loads(said)\n"
    path = written(tmp_path, text)
    function = load_own(f"{path}:f", "train.loss")
    with pytest.raises(ValueError) as raised:
        function("{")
    assert failure(raised.value, path).startswith("JSONDecodeError: ")
    assert failure(raised.value, path).endswith("(line 4)")
    assert failure(raised.value, "another.py").endswith("(char 1)")


# ---- in a recipe -----------------------------------------------------------------------------------------------------

TEXT = """
model: m/n
task: classification
data: rows.jsonl
train: {loss: LOSS}
evaluate: {metrics: [accuracy, ./rates.py:rate, ../up.py:rate], primary: ./rates.py:rate}
"""


@pytest.mark.parametrize("loss", ["./mine.py:f", "{kind: own, function: mine.py:f}"])
def test_functions_are_relative_to_the_recipe_and_absolute_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    """Mutation: without `_absolute` for one of the three keys, the names below stay as they are written."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "recipe.yaml").write_text(TEXT.replace("LOSS", loss), encoding="utf-8")
    monkeypatch.chdir("/")
    recipe = load(tmp_path / "sub" / "recipe.yaml")
    here, above = str(tmp_path / "sub" / "rates.py"), str(tmp_path / "up.py")
    assert recipe.train.loss is not None
    assert recipe.train.loss.kind == "own"
    assert recipe.train.loss.function == f"{tmp_path / 'sub' / 'mine.py'}:f"
    assert recipe.evaluate.metrics == ("accuracy", f"{here}:rate", f"{above}:rate")
    assert recipe.evaluate.primary == f"{here}:rate"
    assert own_files(recipe) == [str(tmp_path / "sub" / "mine.py"), here, above]
    assert load(recipe) == recipe


def test_a_recipe_of_pegboxs_own_names_alone_has_no_files(tmp_path: Path) -> None:
    values = {"model": "m/n", "task": "classification", "data": "/rows.jsonl", "train": {"loss": "focal"}}
    recipe = load({**values, "evaluate": {"metrics": ["accuracy"], "primary": "accuracy"}})
    assert own_files(recipe) == []
    assert recipe.evaluate.metrics == ("accuracy",)


def test_a_file_is_run_only_when_it_is_asked_for(tmp_path: Path) -> None:
    """To read a recipe runs nothing: a recipe may be looked at before it is trusted."""
    written(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w').close()\ndef f(): pass\n")
    (tmp_path / "recipe.yaml").write_text(TEXT.replace("LOSS", "./mine.py:f"), encoding="utf-8")
    recipe = load(tmp_path / "recipe.yaml")
    assert not (tmp_path / "ran").exists()
    load_own(f"{own_files(recipe)[0]}:f", "train.loss")
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("key", ["metrics", "primary"])
def test_a_metric_of_ones_own_without_its_name_is_refused(key: str) -> None:
    value = "rates.py" if key == "primary" else ["rates.py"]
    with pytest.raises(RecipeError, match=f"'evaluate.{key}' must be PATH.py:NAME, not 'rates.py'"):
        load({"model": "m/n", "task": "classification", "data": "/rows.jsonl", "evaluate": {key: value}})


# ---- functions given in Python ---------------------------------------------------------------------------------------


def squared(outputs: Any, targets: Any, weights: Any) -> Any:
    raise AssertionError("named here, never called")


def test_a_function_given_in_python_is_kept_as_the_file_and_the_name_by_which_a_run_finds_it_again() -> None:
    given = {"train": {"loss": squared}, "evaluate": {"metrics": ["rmse", squared], "primary": squared}}
    recipe = load({"model": "m", "task": "regression", "data": "rows.jsonl", **given})
    named = f"{Path(__file__).absolute()}:squared"
    assert recipe.train.loss == OwnLoss(function=named)
    assert (recipe.evaluate.metrics, recipe.evaluate.primary) == (("rmse", named), named)
    assert load_own(named, "train.loss").__name__ == "squared"


def test_a_function_that_no_file_holds_by_its_name_is_refused() -> None:
    def inner(outputs: Any, targets: Any, weights: Any) -> Any: ...

    for function in (inner, lambda outputs, targets, weights: None):
        with pytest.raises(RecipeError, match="does not stand in a file of its own"):
            load({"model": "m", "task": "regression", "data": "rows.jsonl", "train": {"loss": function}})
