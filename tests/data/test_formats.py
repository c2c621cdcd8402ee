"""Rows become records: each good form, and each way to be wrong with a sentence that names it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pegbox.data import conversations
from pegbox.data.formats import FIXED, FORMATS, refuse_idle_roles, to_record, with_placeholder
from pegbox.data.records import (
    Content,
    Conversation,
    LabelledText,
    Message,
    PlainText,
    PromptCompletion,
    Record,
    Row,
    SourceTarget,
)
from pegbox.errors import RecipeError

WHERE = "rows.jsonl:1"


def record(values: dict[str, Any], task: str = "chat", instruction: str | None = None, **columns: str) -> Record:
    return to_record(Row(WHERE, values), task, columns, instruction)


def test_messages_with_weights() -> None:
    turns = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u", "weight": 0},
        {"role": "assistant", "content": "a"},
        {"role": "tool", "content": "t"},
        {"role": "assistant", "content": "b", "weight": 0},
        {"role": "assistant", "content": "c", "weight": 0.5},
    ]
    got = record({"messages": turns}).content
    assert isinstance(got, Conversation)
    assert [message.weight for message in got.messages] == [0, 0, 1, 0, 0, 0.5]
    assert [message.content for message in got.messages] == list("suatbc")


def check_weight_zero_is_untrained() -> None:
    turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a", "weight": 0}]
    content = record({"messages": turns}).content
    assert isinstance(content, Conversation)
    assert content.messages[1].weight == 0


def test_weight_zero_is_untrained() -> None:
    check_weight_zero_is_untrained()


def test_weight_zero_that_is_trained_is_caught_when_it_is_taken_for_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = conversations._message

    def careless(turn: dict[str, Any], number: int) -> Message:
        return honest({**turn, "weight": turn.get("weight") or int(turn["role"] == "assistant")}, number)

    monkeypatch.setattr(conversations, "_message", careless)
    with pytest.raises(AssertionError):
        check_weight_zero_is_untrained()


GOOD: dict[str, tuple[str, dict[str, Any], Content]] = {
    "a prompt and its completion as chat": (
        "chat",
        {"prompt": "p", "completion": "c"},
        Conversation((Message("user", "p"), Message("assistant", "c", 1.0))),
    ),
    "a prompt and its completion": ("completion", {"prompt": "p", "completion": "c"}, PromptCompletion("p", "c")),
    "plain text": ("completion", {"text": "t"}, PlainText("t")),
    "a prompt before plain text": (
        "completion",
        {"text": "t", "prompt": "p", "completion": "c"},
        PromptCompletion("p", "c"),
    ),
    "a label by name": ("classification", {"text": "t", "label": "good"}, LabelledText("t", "good")),
    "a label by number": ("classification", {"text": "t", "label": 3}, LabelledText("t", "3")),
    "a pair of texts": ("classification", {"text": "t", "text_pair": "u", "label": "x"}, LabelledText("t", "x", "u")),
    "source and target as chat": (
        "chat",
        {"source": "p", "target": "c"},
        Conversation((Message("user", "p"), Message("assistant", "c", 1.0)), of_source=True),
    ),
    "source and target": ("seq2seq", {"source": "p", "target": "c"}, SourceTarget("p", "c")),
    "TRL's prompt and completion as messages": (
        "chat",
        {
            "prompt": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "q"}],
            "completion": [{"role": "user", "content": "r"}, {"role": "assistant", "content": "c"}],
        },
        Conversation(
            (
                Message("user", "p"),
                Message("assistant", "q"),
                Message("user", "r"),
                Message("assistant", "c", 1.0),
            )
        ),
    ),
    "messages of a table, where what is missing is null": (
        "chat",
        {"messages": [{"role": "assistant", "content": "a", "weight": None, "tool_calls": None, "refusal": None}]},
        Conversation((Message("assistant", "a", 1.0),)),
    ),
    "a message with a name": (
        "chat",
        {"messages": [{"role": "user", "content": "a", "name": "Ann"}]},
        Conversation((Message("user", "a", name="Ann"),)),
    ),
    "conversations written as OpenAI's": (
        "chat",
        {"conversations": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a", "weight": 0}]},
        Conversation((Message("user", "u"), Message("assistant", "a"))),
    ),
    "Alpaca": (
        "chat",
        {"instruction": "i", "input": "x", "output": "o"},
        Conversation((Message("user", "i\n\nx"), Message("assistant", "o", 1.0))),
    ),
    "Alpaca with an empty input": (
        "chat",
        {"instruction": "i", "input": " ", "output": "o", "history": []},
        Conversation((Message("user", "i"), Message("assistant", "o", 1.0))),
    ),
    "Alpaca without an input": (
        "chat",
        {"instruction": "i", "input": None, "output": "o", "text": "never read"},
        Conversation((Message("user", "i"), Message("assistant", "o", 1.0))),
    ),
    "Alpaca with a system message": (
        "chat",
        {"system": "s", "instruction": "i", "output": "o"},
        Conversation((Message("system", "s"), Message("user", "i"), Message("assistant", "o", 1.0))),
    ),
    "ShareGPT": (
        "chat",
        {
            "conversations": [
                {"from": "system", "value": "s"},
                {"from": "human", "value": "u"},
                {"from": "gpt", "value": "a"},
            ]
        },
        Conversation((Message("system", "s"), Message("user", "u"), Message("assistant", "a", 1.0))),
    ),
    "a prompt before Alpaca": (
        "chat",
        {"prompt": "p", "completion": "c", "instruction": "i", "output": "o"},
        Conversation((Message("user", "p"), Message("assistant", "c", 1.0))),
    ),
    "columns that are not read": ("completion", {"text": "t", "date": [1, {}]}, PlainText("t")),
}


@pytest.mark.parametrize("form", GOOD)
def test_a_good_row_is_understood(form: str) -> None:
    task, values, content = GOOD[form]
    assert record(values, task) == Record(WHERE, content)


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "no messages": ("chat", {"messages": []}, "at least one message"),
    "messages as text": ("chat", {"messages": "hello"}, "must be a list"),
    "a message as text": ("chat", {"messages": ["hello"]}, "message 1 must be an object"),
    "a content that is missing": ("chat", {"messages": [{"role": "user"}]}, "message 1 must be an object with a role"),
    "a content in parts": ("chat", {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "text content"),
    "a content of null": ("chat", {"messages": [{"role": "assistant", "content": None}]}, "text content"),
    "parts that are not read": (
        "chat",
        {"messages": [{"role": "user", "content": "", "refusal": "no", "audio": {}}]},
        "message 1 has keys that are not read: audio, refusal",
    ),
    "calls of tools by a user": (
        "chat",
        {"messages": [{"role": "user", "content": "", "tool_calls": [1]}]},
        "message 1 has keys that are not read: tool_calls",
    ),
    "a name that is no text": ("chat", {"messages": [{"role": "user", "content": "a", "name": 1}]}, "has a 'name'"),
    "a role that is missing": ("chat", {"messages": [{"content": "a"}]}, "message 1 has no role of system, user"),
    "an unknown role": ("chat", {"messages": [{"role": "bot", "content": "a"}]}, "message 1 has no role of"),
    "a role that is a list": ("chat", {"messages": [{"role": ["user"], "content": "a"}]}, "has no role of"),
    "an input of Alpaca's that is a number": (
        "chat",
        {"instruction": "i", "input": 5, "output": "o"},
        "'input' must be text",
    ),
    "Alpaca's earlier turns": (
        "chat",
        {"instruction": "i", "output": "o", "history": [["a", "b"]]},
        "'history' is not read; write these turns as messages",
    ),
    "Alpaca without its output": (
        "chat",
        {"instruction": "i"},
        "needs messages or prompt+completion or conversations or",
    ),
    "no turns": ("chat", {"conversations": []}, "at least one turn"),
    "a turn from nobody known": ("chat", {"conversations": [{"from": "bing", "value": "a"}]}, "turn 1 is from none of"),
    "a turn from a list": ("chat", {"conversations": [{"from": ["gpt"], "value": "a"}]}, "turn 1 is from none of"),
    "a turn with more": (
        "chat",
        {"conversations": [{"from": "gpt", "value": "a", "loss": 0}]},
        "turn 1 must be an object with 'from' and a text 'value', and nothing else",
    ),
    "a turn as text": ("chat", {"conversations": ["a"]}, "turn 1 must be an object"),
    "a completion that is a number": (
        "chat",
        {"prompt": "a", "completion": 5},
        "'completion' must be text, this is int",
    ),
    "a prompt of null": ("completion", {"prompt": None, "completion": "a"}, "'prompt' must be text, this is NoneType"),
    "a prompt alone": ("completion", {"prompt": "a"}, "needs prompt+completion or text; the row has prompt"),
    "an empty row": ("chat", {}, "the row has nothing"),
    "a label of true": ("classification", {"text": "a", "label": True}, "'label' must be a name or a whole number"),
    "a label of null": ("classification", {"text": "a", "label": None}, "this is NoneType"),
    "a label of 1.5": ("classification", {"text": "a", "label": 1.5}, "this is float"),
    "an empty label": ("classification", {"text": "a", "label": ""}, "this is an empty text"),
    "a second text that is a number": ("classification", {"text": "a", "text_pair": 1, "label": "b"}, "'text_pair'"),
    "a text that is a list": ("completion", {"text": ["a"]}, "'text' must be text, this is list"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_row_is_refused_with_a_sentence(fault: str) -> None:
    task, values, said = BAD[fault]
    with pytest.raises(ValueError, match=re.escape(said)):
        record(values, task)


@pytest.mark.parametrize("weight", [True, "1", -1, 1001, 10**400, 1e308, [1]])
def test_a_weight_is_a_number_within_reason(weight: object) -> None:
    with pytest.raises(ValueError, match="message 2 has a weight that is not a number from 0 to 1000"):
        record(
            {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a", "weight": weight}]}
        )


def test_a_weight_on_a_turn_that_is_never_trained_is_refused() -> None:
    with pytest.raises(ValueError, match="only an assistant's turn is trained"):
        record({"messages": [{"role": "user", "content": "u", "weight": 1}]})


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("assistant"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "weight", "from", "value", "x"]), inner, max_size=4)
    ),
    max_leaves=6,
)
roles = st.sampled_from(["messages", "prompt", "completion", "text", "text_pair", "label", "group", "other"])
roles = roles | st.sampled_from(["conversations", "instruction", "input", "output", "system", "history"])


@settings(max_examples=600)
@given(task=st.sampled_from(sorted(FORMATS)), values=st.dictionaries(roles, anything, max_size=4))
def test_any_row_is_understood_or_refused_with_a_short_sentence(task: str, values: dict[str, Any]) -> None:
    try:
        got = record(values, task, group="group")
    except ValueError as error:
        assert 0 < len(str(error)) < 300
    else:
        assert got.group is None or got.group


# ---- columns, groups, instruction ------------------------------------------------------------------------------------


def test_columns_give_roles_to_other_names() -> None:
    got = record({"review": "r", "stars": 5, "shop": 7}, "classification", text="review", label="stars", group="shop")
    assert got == Record(WHERE, LabelledText("r", "5"), group="7")


def test_a_column_that_a_row_lacks_is_named_with_those_that_it_has() -> None:
    with pytest.raises(ValueError, match=r"has no column 'stars' \(data.columns.label\); it has review, date$"):
        record({"review": "r", "date": "d"}, "classification", label="stars")


def test_a_message_about_many_columns_stays_short() -> None:
    with pytest.raises(ValueError, match=r"and 992 more$"):
        record({f"c{number}": 0 for number in range(1000)})


@pytest.mark.parametrize("group", [None, ""])
def test_an_empty_group_belongs_with_no_other(group: str | None) -> None:
    assert record({"text": "t", "g": group}, "completion", group="g").group is None


@pytest.mark.parametrize("group", [True, 1.5, ["a"], {"a": 1}])
def test_a_group_is_a_name_or_a_whole_number(group: object) -> None:
    with pytest.raises(ValueError, match="'group' must be a name or a whole number"):
        record({"text": "t", "g": group}, "completion", group="g")


@pytest.mark.parametrize(
    ("task", "role"),
    [("chat", "text"), ("completion", "messages"), ("completion", "label"), ("classification", "prompt")],
)
def test_a_role_that_the_task_never_reads_is_an_error_of_the_recipe(task: str, role: str) -> None:
    with pytest.raises(RecipeError, match=f"task '{task}' does not read '{role}'") as refusal:
        refuse_idle_roles(task, [role])
    assert refusal.value.where == f"data.columns.{role}"


def test_every_role_that_a_task_reads_may_be_named() -> None:
    for task, known in FORMATS.items():
        refuse_idle_roles(task, ["group", *(role for form in known for role in form.roles if role not in FIXED)])
    refuse_idle_roles("classification", ["text_pair"])


@pytest.mark.parametrize("name", FIXED)
def test_a_form_that_is_known_by_its_names_alone_has_no_roles(name: str) -> None:
    """What is no role in the recipe's schema is none here either, in the cure of the message least of all."""
    with pytest.raises(RecipeError) as refusal:
        refuse_idle_roles("chat", [name])
    assert refusal.value.cure == (
        "its roles are completion, group, messages, prompt, sensitive_feature, source, target"
    )


