"""Preference pairs in OpenAI's spellings and TRL's: the same pair comes out of each."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegbox.data.formats import to_record
from pegbox.data.records import Conversation, Message, Preference, PromptCompletion, Row
from pegbox.data.store import dump_record, load_record

ASKED = [{"role": "user", "content": "u"}]
GOOD, BAD = [{"role": "assistant", "content": "good"}], [{"role": "assistant", "content": "bad"}]
PAIR = Preference(
    Conversation((Message("user", "u"), Message("assistant", "good", 1.0))),
    Conversation((Message("user", "u"), Message("assistant", "bad", 1.0))),
)
SPELLINGS: dict[str, dict[str, Any]] = {
    "OpenAI's": {"input": {"messages": ASKED}, "preferred_output": GOOD, "non_preferred_output": BAD},
    "OpenAI's reference": {"input": {"messages": ASKED}, "preferred_completion": GOOD, "non_preferred_completion": BAD},
    "TRL's": {"prompt": ASKED, "chosen": GOOD, "rejected": BAD},
    "TRL's with a prompt as text": {"prompt": "u", "chosen": GOOD, "rejected": BAD},
    "TRL's with an implicit prompt": {"chosen": ASKED + GOOD, "rejected": ASKED + BAD},
}


def preference(values: dict[str, Any]) -> Preference:
    record = to_record(Row("r:1", values), "preference", {})
    assert load_record(dump_record(record)) == record
    assert isinstance(record.content, Preference)
    return record.content


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_messages_is_the_same_pair(spelling: str) -> None:
    assert preference(SPELLINGS[spelling]) == PAIR


def test_texts_stay_texts() -> None:
    wanted = Preference(PromptCompletion("The sky is", " blue."), PromptCompletion("The sky is", " green."))
    assert preference({"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}) == wanted
    assert preference({"chosen": "The sky is blue.", "rejected": "The sky is green."}) == wanted


def test_an_implicit_prompt_ends_with_a_whole_word() -> None:
    """TRL cuts "black" and "blue" behind "bl"."""
    got = preference({"chosen": "It is\n black", "rejected": "It is\n blue"})
    assert got == Preference(PromptCompletion("It is", "\n black"), PromptCompletion("It is", "\n blue"))


@given(alike=st.text("ab \n", min_size=1), good=st.text("ab \n"), bad=st.text("ab \n"))
def test_an_implicit_prompt_and_its_answers_are_the_texts(alike: str, good: str, bad: str) -> None:
    try:
        got = preference({"chosen": alike + good, "rejected": alike + bad})
    except ValueError as error:
        assert "in common" in str(error) or "the same" in str(error)
        return
    for side, whole in ((got.chosen, alike + good), (got.rejected, alike + bad)):
        assert isinstance(side, PromptCompletion)
        assert side.prompt + side.completion == whole
        assert side.prompt == side.prompt.rstrip() or not side.completion[:1].strip()
    assert isinstance(got.chosen, PromptCompletion) and isinstance(got.rejected, PromptCompletion)
    assert got.chosen.prompt == got.rejected.prompt != ""


def test_only_what_differs_is_trained_in_an_implicit_prompt_of_several_turns() -> None:
    earlier = [*ASKED, {"role": "assistant", "content": "a"}, *ASKED]
    got = preference({"chosen": earlier + GOOD, "rejected": earlier + BAD})
    assert isinstance(got.chosen, Conversation)
    assert [message.weight for message in got.chosen.messages] == [0, 0, 0, 1]


def test_tools_of_the_input_are_tools_of_both() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    got = preference({**SPELLINGS["OpenAI's"], "input": {"messages": ASKED, "tools": [tool]}})
    assert isinstance(got.chosen, Conversation) and isinstance(got.rejected, Conversation)
    assert got.chosen.tools == got.rejected.tools and len(got.chosen.tools) == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"prompt": "u", "chosen": "a", "rejected": "a"}, "the two answers are the same"),
        ({"chosen": "a", "rejected": "b"}, "no beginning in common"),
        ({"chosen": GOOD, "rejected": BAD}, "no beginning in common"),
        ({"prompt": "u", "chosen": "a", "rejected": BAD}, "'rejected' must be text"),
        ({"prompt": ASKED, "chosen": ASKED, "rejected": BAD}, "an answer must hold a turn of the assistant"),
        ({"chosen": ASKED + GOOD, "rejected": ASKED}, "an answer must hold a turn of the assistant"),
        ({"prompt": 1, "chosen": "a", "rejected": "b"}, "'prompt' must be text"),
        ({**SPELLINGS["OpenAI's"], "input": "u"}, "'input' must be an object with messages"),
        ({**SPELLINGS["OpenAI's"], "preferred_output": []}, "'the better answer' must be a list"),
        ({"prompt": "u", "chosen": "a"}, "needs input+preferred_output"),
    ],
)
def test_a_pair_that_is_none_is_refused_with_a_sentence(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as refusal:
        preference(values)
    assert said in str(refusal.value)
