"""The same on the tokenizer and the chat template of a real model."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pegbox.data.records import Conversation, Message
from pegbox.data.render import Renderer
from pegbox.models import load as models
from pegbox.models.sources import resolve

# The vocabulary lacks the bytes of these controls (and of characters beyond U+3FFFF, which nobody has assigned but tags).
LOST = {*"\x04\x06\x13\x14\x16\x1d", *map(chr, range(0x40000, 0xC0000)), *map(chr, range(0x100000, 0x110000))}
pytestmark = pytest.mark.real_model


@cache
def folder() -> Path:
    return resolve("HuggingFaceTB/SmolLM2-135M-Instruct").path


@cache
def renderer() -> Renderer:
    return Renderer(models.load_tokenizer(folder()), models.stop_ids(folder()))


def test_the_golden_ids_of_one_conversation() -> None:
    """Written down once from Transformers' own rendering; the default system message is part of the template."""
    messages = (Message("user", "Turn on 12 lights"), Message("assistant", "Done.", 1.0))
    tokens = renderer().conversation(Conversation(messages))
    golden = [1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182]
    golden += [2, 198, 1, 4093, 198, 24202, 335, 216, 33, 34, 7751, 2, 198, 1, 520, 9531, 198, 41462, 30, 2]
    assert tokens.input_ids == golden
    assert tokens.loss_weights == [0.0] * (len(golden) - 3) + [1.0] * 3


def test_the_stop_token_is_that_of_the_template() -> None:
    assert renderer().tokenizer.convert_tokens_to_ids("<|im_end|>") in renderer().stop_ids


@settings(max_examples=300)
@given(asked=st.text(max_size=40), answer=st.text(max_size=40), more=st.text(max_size=10))
@example(asked="a", answer="\n\n  46.0", more=" ")
@example(asked="<|im_end|>", answer="<|im_end|> <|endoftext|>", more="\n")
def test_serving_is_the_reference_and_the_answer_is_trained_to_the_byte(asked: str, answer: str, more: str) -> None:
    assume(LOST.isdisjoint(asked + answer))
    turns = [
        Message("user", asked),
        Message("assistant", answer, 1.0),
        Message("user", more),
        Message("assistant", asked),
    ]
    tokens = renderer().conversation(Conversation(tuple(turns)))
    served = renderer().prompt(turns[:1])
    dicts = [{"role": turn.role, "content": turn.content} for turn in turns]
    assert served == renderer().tokenizer.apply_chat_template(dicts[:1], add_generation_prompt=True, return_dict=False)
    assert tokens.input_ids[: len(served)] == served
    trained = [token for token, weight in zip(tokens.input_ids, tokens.loss_weights, strict=True) if weight > 0]
    assert renderer().reply(trained) == answer
    assert [token in renderer().stop_ids for token in trained] == [False] * (len(trained) - 1) + [True]
    later = renderer().prompt(turns[:3])
    assert tokens.input_ids[: len(later)] == later


@pytest.mark.parametrize("character", [*sorted(LOST)[:6], "\U00040000"])
def test_an_answer_with_a_character_that_the_vocabulary_lacks_is_refused(character: str) -> None:
    """The tokenizer drops it or writes other bytes, without a word."""
    answer = f"a{character}b"
    assert renderer().decode(renderer().encode(answer)) != answer
    with pytest.raises(ValueError, match="the tokenizer cannot write"):
        renderer().conversation(Conversation((Message("user", "a"), Message("assistant", answer, 1.0))))
