"""How to use the model and how to do the run again: code that parses, commands that a shell takes as one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from made_run import chat_lines, lines_of, make_run, page_of, recipe_of
from page_reader import read_page
from small_tokenizers import tokenizer

from made_tasks import made_task
from pegbox.data.formats import to_record
from pegbox.data.records import Row
from pegbox.data.render import Renderer
from pegbox.report.html import report


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("task", ["chat", "completion", "classification"])
def test_the_code_is_python_and_fits_task_and_method(tmp_path: Path, task: str, method: str) -> None:
    primary = "f1_macro" if task == "classification" else "exact_match"
    instruction = 'Say "no" ```\n\\ and \u00fc' if task != "classification" else None
    data = {"train": "rows.jsonl", "columns": {"text": "re'view", "prompt": 'a "b"'}, "instruction": instruction}
    recipe = recipe_of(task, primary, method=method, data=data)
    lines = lines_of({"trivial": ["a"] * 9, "tuned": ["b"] * 9}, ["b"] * 9, ["?"] * 9)
    blocks = [block.raw_text for block in page_of(tmp_path, recipe, lines).all("pre")]
    ours, theirs = (block for block in blocks if "import " in block)
    strings = {
        node.value for block in (ours, theirs) for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Constant)
    }
    head = "SequenceClassification" if task == "classification" else "CausalLM"
    assert f'Auto{"Peft" if method == "lora" else ""}ModelFor{head}.from_pretrained("model"' in theirs
    assert ("from peft import" in theirs) == (method == "lora")
    wanted = {"chat": instruction, "completion": f"{instruction}\n...", "classification": "re'view"}[task]
    assert wanted in strings
    assert ("apply_chat_template" in theirs) == (task == "chat")
    assert 'a "b"' in strings or task != "completion"


def test_commands_are_for_the_shell(tmp_path: Path) -> None:
    recipe = recipe_of()
    folder = make_run(tmp_path / "my run; rm -rf $HOME", recipe, chat_lines(9))
    blocks = [block.text for block in read_page(report(folder, recipe)).all("pre")]
    assert f"cd '{folder.path}'" in blocks
    assert "pegbox train recipe.yaml --run-dir ../again" in blocks
    assert "pegbox evaluate ." in blocks


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_classifier_of_pairs_is_given_both_texts(tmp_path: Path, method: str) -> None:
    data = {"train": "rows.jsonl", "columns": {"text_pair": "second one"}}
    recipe = recipe_of("classification", "f1_macro", method=method, data=data)
    lines = lines_of({"trivial": ["a"] * 9, "tuned": ["b"] * 9}, ["b"] * 9, ["?"] * 9)
    for pair, ours, theirs in (
        (True, 'run.predict([{"text": "...", "second one": "..."}])', 'tokenizer("...", "...", return_tensors="pt")'),
        (False, 'run.predict([{"text": "..."}])', 'tokenizer("...", return_tensors="pt")'),
    ):
        task = {"labels": ["a", "b"], "text_pair": pair}
        page = page_of(tmp_path / str(pair), recipe, lines, task=task)
        code = "\n".join(block.raw_text for block in page.all("pre"))
        assert ours in code and theirs in code


def test_whether_texts_come_in_pairs_is_found_out_from_the_rows() -> None:
    values = ({"text": "a", "label": "x"}, {"text": "b", "label": "y"})
    task = made_task("classification", Renderer(tokenizer("wordpiece"), ()))
    for pairs in (False, True):
        rows = [Row("rows:1", given | ({"text_pair": "c"} if pairs else {})) for given in values]
        task.observe([to_record(row, "classification", {}) for row in rows])
        assert task.state() == {"labels": ["x", "y"], "text_pair": pairs}
