"""Rows -> records: one small function a format, and a table that says which formats a task reads.

A format looks up its roles (`messages`, `prompt`, `text`, ...) in the row, through the recipe's `data.columns` where
the user's columns have other names. It returns the record's content, or raises ValueError saying what is wrong with
the row. What is wrong with every row alike (a role or an instruction that the task has no use for) is a RecipeError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pegbox.data.cells import items, listed, name
from pegbox.data.conversations import SPEAKERS, alpaca, messages, share_gpt
from pegbox.data.detect import Detected, Form, explain, first, refusal
from pegbox.data.labelled import (
    label_set_text,
    labelled_pair,
    labelled_text,
    matched_texts,
    scored_pair,
    scored_text,
    tagged_words,
)
from pegbox.data.preferences import (
    openai_preference,
    openai_preference_completion,
    trl_implicit_preference,
    trl_preference,
)
from pegbox.data.prompts import (
    led,
    plain_text,
    prompt_completion,
    prompt_completion_as_chat,
    source_target,
    source_target_as_chat,
)
from pegbox.data.records import Content, Conversation, Message, PromptCompletion, Record, Row, SourceTarget
from pegbox.errors import RecipeError

Columns = Mapping[str, str | Sequence[str]]
UNKNOWN = "?"

# task kind -> the formats it reads, in the order in which they are looked for
FORMATS: Mapping[str, tuple[Form, ...]] = {
    "chat": (
        Form("openai", ("messages",), messages),
        Form("prompt_completion", ("prompt", "completion"), prompt_completion_as_chat),
        Form("share_gpt", ("conversations",), share_gpt),
        Form("alpaca", ("instruction", "output"), alpaca),
        Form("source_target", ("source", "target"), source_target_as_chat),
    ),
    "completion": (
        Form("prompt_completion", ("prompt", "completion"), prompt_completion),
        Form("text", ("text",), plain_text),
    ),
    "classification": (Form("text_label", ("text", "label"), labelled_text),),
    "multilabel": (Form("text_labels", ("text", "labels"), label_set_text),),
    "regression": (Form("text_score", ("text", "score"), scored_text),),
    "token_classification": (Form("tokens_tags", ("tokens", "tags"), tagged_words),),
    "masked_lm": (Form("text", ("text",), plain_text),),
    "seq2seq": (Form("source_target", ("source", "target"), source_target),),
    "embedding": (
        Form("triplet", ("text", "text_pair", "negative"), matched_texts),
        Form("text_pair_score", ("text", "text_pair", "score"), scored_pair),
        Form("text_pair_label", ("text", "text_pair", "label"), labelled_pair),
        Form("text_pair", ("text", "text_pair"), matched_texts),
    ),
    "preference": (
        Form("openai_preference", ("input", "preferred_output", "non_preferred_output"), openai_preference),
        Form(
            "openai_preference",
            ("input", "preferred_completion", "non_preferred_completion"),
            openai_preference_completion,
        ),
        Form("trl_preference", ("prompt", "chosen", "rejected"), trl_preference),
        Form("trl_preference", ("chosen", "rejected"), trl_implicit_preference),
    ),
}
PAIRS = ("text_pair",)
OPTIONAL: Mapping[str, tuple[str, ...]] = {"classification": PAIRS, "multilabel": PAIRS, "regression": PAIRS}
# roles that a row which is only asked about may lack, beside its answer
SPARED: Mapping[str, tuple[str, ...]] = {"embedding": ("negative", "score", "label")}
TIES = ("group", "sensitive_feature")  # roles of every task: what belongs together, and whom a row is about
# names of columns that are no roles: these forms are known by their published names alone
FIXED = (
    *("conversations", "instruction", "output", "input"),
    *("preferred_output", "non_preferred_output", "preferred_completion", "non_preferred_completion"),
)


def forms_of(task: str, format: str | None = None) -> tuple[Form, ...]:
    """The forms of a task, or the one that `data.format` names. Raises RecipeError where the task does not read it."""
    forms = tuple(form for form in FORMATS[task] if format in (None, form.name))
    if not forms:
        cure = f"its formats are {', '.join(dict.fromkeys(form.name for form in FORMATS[task]))}"
        raise RecipeError(f"task '{task}' does not read the format '{format}'", where="data.format", cure=cure)
    return forms


def refuse_idle_roles(task: str, columns: Iterable[str], format: str | None = None) -> None:
    """Raise RecipeError where `data.columns` names a role that the task (or its format) never reads."""
    named = (role for form in forms_of(task, format) for role in form.roles if role not in FIXED)
    read = (*TIES, *OPTIONAL.get(task, ()), *named)
    for role in columns:
        if role not in read:
            cure = f"its roles are {', '.join(sorted(set(read)))}"
            whose = f"task '{task}'" if format is None else f"data.format: {format}"
            raise RecipeError(f"{whose} does not read '{role}'", where=f"data.columns.{role}", cure=cure)


def detect(values: Mapping[str, Any], task: str, columns: Columns, format: str | None = None) -> Detected:
    """The form that a row would be read in, and why. Raises ValueError that says what the row lacks."""
    forms, known = forms_of(task, format), _by_role(values, columns)
    form = _form(values, known, task, forms)
    return Detected(form, "data.format names it" if format else explain(known, form, forms))


def to_record(
    row: Row, task: str, columns: Columns, instruction: str | None = None, format: str | None = None
) -> Record:
    """The record of a row for a task. Raises ValueError that says what the row lacks."""
    values = _by_role(row.values, columns)
    form = _form(row.values, values, task, FORMATS[task] if format is None else forms_of(task, format))
    ties = [_tie(values[role], role) if role in columns else None for role in TIES]
    return Record(row.where, _instructed(form.read(values), instruction), *ties)


def _form(given: Mapping[str, Any], values: Mapping[str, Any], task: str, forms: Sequence[Form]) -> Form:
    form = first(values, forms)
    if form is None:
        raise ValueError(refusal(given, values, forms, task))
    return form


def _by_role(values: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """The cells of a row by their columns' names and by their roles."""
    return dict(values) | {role: _cell(values, role, column) for role, column in columns.items()}


