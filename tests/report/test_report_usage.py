"""How to use the model and how to do the run again: code that parses, commands that a shell takes as one."""

from __future__ import annotations

import ast
import contextlib
import io
import runpy
from pathlib import Path
from typing import Any

import pytest
from made_run import chat_lines, lines_of, make_run, page_of, recipe_of
from page_reader import read_page
from small_tokenizers import tokenizer

import pegbox
from made_tasks import made_task
from pegbox.data.formats import to_record
from pegbox.data.records import Row
from pegbox.data.render import Renderer
from pegbox.finished import Run
from pegbox.report import facts, usage
from pegbox.report.html import report
from tiny_folder import causal_folder, chat_recipe, encoder_decoder_folder, encoder_folder, write_rows
from tiny_masked import masked_folder


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
        (True, 'run.predict([{"text": "...", "second one": "..."}])', 'text, text_pair = "...", "..."'),
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
        assert task.state()["text_pair"] is pairs


# ---- the code is run ------------------------------------------------------------------------------------------------

ROWS: dict[str, list[dict[str, Any]]] = {
    "classification": [{"text": f"the dog {n}", "label": "abc"[n % 3]} for n in range(40)],
    "pairs": [{"text": f"dog {n}", "text_pair": f"the {n % 4}", "label": "abc"[n % 3]} for n in range(40)],
    "multilabel": [{"text": f"the dog {n}", "labels": ["a", "b", "c"][: n % 4]} for n in range(40)],
    "regression": [{"text": f"the dog {n}", "score": [1990.0 + n, n % 5]} for n in range(40)],
    "token_classification": [
        {"tokens": ["Anna", "sees", f"{n}"], "tags": ["B-PER", "O", "O" if n % 2 else "B-NUM"]} for n in range(40)
    ],
    "masked_lm": [{"text": f"the dog sleeps {n}"} for n in range(40)],
    "seq2seq": [{"source": f"the dog {n}", "target": f"dog {n}"} for n in range(40)],
    "embedding": [{"text": f"the dog {n}", "text_pair": f"it sleeps {n}"} for n in range(40)],
}
ASKED: dict[str, dict[str, Any]] = {name: rows[3] for name, rows in ROWS.items()}


def tiny_run(folder: Path, name: str, method: str, model: str) -> Run:
    kinds = {
        "encoder": encoder_folder,
        "causal": causal_folder,
        "masked": masked_folder,
        "both": encoder_decoder_folder,
    }
    made = kinds[model](folder / "model")
    kind = "classification" if name == "pairs" else name
    changes: dict[str, Any] = {"method": {"kind": method}, "train": {"max_steps": 3, "batch_size": 8}}
    rows = write_rows(folder / "rows.jsonl", ROWS[name])
    return pegbox.train(chat_recipe(made, rows, task=kind, **changes), run_dir=folder / "run")


