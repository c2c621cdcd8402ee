"""Conversations with tools: what is asked, shown and expected of a turn that calls one."""

from __future__ import annotations

from families import family_tokenizer

from pegbox.data.formats import to_record
from pegbox.data.records import Row
from pegbox.data.render import Renderer
from pegbox.recipe import load
from pegbox.tasks.chat import Chat

TOOL = {"type": "function", "function": {"name": "time", "parameters": {}}}
CALL = {"type": "function", "function": {"name": "time", "arguments": '{"zone": "Rome"}'}}
TURNS = [
    {"role": "user", "content": "Time?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "12:00"},
    {"role": "assistant", "content": "Noon."},
]
RECIPE = load({"model": "some/model", "task": "chat", "data": "/rows.jsonl"})


def chat() -> Chat:
    return Chat(Renderer(family_tokenizer("qwen_2_5")), RECIPE)


def test_a_call_is_expected_as_the_model_writes_it() -> None:
    task, record = chat(), to_record(Row("r:1", {"messages": TURNS[:2], "tools": [TOOL]}), "chat", {})
    wanted = '<tool_call>\n{"name": "time", "arguments": {"zone": "Rome"}}\n</tool_call>'
    assert task.reference(record) == wanted
    example, prompt = task.encode(record), task.prompt(record, ())
    assert list(example.input_ids[: len(prompt)]) == prompt
    assert task.said(example.input_ids[len(prompt) :]) == wanted


def test_calls_are_shown_among_the_turns_before_an_answer_and_tools_are_served() -> None:
    task, record = chat(), to_record(Row("r:1", {"messages": TURNS, "tools": [TOOL]}), "chat", {})
    assert task.shown(record) == 'user: Time?\nassistant: time({"zone": "Rome"})\ntool: 12:00'
    assert task.reference(record) == "Noon."
    served = task.renderer.decode(task.prompt(record, [record]))
    assert served.count('"name": "time", "parameters"') == 1
    assert served.count("<tool_response>\n12:00") == 2
