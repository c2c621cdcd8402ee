"""Formats of conversations: OpenAI's messages, ShareGPT's conversations, Alpaca's instructions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pegbox.data.cells import listed, text
from pegbox.data.records import Conversation, Message

ROLES = ("system", "user", "assistant", "tool", "developer")
MAX_WEIGHT = 1000.0
SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


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
        raise ValueError(f"message {number} has keys that are not read: {listed(sorted(map(str, unknown)))}")
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
