"""Rows -> records: one small function a format, and a table that says which formats a task reads.

A format looks up its roles (`messages`, `prompt`, `text`, ...) in the row, through the recipe's `data.columns` where
the user's columns have other names. It returns the record's content, or raises ValueError saying what is wrong with
the row. What is wrong with every row alike (a role or an instruction that the task has no use for) is a RecipeError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pegbox.data.records import Content, Conversation, LabelledText, Message, PlainText, PromptCompletion, Record, Row
from pegbox.errors import RecipeError

Format = Callable[[Mapping[str, Any]], Content]
UNKNOWN = "?"
ROLES = ("system", "user", "assistant", "tool", "developer")
MAX_WEIGHT = 1000.0
SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
SHOWN = 8  # names in a message


def _text(values: Mapping[str, Any], role: str) -> str:
    value = values[role]
    if not isinstance(value, str):
        raise ValueError(f"'{role}' must be text, this is {type(value).__name__}")
    return value


def messages(values: Mapping[str, Any]) -> Conversation:
    """OpenAI's chat format: `messages: [{role, content, weight?}]`; an assistant's turn is trained unless weight: 0."""
    turns = values["messages"]
    if not isinstance(turns, list) or not turns:
        raise ValueError("'messages' must be a list of at least one message")
    return Conversation(tuple(_message(turn, number) for number, turn in enumerate(turns, start=1)))


def _message(turn: Any, number: int) -> Message:
    if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
        raise ValueError(f"message {number} must be an object with a role and a text content")
    if unknown := set(turn) - {"role", "content", "weight"}:
        raise ValueError(f"message {number} has keys that are not read: {_names(sorted(map(str, unknown)))}")
    role, weight = turn.get("role"), turn.get("weight", 1)
    if role not in ROLES:
        raise ValueError(f"message {number} has no role of {', '.join(ROLES)}")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= MAX_WEIGHT:
        raise ValueError(f"message {number} has a weight that is not a number from 0 to {MAX_WEIGHT:g}")
    if role != "assistant" and turn.get("weight"):
        raise ValueError(f"message {number} has a weight, and only an assistant's turn is trained")
    return Message(role, turn["content"], float(weight) if role == "assistant" else 0.0)


def share_gpt(values: Mapping[str, Any]) -> Conversation:
    """ShareGPT's chat format: `conversations: [{from, value}]`, of human, gpt and system; all of gpt's turns are trained."""
    turns = values["conversations"]
    if not isinstance(turns, list) or not turns:
        raise ValueError("'conversations' must be a list of at least one turn")
    return Conversation((*_system(values), *(_spoken(turn, number) for number, turn in enumerate(turns, start=1))))


def _spoken(turn: Any, number: int) -> Message:
    if not isinstance(turn, dict) or set(turn) != {"from", "value"} or not isinstance(turn["value"], str):
        raise ValueError(f"turn {number} must be an object with 'from' and a text 'value', and nothing else")
    speaker = turn["from"]
    if not isinstance(speaker, str) or speaker not in SPEAKERS:
        raise ValueError(f"turn {number} is from none of {', '.join(SPEAKERS)}")
    return Message(SPEAKERS[speaker], turn["value"], float(SPEAKERS[speaker] == "assistant"))


def alpaca(values: Mapping[str, Any]) -> Conversation:
    """Alpaca's `instruction` and `output`, with an `input` behind the instruction and a `system` message where given."""
    if values.get("history"):
        raise ValueError("'history' is not read; write these turns as messages")
    asked, given = _text(values, "instruction"), _optional(values, "input")
    asked = f"{asked}\n\n{given}" if given else asked
    return Conversation((*_system(values), Message("user", asked), Message("assistant", _text(values, "output"), 1.0)))


def _system(values: Mapping[str, Any]) -> tuple[Message, ...]:
    said = _optional(values, "system")
    return (Message("system", said),) if said else ()


def _optional(values: Mapping[str, Any], name: str) -> str:
    """The text of a column that may be missing or empty."""
    said = "" if values.get(name) is None else _text(values, name)
    return said if said.strip() else ""


