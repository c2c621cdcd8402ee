"""How to use a run's model and how to do the run again: code and commands, right for its task and its method.

All of it is to be run inside the run folder, so that nothing here depends on where that lies. The code without pegbox does
by itself what pegbox does: what was found out in training (a temperature, thresholds, the scale of numbers) is read from
`receipt.json`, or from the model's own `config.json` where that holds it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pegbox.data.prompts import led
from pegbox.recipe import Embedding, Recipe
from pegbox.report import usage_code

ASKED = "..."  # what a reader puts their own text for


def _quoted(value: str | Mapping[str, str]) -> str:
    """Text, or a mapping of texts, as a Python literal on one line: what JSON writes for them is one."""
    return json.dumps(value, ensure_ascii=False)


def with_pegbox(recipe: Recipe, receipt: Mapping[str, Any]) -> str:
    """Python for pegbox: one answer, in the form of the training rows."""
    if recipe.task.kind == "chat" or (receipt["task"].get("plain") and not _asks_for_middles(receipt)):
        call = f"run.generate({_quoted(ASKED)}, max_new_tokens={recipe.evaluate.max_new_tokens})"
    else:
        call = f"run.predict([{_row(recipe, receipt)}])[0]"
    return f'import pegbox\n\nrun = pegbox.load(".")\nprint({call})'


def _asks_for_middles(receipt: Mapping[str, Any]) -> bool:
    return "around" in receipt["task"]


def _row(recipe: Recipe, receipt: Mapping[str, Any]) -> str:
    """A row as the model is asked with it, as a Python literal."""
    cells = {"tokens": '["...", "..."]'}
    roles = (*ROLES[recipe.task.kind], *(("suffix",) if _asks_for_middles(receipt) else ()))
    pairs = ("text_pair",) if receipt["task"].get("text_pair") else ()
    given = (f"{_quoted(recipe.data.column(role))}: {cells.get(role, _quoted(ASKED))}" for role in (*roles, *pairs))
    return f"{{{', '.join(given)}}}"


# what a row is asked with
ROLES: Mapping[str, tuple[str, ...]] = {
    "completion": ("prompt",),
    "classification": ("text",),
    "multilabel": ("text",),
    "regression": ("text",),
    "token_classification": ("tokens",),
    "masked_lm": ("text",),
    "seq2seq": ("source",),
    "embedding": ("text",),
}


def libraries(recipe: Recipe) -> str:
    """What loads the saved model without pegbox; empty where nothing does."""
    return {"model": "Transformers", "peft": "Transformers and PEFT", "pegbox": ""}[recipe.method.saved_as]


def without_pegbox(recipe: Recipe, receipt: Mapping[str, Any]) -> str:
    """Python for the libraries that load the model without pegbox; a comment where none does."""
    if not libraries(recipe):
        return "# no other library reads this adapter: its format is pegbox's own"
    held = recipe.model.quantization
    note = f"# the base was held in {held} by bitsandbytes: load it so (quantization_config) for the same numbers\n"
    return (note if held else "") + WITHOUT[recipe.task.kind](recipe, receipt)


def _is_adapter(recipe: Recipe) -> bool:
    return recipe.method.saved_as == "peft"


def _whole_text(recipe: Recipe, receipt: Mapping[str, Any]) -> str:
    """Of the tasks that say something of a whole text."""
    pairs = bool(receipt["task"]["text_pair"])
    return usage_code.whole_text(recipe.task.kind, pairs=pairs, adapter=_is_adapter(recipe))


def _words(recipe: Recipe, receipt: Mapping[str, Any]) -> str:
    """A word's tag stands at the last of its tokens where the model reads from left to right, else at the first."""
    return usage_code.words(last="causal_lm" in receipt["model"]["heads"], adapter=_is_adapter(recipe))


def _mask(recipe: Recipe, receipt: Mapping[str, Any]) -> str:
    return usage_code.mask(adapter=_is_adapter(recipe))


def _vector(recipe: Recipe, receipt: Mapping[str, Any]) -> str:
    assert isinstance(recipe.task, Embedding)
    return usage_code.vector(recipe.task.pooling, adapter=_is_adapter(recipe))


def _sequence(recipe: Recipe, receipt: Mapping[str, Any]) -> str:
    lead = "" if recipe.data.instruction is None else led(recipe.data.instruction)
    return usage_code.sequence(_quoted(lead + ASKED), adapter=_is_adapter(recipe))


def _generator(recipe: Recipe, receipt: Mapping[str, Any]) -> str:
    around = receipt["task"].get("around")
    tokens, inputs = recipe.evaluate.max_new_tokens, _inputs(recipe) if around is None else usage_code.hole(**around)
    return usage_code.generator(inputs, max_new_tokens=tokens, adapter=_is_adapter(recipe))


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


WITHOUT: Mapping[str, Callable[[Recipe, Mapping[str, Any]], str]] = {
    "chat": _generator,
    "completion": _generator,
    "classification": _whole_text,
    "multilabel": _whole_text,
    "regression": _whole_text,
    "token_classification": _words,
    "masked_lm": _mask,
    "seq2seq": _sequence,
    "embedding": _vector,
}

COMMANDS = {
    "predict": "pegbox predict . --data rows.jsonl --out answers.jsonl",
    "evaluate": "pegbox evaluate .",
    "again": "pegbox train recipe.yaml --run-dir ../again",
}
