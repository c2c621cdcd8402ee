"""Rows -> records: one small function a format, and a table that says which formats a task reads.

A format looks up its roles (`messages`, `prompt`, `text`, ...) in the row, through the recipe's `data.columns` where
the user's columns have other names. It returns the record's content, or raises ValueError saying what is wrong with
the row. What is wrong with every row alike (a role or an instruction that the task has no use for) is a RecipeError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pegbox.data.cells import items, listed, name, text
from pegbox.data.conversations import SPEAKERS, alpaca, messages, share_gpt
from pegbox.data.labelled import label_set_text, labelled_text, scored_text, tagged_words
from pegbox.data.records import Content, Conversation, Message, PlainText, PromptCompletion, Record, Row
from pegbox.errors import RecipeError

Format = Callable[[Mapping[str, Any]], Content]
UNKNOWN = "?"


def prompt_completion(values: Mapping[str, Any]) -> PromptCompletion:
    """`prompt` and `completion`."""
    return PromptCompletion(text(values, "prompt"), text(values, "completion"))


def prompt_completion_as_chat(values: Mapping[str, Any]) -> Conversation:
    """`prompt` and `completion` as a user's turn and the assistant's answer."""
    asked, answer = Message("user", text(values, "prompt")), Message("assistant", text(values, "completion"), 1.0)
    return Conversation((asked, answer))


def plain_text(values: Mapping[str, Any]) -> PlainText:
    """`text`, learnt whole."""
    return PlainText(text(values, "text"))


# task kind -> the formats it reads: (the roles that a row must have, the format)
FORMATS: Mapping[str, tuple[tuple[tuple[str, ...], Format], ...]] = {
    "chat": (
        (("messages",), messages),
        (("prompt", "completion"), prompt_completion_as_chat),
        (("conversations",), share_gpt),
        (("instruction", "output"), alpaca),
    ),
    "completion": ((("prompt", "completion"), prompt_completion), (("text",), plain_text)),
    "classification": ((("text", "label"), labelled_text),),
    "multilabel": ((("text", "labels"), label_set_text),),
    "regression": ((("text", "score"), scored_text),),
    "token_classification": ((("tokens", "tags"), tagged_words),),
    "masked_lm": ((("text",), plain_text),),
}
PAIRS = ("text_pair",)
OPTIONAL: Mapping[str, tuple[str, ...]] = {"classification": PAIRS, "multilabel": PAIRS, "regression": PAIRS}
TIES = ("group", "sensitive_feature")  # roles of every task: what belongs together, and whom a row is about
# names of columns that are no roles: these forms are known by their published names alone
FIXED = ("conversations", "instruction", "output")


def refuse_idle_roles(task: str, columns: Iterable[str]) -> None:
    """Raise RecipeError where `data.columns` names a role that the task never reads."""
    named = (role for roles, _ in FORMATS[task] for role in roles if role not in FIXED)
    read = (*TIES, *OPTIONAL.get(task, ()), *named)
    for role in columns:
        if role not in read:
            cure = f"its roles are {', '.join(sorted(read))}"
            raise RecipeError(f"task '{task}' does not read '{role}'", where=f"data.columns.{role}", cure=cure)


def to_record(
    row: Row, task: str, columns: Mapping[str, str | Sequence[str]], instruction: str | None = None
) -> Record:
    """The record of a row for a task. Raises ValueError that says what the row lacks."""
    values = dict(row.values) | {role: _cell(row.values, role, column) for role, column in columns.items()}
    for roles, read in FORMATS[task]:
        if all(role in values for role in roles):
            ties = [_tie(values[role], role) if role in columns else None for role in TIES]
            return Record(row.where, _instructed(read(values), instruction), *ties)
    needed = " or ".join("+".join(roles) for roles, _ in FORMATS[task])
    raise ValueError(f"task '{task}' needs {needed}; the row has {listed(row.values)}")


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


def with_placeholder(
    values: Mapping[str, Any], task: str, columns: Mapping[str, str | Sequence[str]]
) -> dict[str, Any]:
    """The values of a row that is only asked about: where it lacks an answer, one that says nothing."""
    whole = dict(values)
    if task in BLANKS:
        role, blank = BLANKS[task]
        column = columns.get(role, role)
        for one in (column,) if isinstance(column, str) else column:
            whole.setdefault(one, blank(whole, columns) if isinstance(column, str) else 0)
        return whole
    named = {role: str(columns.get(role, role)) for role in ("messages", "prompt", "completion")}
    turns = whole.get(named["messages"])
    if isinstance(turns, list) and turns and isinstance(turns[-1], dict) and turns[-1].get("role") != "assistant":
        whole[named["messages"]] = [*turns, {"role": "assistant", "content": UNKNOWN}]
    elif named["prompt"] in whole:
        whole.setdefault(named["completion"], UNKNOWN)
    elif isinstance(turns := whole.get("conversations"), list) and turns and not _is_gpt(turns[-1]):
        whole["conversations"] = [*turns, {"from": "gpt", "value": UNKNOWN}]
    elif "instruction" in whole:
        whole.setdefault("output", UNKNOWN)
    return whole


def _no_tags(values: Mapping[str, Any], columns: Mapping[str, str | Sequence[str]]) -> list[str]:
    """As many tags that say nothing as the row has words."""
    words = values.get(str(columns.get("tokens", "tokens")))
    return [UNKNOWN] * len(items(words, "tokens")) if isinstance(words, list | str) else []


# tasks of which an answer is one role: the role, and a cell that says nothing
BLANKS: Mapping[str, tuple[str, Callable[[Mapping[str, Any], Mapping[str, str | Sequence[str]]], Any]]] = {
    "classification": ("label", lambda values, columns: UNKNOWN),
    "multilabel": ("labels", lambda values, columns: []),
    "regression": ("score", lambda values, columns: 0),
    "token_classification": ("tags", _no_tags),
}


def _is_gpt(turn: Any) -> bool:
    return isinstance(turn, dict) and SPEAKERS.get(str(turn.get("from"))) == "assistant"


def _instructed(content: Content, instruction: str | None) -> Content:
    """`data.instruction` put before a row's own words: as the system's message, or as the first line of a prompt."""
    if instruction is None:
        return content
    if isinstance(content, Conversation):
        if content.messages[0].role == "system":
            raise ValueError("has a system message of its own, and the recipe gives data.instruction")
        return Conversation((Message("system", instruction), *content.messages))
    if isinstance(content, PromptCompletion):
        return PromptCompletion(f"{instruction}\n{content.prompt}", content.completion)
    cure = "leave it away, or give rows with messages or a prompt"
    raise RecipeError("an instruction needs a conversation or a prompt", where="data.instruction", cure=cure)