def _cell(values: Mapping[str, Any], role: str, column: str | Sequence[str]) -> Any:
    """The cell of a column, or the cells of several by their columns' names."""
    if not isinstance(column, str):
        return {one: _cell(values, role, one) for one in column}
    if column not in values:
        raise ValueError(f"has no column '{column}' (data.columns.{role}); it has {listed(values)}")
    return values[column]


def _tie(value: Any, role: str) -> str | None:
    """The name of a row's group; a row whose cell is empty belongs with no other."""
    return None if value is None or value == "" else name(value, role)


def _instructed(content: Content, instruction: str | None) -> Content:
    """`data.instruction` before a row's own words: the system's message, a prompt's first line, a source's prefix."""
    if instruction is None:
        return content
    if isinstance(content, Conversation):
        if content.messages[0].role == "system":
            raise ValueError("has a system message of its own, and the recipe gives data.instruction")
        return replace(content, messages=(Message("system", instruction), *content.messages))
    if isinstance(content, PromptCompletion):
        return replace(content, prompt=f"{instruction}\n{content.prompt}")
    if isinstance(content, SourceTarget):
        return replace(content, source=led(instruction) + content.source)
    cure = "leave it away, or give rows with messages, a prompt or a source"
    raise RecipeError("an instruction needs a conversation, a prompt or a source", where="data.instruction", cure=cure)


# ---- rows that are only asked about ----------------------------------------------------------------------------------


def with_placeholder(
    values: Mapping[str, Any], task: str, columns: Columns, format: str | None = None
) -> dict[str, Any]:
    """The values of a row that is only asked about: where it lacks an answer, one that says nothing."""
    whole = dict(values)
    if task in BLANKS:
        role, blank = BLANKS[task]
        column = columns.get(role, role)
        for one in (column,) if isinstance(column, str) else column:
            whole.setdefault(one, blank(whole, columns) if isinstance(column, str) else 0)
        return whole
    for form in forms_of(task, format):
        asked, *answer = (str(columns.get(role, role)) for role in form.roles)
        if asked in whole and answer:
            whole.setdefault(answer[0], UNKNOWN)
            return whole
        turns = whole.get(asked)
        if form.name in TURNS and isinstance(turns, list) and turns and not _is_answer(turns[-1]):
            whole[asked] = [*turns, TURNS[form.name]]
            return whole
    return whole


def _no_tags(values: Mapping[str, Any], columns: Columns) -> list[str]:
    """As many tags that say nothing as the row has words."""
    words = values.get(str(columns.get("tokens", "tokens")))
    return [UNKNOWN] * len(items(words, "tokens")) if isinstance(words, list | str) else []


# tasks of which an answer is one role: the role, and a cell that says nothing
BLANKS: Mapping[str, tuple[str, Callable[[Mapping[str, Any], Columns], Any]]] = {
    "classification": ("label", lambda values, columns: UNKNOWN),
    "multilabel": ("labels", lambda values, columns: []),
    "regression": ("score", lambda values, columns: 0),
    "token_classification": ("tags", _no_tags),
    "embedding": ("text_pair", lambda values, columns: UNKNOWN),
}
# formats whose answers are turns: one that says nothing
TURNS: Mapping[str, Mapping[str, str]] = {
    "openai": {"role": "assistant", "content": UNKNOWN},
    "share_gpt": {"from": "gpt", "value": UNKNOWN},
}


def _is_answer(turn: Any) -> bool:
    said = turn.get("role", turn.get("from")) if isinstance(turn, dict) else None
    return SPEAKERS.get(str(said)) == "assistant"
