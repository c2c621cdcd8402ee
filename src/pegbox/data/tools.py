"""Tools as OpenAI writes them: `tools` of a row, and the `tool_calls` of an assistant's turn.

A tool is `{type: function, function: {name, description, parameters}}`; the function alone (LLaMA-Factory) is read too.
The arguments of a call are a JSON object, or one written as text; chat templates are given the object, as Transformers
documents it. Tools are kept as JSON text: records do not change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pegbox.data.cells import items, listed
from pegbox.data.records import ToolCall
from pegbox.data.sources.strict_json import parse_json


def tools_of(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The `tools` of a row, each as JSON text."""
    if any(values.get(key) for key in ("functions", "function_call")):
        raise ValueError("'functions' and 'function_call' are not read; write them as 'tools' and 'tool_calls'")
    if values.get("parallel_tool_calls") is False:  # true is the default, and says nothing
        raise ValueError("'parallel_tool_calls: false' is shown by no chat template; leave it away")
    given = values.get("tools")
    return () if given is None or given == "" else tuple(map(_tool, items(given, "tools")))


def _tool(given: Any) -> str:
    wrapped = isinstance(given, dict) and given.get("type") == "function"
    function = given.get("function") if wrapped else given
    if not isinstance(function, dict) or not _is_name(function.get("name")):
        raise ValueError("'tools' must be a list of {type: function, function: {name, ...}}")
    return json.dumps({"type": "function", "function": function}, ensure_ascii=False)


def calls_of(given: Any, what: str) -> tuple[ToolCall, ...]:
    """The `tool_calls` of a turn."""
    if not isinstance(given, list):
        raise ValueError(f"{what} has 'tool_calls' that are not a list")
    return tuple(_call(call, what) for call in given)


def _call(given: Any, what: str) -> ToolCall:
    told = {key: value for key, value in given.items() if value is not None} if isinstance(given, dict) else {}
    function = told.get("function", told)
    if (
        not isinstance(function, dict)
        or not _is_name(function.get("name"))
        or told.get("type") not in (None, "function")
    ):
        raise ValueError(f"{what} has a tool call that is not {{type: function, function: {{name, arguments}}}}")
    if unknown := set(told) - {"id", "type", "function", *({"name", "arguments"} if function is told else ())}:
        raise ValueError(f"{what} has a tool call with keys that are not read: {listed(sorted(map(str, unknown)))}")
    number = told.get("id")
    if number is not None and not isinstance(number, str):
        raise ValueError(f"{what} has a tool call whose id is not text")
    return ToolCall(function["name"], _arguments(function.get("arguments"), what), number)


def _arguments(given: Any, what: str) -> str:
    try:
        value = parse_json(given) if isinstance(given, str) else given
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"{what} has a tool call whose arguments are not a JSON object")
    return json.dumps(value, ensure_ascii=False)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