def test_an_instruction_stands_before_a_rows_own_words() -> None:
    asked = {"prompt": "p", "completion": "c"}
    chat = record(asked, "chat", "Be brief.").content
    assert isinstance(chat, Conversation)
    assert chat.messages[0] == Message("system", "Be brief.") and len(chat.messages) == 3
    assert record(asked, "completion", "Be brief.").content == PromptCompletion("Be brief.\np", "c")


def test_a_row_with_a_system_message_of_its_own_is_refused_where_there_is_an_instruction() -> None:
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    with pytest.raises(ValueError, match="a system message of its own"):
        record({"messages": turns}, "chat", "Be brief.")


@pytest.mark.parametrize(
    ("task", "values"), [("completion", {"text": "t"}), ("classification", {"text": "t", "label": "x"})]
)
def test_an_instruction_without_effect_is_one_error_of_the_recipe(task: str, values: dict[str, Any]) -> None:
    with pytest.raises(RecipeError) as refusal:
        record(values, task, "Be brief.")
    assert refusal.value.where == "data.instruction"


# ---- rows that are only asked about ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "values"),
    [
        ("chat", {"prompt": "p"}),
        ("chat", {"messages": [{"role": "user", "content": "u"}]}),
        ("chat", {"instruction": "i", "input": "x"}),
        ("chat", {"conversations": [{"from": "human", "value": "u"}]}),
        ("chat", {"conversations": [{"role": "user", "content": "u"}]}),
        ("chat", {"source": "s"}),
        ("seq2seq", {"source": "s"}),
        ("completion", {"prompt": "p"}),
        ("completion", {"text": "t"}),
        ("classification", {"text": "t"}),
    ],
)
def test_a_row_without_its_answer_is_understood_with_a_placeholder(task: str, values: dict[str, Any]) -> None:
    before = repr(values)
    record(with_placeholder(values, task, {}), task)
    assert repr(values) == before


def test_a_placeholder_never_takes_the_place_of_an_answer() -> None:
    turns = [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]
    for task, values in (
        ("chat", {"prompt": "p", "completion": "c"}),
        ("chat", {"instruction": "i", "output": "o"}),
        ("chat", {"conversations": turns}),
        ("classification", {"text": "t", "label": "x"}),
    ):
        assert with_placeholder(values, task, {}) == values
