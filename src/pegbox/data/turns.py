"""A turn as chat templates take it, and as they may show it."""

from __future__ import annotations

import json
from typing import Any

from pegbox.data.records import Message

PROBE = "pegbox"  # an answer, and the name of a tool, that no template says by itself
PROBE_TOOL = json.dumps(
    {
        "type": "function",
        "function": {"name": PROBE, "description": PROBE, "parameters": {"type": "object", "properties": {}}},
    }
)


def template_turn(message: Message) -> dict[str, Any]:
    """A turn in the form that Transformers documents: the arguments of a tool's call are an object."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name is not None:
        turn["name"] = message.name
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        turn["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": json.loads(call.arguments)}}
            | ({} if call.id is None else {"id": call.id})
            for call in message.tool_calls
        ]
    return turn


def forms_in_a_template(message: Message) -> tuple[str, ...]:
    """How a template may write what a turn says: stripped, and what a tool says as JSON too."""
    content = message.content.strip()
    if message.role != "tool":
        return (content,)
    return (content, json.dumps(content, ensure_ascii=False)[1:-1], json.dumps(content)[1:-1])
