"""Tools and their calls: read from rows as people have them, and refused in words where they cannot be meant."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pegbox.data.formats import to_record
from pegbox.data.records import Conversation, Message, Row, ToolCall
from pegbox.data.splits import parts
from pegbox.data.store import dump_record, load_record

TOOL = {"type": "function", "function": {"name": "time", "description": "d", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "time", "arguments": '{"zone": "Rome"}'}}
ASKED = {"role": "user", "content": "u"}


def talk(*turns: Any, **row: Any) -> Conversation:
    record = to_record(Row("r:1", {"messages": [ASKED, *turns], **row}), "chat", {})
    assert load_record(dump_record(record)) == record
    assert isinstance(record.content, Conversation)
    return record.content


def called(call: Any) -> Message:
    return talk({"role": "assistant", "content": None, "tool_calls": [call]}).messages[1]


def test_tools_calls_and_what_they_say_are_read() -> None:
    got = talk(
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "content": "12", "tool_call_id": "c1"},
        tools=[TOOL],
    )
    call = ToolCall("time", '{"zone": "Rome"}', "c1")
    assert got.messages[1:] == (
        Message("assistant", "", 1.0, tool_calls=(call,)),
        Message("tool", "12", tool_call_id="c1"),
    )
    assert [json.loads(tool) for tool in got.tools] == [TOOL]


def test_other_spellings_are_the_same() -> None:
    bare = TOOL["function"]
    assert talk(tools=[TOOL]).tools == talk(tools=[bare]).tools == talk(tools=json.dumps([bare])).tools
    assert talk(tools=None) == talk(tools="") == talk(tools=[]) == talk(parallel_tool_calls=True) == talk()
    wanted = called(CALL)
    assert called({**CALL, "function": {"name": "time", "arguments": {"zone": "Rome"}}}) == wanted
    assert called({"id": "c1", "type": None, "name": "time", "arguments": {"zone": "Rome"}}) == wanted


def test_share_gpt_calls_tools_as_llama_factory_has_it() -> None:
    said = json.dumps({"name": "time", "arguments": {"zone": "Rome"}})
    turns = [
        {"from": "human", "value": "u"},
        {"from": "function_call", "value": said},
        {"from": "observation", "value": "12"},
        {"from": "function_call", "value": f"[{said}, {said}]"},
        {"from": "gpt", "value": "Noon."},
    ]
    values = {"conversations": turns, "tools": json.dumps([TOOL["function"]])}
    got = to_record(Row("r:1", values), "chat", {}).content
    assert isinstance(got, Conversation)
    call = ToolCall("time", '{"zone": "Rome"}')
    assert [message.tool_calls for message in got.messages] == [(), (call,), (), (call, call), ()]
    assert [message.role for message in got.messages] == ["user", "assistant", "tool", "assistant", "assistant"]
    assert [message.weight for message in got.messages] == [0, 1, 0, 1, 1]
    assert [json.loads(tool) for tool in got.tools] == [TOOL]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"tools": "time"}, "'tools' must be a list"),
        ({"tools": ["time"]}, "'tools' must be a list of {type: function"),
        ({"tools": [{"type": "function"}]}, "'tools' must be a list of {type: function"),
        ({"tools": [{"type": "function", "function": {"name": " "}}]}, "'tools' must be a list of {type: function"),
        ({"functions": [TOOL]}, "'functions' and 'function_call' are not read; write them as 'tools'"),
        ({"parallel_tool_calls": False}, "'parallel_tool_calls: false' is shown by no chat template"),
    ],
)
def test_tools_that_cannot_be_meant_are_refused(row: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as refusal:
        talk(**row)
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("time", "a tool call that is not {type: function"),
        ({**CALL, "type": "code"}, "a tool call that is not {type: function"),
        ({"function": {"name": 1}}, "a tool call that is not {type: function"),
        ({**CALL, "extra": 1}, "keys that are not read: extra"),
        ({**CALL, "id": 5}, "whose id is not text"),
        ({"name": "time"}, "whose arguments are not a JSON object"),
        ({"name": "time", "arguments": "{"}, "whose arguments are not a JSON object"),
        ({"name": "time", "arguments": "[1]"}, "whose arguments are not a JSON object"),
        ({"name": "time", "arguments": '{"a": 1, "a": 2}'}, "whose arguments are not a JSON object"),
    ],
)
def test_a_call_that_cannot_be_meant_is_refused(call: Any, said: str) -> None:
    with pytest.raises(ValueError) as refusal:
        called(call)
    assert "message 2" in str(refusal.value) and said in str(refusal.value)


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        ({"role": "assistant", "content": None}, "text content"),
        ({"role": "assistant", "content": "", "tool_calls": {}}, "'tool_calls' that are not a list"),
        ({"role": "tool", "content": "12", "tool_call_id": 1}, "a 'tool_call_id' that is not text"),
        ({"role": "function", "content": "12"}, "has no role of"),
        ({"role": "assistant", "content": "", "function_call": {"name": "f"}}, "not read: function_call"),
        (
            {
                "role": "assistant",
                "content": "a",
                "tool_calls": [CALL],
                "train_detail": [{"begin_offset": 0, "end_offset": 0, "train": True}],
            },
            "it is trained whole or not at all",
        ),
    ],
)
def test_a_turn_that_cannot_be_meant_is_refused(turn: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as refusal:
        talk(turn)
    assert said in str(refusal.value)


def test_rows_that_differ_in_a_call_are_no_twins() -> None:
    answer = {"role": "assistant", "content": "Noon."}
    other = {**CALL, "function": {"name": "time", "arguments": '{"zone": "Oslo"}'}}
    asked = [parts(talk({"role": "assistant", "tool_calls": [call]}, answer)) for call in (CALL, other)]
    assert asked[0] != asked[1]
    assert parts(talk({"role": "assistant", "content": "", "tool_calls": [CALL]}))[1] == 'time({"zone": "Rome"})'