def prompt_completion(values: Mapping[str, Any]) -> PromptCompletion:
    """`prompt` and `completion`."""
    return PromptCompletion(_text(values, "prompt"), _text(values, "completion"))


def prompt_completion_as_chat(values: Mapping[str, Any]) -> Conversation:
    """`prompt` and `completion` as a user's turn and the assistant's answer."""
    asked, answer = Message("user", _text(values, "prompt")), Message("assistant", _text(values, "completion"), 1.0)
    return Conversation((asked, answer))


def plain_text(values: Mapping[str, Any]) -> PlainText:
    """`text`, learnt whole."""
    return PlainText(_text(values, "text"))


def labelled_text(values: Mapping[str, Any]) -> LabelledText:
    """`text` (and `text_pair`) with a `label`: a name, or a whole number read as a name."""
    pair = _text(values, "text_pair") if "text_pair" in values else None
    return LabelledText(_text(values, "text"), _name(values["label"], "label"), pair)


def _name(value: Any, role: str) -> str:
    """A name as it stands, a whole number as its digits."""
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        got = "an empty text" if value == "" else type(value).__name__
        raise ValueError(f"'{role}' must be a name or a whole number, this is {got}")
    return str(value)


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
}
OPTIONAL: Mapping[str, tuple[str, ...]] = {"classification": ("text_pair",)}
# names of columns that are no roles: these forms are known by their published names alone
FIXED = ("conversations", "instruction", "output")


def refuse_idle_roles(task: str, columns: Iterable[str]) -> None:
    """Raise RecipeError where `data.columns` names a role that the task never reads."""
    named = (role for roles, _ in FORMATS[task] for role in roles if role not in FIXED)
    read = ("group", *OPTIONAL.get(task, ()), *named)
    for role in columns:
        if role not in read:
            cure = f"its roles are {', '.join(sorted(read))}"
            raise RecipeError(f"task '{task}' does not read '{role}'", where=f"data.columns.{role}", cure=cure)


def to_record(row: Row, task: str, columns: Mapping[str, str], instruction: str | None = None) -> Record:
    """The record of a row for a task. Raises ValueError that says what the row lacks."""
    values = dict(row.values)
    for role, column in columns.items():
        if column not in row.values:
            raise ValueError(f"has no column '{column}' (data.columns.{role}); it has {_names(row.values)}")
        values[role] = row.values[column]
    for roles, read in FORMATS[task]:
        if all(role in values for role in roles):
            group = _group(values["group"]) if "group" in columns else None
            return Record(row.where, _instructed(read(values), instruction), group)
    needed = " or ".join("+".join(roles) for roles, _ in FORMATS[task])
    raise ValueError(f"task '{task}' needs {needed}; the row has {_names(row.values)}")


def _group(value: Any) -> str | None:
    """The name of a row's group; a row whose cell is empty belongs with no other."""
    return None if value is None or value == "" else _name(value, "group")


def _names(keys: Iterable[Any]) -> str:
    """A few keys for a message."""
    listed = list(map(str, keys))
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more if listed else "nothing"


def with_placeholder(values: Mapping[str, Any], task: str, columns: Mapping[str, str]) -> dict[str, Any]:
    """The values of a row that is only asked about: where it lacks an answer, one that says nothing."""
    named = {role: columns.get(role, role) for role in ("messages", "prompt", "completion", "label")}
    whole = dict(values)
    turns = whole.get(named["messages"])
    if task == "classification":
        whole.setdefault(named["label"], UNKNOWN)
    elif isinstance(turns, list) and turns and isinstance(turns[-1], dict) and turns[-1].get("role") != "assistant":
        whole[named["messages"]] = [*turns, {"role": "assistant", "content": UNKNOWN}]
    elif named["prompt"] in whole:
        whole.setdefault(named["completion"], UNKNOWN)
    elif isinstance(turns := whole.get("conversations"), list) and turns and not _is_gpt(turns[-1]):
        whole["conversations"] = [*turns, {"from": "gpt", "value": UNKNOWN}]
    elif "instruction" in whole:
        whole.setdefault("output", UNKNOWN)
    return whole


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
