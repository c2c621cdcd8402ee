"""Formats of conversations: OpenAI's messages, ShareGPT's conversations, Alpaca's instructions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pegbox.data.cells import listed, text
from pegbox.data.masks import KEYS, spans_of, weight_of
from pegbox.data.records import Conversation, Message
from pegbox.data.sources.strict_json import parse_json
from pegbox.data.tools import calls_of, tools_of

ROLES = ("system", "user", "assistant", "tool", "developer")
SPEAKERS = {
    **{"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"},
    **{"function_call": "assistant", "observation": "tool", "tool": "tool"},
}
READ = {"assistant": {*KEYS, "tool_calls"}, "tool": {*KEYS, "tool_call_id"}}  # beside role, content and name


def messages(values: Mapping[str, Any]) -> Conversation:
    """OpenAI's chat format: `messages: [{role, content, weight?}]`; an assistant's turn is trained unless weight: 0.

    Also read: `name` (most templates do not show it), `tool_calls`, `tool_call_id`, the row's `tools`, and the keys of
    `pegbox.data.masks`. A key whose value is null counts as missing, for tables cannot leave it away.
    """
    return Conversation(turns_of(values["messages"], "messages"), tools_of(values))


def turns_of(turns: Any, role: str) -> tuple[Message, ...]:
    """OpenAI's messages of a role."""
    if not isinstance(turns, list) or not turns:
        raise ValueError(f"'{role}' must be a list of at least one message")
    return tuple(_message(turn, number) for number, turn in enumerate(turns, start=1))


def _message(turn: Any, number: int) -> Message:
    given = {key: value for key, value in turn.items() if value is not None} if isinstance(turn, dict) else {}
    what, role = f"message {number}", given.get("role")
    if role == "assistant" and given.get("tool_calls"):
        given.setdefault("content", "")
    if not isinstance(given.get("content"), str):
        raise ValueError(f"{what} must be an object with a role and a text content")
    if role not in ROLES:
        raise ValueError(f"{what} has no role of {', '.join(ROLES)}")
    if unknown := set(given) - {"role", "content", "name"} - READ.get(role, {*KEYS}):
        raise ValueError(f"{what} has keys that are not read: {listed(sorted(map(str, unknown)))}")
    for key in ("name", "tool_call_id"):
        if not isinstance(given.get(key, ""), str):
            raise ValueError(f"{what} has a '{key}' that is not text")
    told = Message(role, given["content"], name=given.get("name"), tool_call_id=given.get("tool_call_id"))
    return _masked(replace(told, tool_calls=calls_of(given.get("tool_calls", []), what)), given, what)


def _masked(message: Message, given: Mapping[str, Any], what: str) -> Message:
    """The turn with what is trained of it."""
    weight = weight_of(given, what, message.role == "assistant")
    if "train_detail" not in given:
        return replace(message, weight=weight)
    if message.tool_calls:
        raise ValueError(f"{what} calls tools: it is trained whole or not at all, and 'train_detail' is not read")
    trained = spans_of(given["train_detail"], len(message.content), what)
    return replace(message, weight=weight if trained else 0.0, trained=trained)


def share_gpt(values: Mapping[str, Any]) -> Conversation:
    """ShareGPT's chat format: `conversations: [{from, value}]`, of human, gpt and system; all of gpt's turns are trained.

    As LLaMA-Factory has it, `function_call` is a turn of the assistant whose value is a call `{name, arguments}` (or a
    list of them), `observation` what the tool said, and the row's `tools` may be written as text. Turns with a `role`
    are read as OpenAI's. The keys of `pegbox.data.masks` are read too.
    """
    turns = values["conversations"]
    if not isinstance(turns, list) or not turns:
        raise ValueError("'conversations' must be a list of at least one turn")
    spoken = (_spoken(turn, number) for number, turn in enumerate(turns, start=1))
    return Conversation((*_system(values), *spoken), tools_of(values))


def _spoken(turn: Any, number: int) -> Message:
    if isinstance(turn, dict) and "role" in turn:
        return _message(turn, number)
    given = {key: value for key, value in turn.items() if value is not None} if isinstance(turn, dict) else {}
    what, said = f"turn {number}", given.get("value")
    if "from" not in given or not isinstance(said, str) or set(given) - {"from", "value", *KEYS}:
        raise ValueError(
            f"{what} must be an object with 'from' and a text 'value', and nothing else but what is trained"
        )
    speaker = given["from"]
    if not isinstance(speaker, str) or speaker not in SPEAKERS:
        raise ValueError(f"{what} is from none of {', '.join(SPEAKERS)}")
    told = Message(SPEAKERS[speaker], said)
    if speaker == "function_call":
        told = replace(told, content="", tool_calls=calls_of(_calls(said), what))
    return _masked(told, given, what)


def _calls(said: str) -> list[Any]:
    """The calls that a text holds as JSON: one, or a list of them."""
    try:
        called = parse_json(said)
    except ValueError:
        return [None]
    return called if isinstance(called, list) and called else [called]


def alpaca(values: Mapping[str, Any]) -> Conversation:
    """Alpaca's `instruction` and `output`, with an `input` behind the instruction and a `system` message where given."""
    if values.get("history"):
        raise ValueError("'history' is not read; write these turns as messages")
    asked, given = text(values, "instruction"), _optional(values, "input")
    asked = f"{asked}\n\n{given}" if given else asked
    return Conversation((*_system(values), Message("user", asked), Message("assistant", text(values, "output"), 1.0)))


def _system(values: Mapping[str, Any]) -> tuple[Message, ...]:
    said = _optional(values, "system")
    return (Message("system", said),) if said else ()


def _optional(values: Mapping[str, Any], name: str) -> str:
    """The text of a column that may be missing or empty."""
    said = "" if values.get(name) is None else text(values, name)
    return said if said.strip() else ""