def said_by(code: str, run: Run, asked: dict[str, Any]) -> str:
    """What the code prints when it is run in the run folder, with the row in the place of its dots."""
    code = code.replace('["...", "..."]', repr(asked.get("tokens")))
    for text in (asked.get("text", asked.get("source")), asked.get("text_pair")):
        code = code.replace('"..."', repr(text), 1)
    file, out = run.path / "use.py", io.StringIO()
    file.write_text(
        code.replace('f"... {tokenizer', 'f"the {tokenizer').replace('} ..."', '} sleeps"'), encoding="utf-8"
    )
    with contextlib.chdir(run.path), contextlib.redirect_stdout(out):
        runpy.run_path(str(file))
    return out.getvalue().strip()


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("pairs", "encoder"),
        ("pairs", "causal"),
        ("multilabel", "encoder"),
        ("regression", "encoder"),
        ("token_classification", "encoder"),
        ("token_classification", "causal"),
        ("masked_lm", "masked"),
        ("seq2seq", "both"),
        ("embedding", "encoder"),
        ("embedding", "causal"),
    ],
)
def test_the_code_without_pegbox_gives_the_answers_of_the_run(
    tmp_path: Path, name: str, model: str, method: str
) -> None:
    run = tiny_run(tmp_path, name, method, model)
    asked = {
        role: value for role, value in ASKED[name].items() if role not in ("label", "labels", "score", "tags", "target")
    }
    if name == "embedding":
        del asked["text_pair"]
    (answer,) = run.predict([asked])
    ours, theirs = usage.with_pegbox(run.recipe, run.receipt), usage.without_pegbox(run.recipe, run.receipt)
    assert said_by(ours, run, asked) == str(answer)
    said = said_by(theirs, run, asked)
    assert "pegbox" not in theirs
    if name == "pairs":
        given = run.answers([run.task_record(Row("row", asked))]).probabilities[0]
        wanted = sorted(given.items(), key=lambda pair: -pair[1])
        assert said.split() == [word for label, share in wanted for word in (f"{share:.3f}", label)]
        assert wanted[0][0] == answer
    elif name == "multilabel":
        assert said == str(answer)
    elif name == "regression":
        numbers = [float(line.rsplit(" ", 1)[1]) for line in said.split("\n")]
        assert numbers == pytest.approx(answer, rel=1e-4)
        assert [line.rsplit(" ", 1)[0] for line in said.split("\n")] == ["score 1", "score 2"]
    elif name == "token_classification":
        tags = [line.split()[-1] for line in said.split("\n")]
        words = asked["tokens"]
        assert [line.split()[0] for line in said.split("\n")] == words
        record = run.task_record(Row("row", asked | {"tags": tags}))
        assert run.task.reference(record) == answer
    elif name == "seq2seq":
        assert said == answer.strip()
    elif name == "embedding":
        assert ast.literal_eval(said) == pytest.approx(answer, abs=1e-5)
    else:
        tokenizer = run.task.renderer.tokenizer
        ids = tokenizer(f"the {tokenizer.mask_token} sleeps", return_tensors="pt")
        place = ids["input_ids"][0].tolist().index(tokenizer.mask_token_id)
        best = run.model(**ids).logits[0, place].softmax(-1).topk(5)
        wanted = [f"{share:.3f} {tokenizer.decode(token)}" for share, token in zip(*best, strict=True)]
        assert [line.strip() for line in said.split("\n")] == wanted


METHODS: list[tuple[Any, str, str]] = [
    ("full", "Transformers", "full fine-tuning"),
    ({"kind": "freeze", "top_layers": 2, "parts": ["norms"]}, "Transformers", "the top 2 layers, norms"),
    ({"kind": "freeze"}, "Transformers", "the head alone"),
    ({"kind": "lora", "r": 4}, "Transformers and PEFT", "LoRA, r 4, lora_alpha 8"),
    ({"kind": "lora", "r": 4, "use_dora": True, "use_rslora": True}, "Transformers and PEFT", "rsDoRA, r 4"),
    ({"kind": "lora", "init_lora_weights": "pissa"}, "Transformers and PEFT", "started by pissa"),
    ({"kind": "peft", "peft_type": "ia3"}, "Transformers and PEFT", "IA3 by PEFT"),
    ({"kind": "adapter", "bottleneck_size": 8}, "", "bottleneck adapters (houlsby), size 8"),
]


@pytest.mark.parametrize(("method", "libraries", "said"), METHODS, ids=lambda value: str(value) if value else "none")
def test_a_method_is_named_and_its_model_is_loaded_by_what_can(
    method: Any, libraries: str, said: str, tmp_path: Path
) -> None:
    recipe = recipe_of(method=method)
    page = page_of(tmp_path, recipe, chat_lines(9))
    assert said in facts.method(recipe) and said in page.text
    assert usage.libraries(recipe) == libraries
    code = usage.without_pegbox(recipe, {"task": {}, "model": {"heads": []}})
    assert ("peft" in code) == ("PEFT" in libraries) and ("from_pretrained" in code) == bool(libraries)
    assert ("no other library" in page.text) == (libraries == "")


def test_a_base_that_was_held_otherwise_is_told(tmp_path: Path) -> None:
    recipe = recipe_of(model={"name": "some/model", "quantization": "nf4", "add_tokens": ["<a>", "<b>"]})
    page = page_of(tmp_path, recipe, chat_lines(9))
    assert "held in nf4, 2 new tokens" in page.text and "held in nf4 by bitsandbytes" in page.text
    assert facts.base(recipe_of()) == ""
