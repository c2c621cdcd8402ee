"""How to use a run's model and how to do the run again: code and commands, right for its task and its method.

All of it is to be run inside the run folder, so that nothing here depends on where that lies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pegbox.recipe import Recipe

ASKED = "..."  # what a reader puts their own text for


def _quoted(value: str | Mapping[str, str]) -> str:
    """Text, or a mapping of texts, as a Python literal on one line: what JSON writes for them is one."""
    return json.dumps(value, ensure_ascii=False)


def with_pegbox(recipe: Recipe, receipt: Mapping[str, Any]) -> str:
    """Python for pegbox: one answer, in the form of the training rows."""
    if recipe.task.kind == "chat" or receipt["task"].get("plain"):
        call = f"run.generate({_quoted(ASKED)}, max_new_tokens={recipe.evaluate.max_new_tokens})"
    else:
        roles = _text_roles(receipt) if recipe.task.kind == "classification" else ["prompt"]
        row = {recipe.data.column(role): ASKED for role in roles}
        call = f"run.predict([{_quoted(row)}])[0]"
    return f'import pegbox\n\nrun = pegbox.load(".")\nprint({call})'


def without_pegbox(recipe: Recipe, receipt: Mapping[str, Any]) -> str:
    """Python for Transformers (and PEFT where only an adapter was trained)."""
    if recipe.task.kind == "classification":
        return _classifier(len(_text_roles(receipt)), adapter=recipe.method.kind == "lora")
    return _generator(recipe, adapter=recipe.method.kind == "lora")


def _text_roles(receipt: Mapping[str, Any]) -> list[str]:
    """What a classifier was trained to read: a text, or a pair of them."""
    return ["text", "text_pair"] if receipt["task"]["text_pair"] else ["text"]


def _classifier(texts: int, *, adapter: bool) -> str:
    load = (
        "from peft import AutoPeftModelForSequenceClassification\n"
        "from transformers import AutoTokenizer\n\n"
        'labels = json.loads(Path("receipt.json").read_text(encoding="utf-8"))["task"]["labels"]\n'
        'model = AutoPeftModelForSequenceClassification.from_pretrained("model", num_labels=len(labels)).eval()\n'
    )
    if not adapter:
        load = (
            "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
            'model = AutoModelForSequenceClassification.from_pretrained("model").eval()\n'
        )
    best = "labels[best]" if adapter else "model.config.id2label[best]"
    return (
        ("import json\nfrom pathlib import Path\n\n" if adapter else "")
        + load
        + 'tokenizer = AutoTokenizer.from_pretrained("model")\n'
        + f'inputs = tokenizer({", ".join([_quoted(ASKED)] * texts)}, return_tensors="pt")\n'
        + "best = model(**inputs).logits.argmax(-1).item()\n"
        + f"print({best})"
    )


def _generator(recipe: Recipe, *, adapter: bool) -> str:
    owner, model = ("peft", "AutoPeftModelForCausalLM") if adapter else ("transformers", "AutoModelForCausalLM")
    names, tokens = "AutoTokenizer, GenerationConfig", recipe.evaluate.max_new_tokens
    imports = f"from peft import {model}\nfrom transformers import {names}"
    if owner == "transformers":
        imports = f"from transformers import {model}, {names}"
    return (
        f"{imports}\n\n"
        f'model = {model}.from_pretrained("model").eval()\n'
        'tokenizer = AutoTokenizer.from_pretrained("model")\n'
        "# says at which token an answer ends\n"
        f'settings = GenerationConfig.from_pretrained("model", do_sample=False, max_new_tokens={tokens})\n'
        f"{_inputs(recipe)}\n"
        "output = model.generate(**inputs, generation_config=settings)\n"
        'print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))'
    )


def _inputs(recipe: Recipe) -> str:
    """The lines that make `inputs`, as the rows were served."""
    instruction = recipe.data.instruction
    if recipe.task.kind == "completion":
        text = ASKED if instruction is None else f"{instruction}\n{ASKED}"
        return f'inputs = tokenizer({_quoted(text)}, return_tensors="pt")'
    turns = [{"role": "user", "content": ASKED}]
    if instruction is not None:
        turns.insert(0, {"role": "system", "content": instruction})
    listed = "".join(f"    {_quoted(turn)},\n" for turn in turns)
    return (
        f"messages = [\n{listed}]\n"
        "inputs = tokenizer.apply_chat_template(\n"
        '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"\n'
        ")"
    )


COMMANDS = {
    "predict": "pegbox predict . --data rows.jsonl --out answers.jsonl",
    "evaluate": "pegbox evaluate .",
    "again": "pegbox train recipe.yaml --run-dir ../again",
}
