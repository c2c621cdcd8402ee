"""Completions and plain text: the prompt as the tokenizer serves it, the rest to the byte, one stop token."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_tokenizers import BYTE_LEVEL, FAITHFUL, tokenizer

from pegbox.data.records import PromptCompletion
from pegbox.data.render import Renderer
from pegbox.errors import RecipeError

RENDERERS = {kind: Renderer(tokenizer(kind)) for kind in FAITHFUL}
everywhere = pytest.mark.parametrize("kind", FAITHFUL)


@everywhere
@pytest.mark.parametrize("prompt", ["The capital of France is", " hello", "\n\nx ", "naïve 北京", "<|im_end|>"])
def test_the_prompt_is_what_the_tokenizer_makes_of_it(kind: str, prompt: str) -> None:
    renderer = RENDERERS[kind]
    assert renderer.completion_prompt(prompt) == renderer.tokenizer(prompt)["input_ids"]


@settings(max_examples=400)
@given(kind=st.sampled_from(FAITHFUL), prompt=st.text(max_size=20), completion=st.text(max_size=20))
def test_the_completion_is_trained_to_the_byte_behind_the_served_prompt(
    kind: str, prompt: str, completion: str
) -> None:
    assume("▁" not in completion or kind in BYTE_LEVEL)
    renderer = RENDERERS[kind]
    assume(prompt or kind == "adds_bos")
    tokens = renderer.prompt_completion(PromptCompletion(prompt, completion))
    served = renderer.completion_prompt(prompt)
    assert tokens.input_ids[: len(served)] == served
    *said, stop = tokens.input_ids[len(served) :]
    assert stop == renderer.tokenizer.eos_token_id
    assert renderer.answer([*said, stop]) == completion
    assert tokens.loss_weights == [0.0] * len(served) + [1.0] * (len(said) + 1)


@everywhere
def test_plain_text_is_what_the_tokenizer_makes_of_it_and_a_stop_token(kind: str) -> None:
    renderer = RENDERERS[kind]
    tokens = renderer.plain_text("hello  world\n")
    assert tokens.input_ids == [*renderer.tokenizer("hello  world\n")["input_ids"], renderer.tokenizer.eos_token_id]
    bos = 1 if kind == "adds_bos" else 0
    assert tokens.loss_weights == [0.0] * bos + [1.0] * (len(tokens.input_ids) - bos)


@everywhere
def test_the_names_of_controls_in_plain_text_are_plain_text(kind: str) -> None:
    renderer = RENDERERS[kind]
    ids = renderer.plain_text("a</s>b<|im_end|>").input_ids
    assert [token for token in ids if token in renderer.stop_ids] == ids[-1:]
    assert ids[:-1] != renderer.tokenizer("a</s>b<|im_end|>")["input_ids"]


def test_a_bos_that_the_prompt_has_already_is_not_given_twice() -> None:
    renderer = RENDERERS["adds_bos"]
    assert renderer.completion_prompt("<s>hello") == renderer.completion_prompt("hello")


def test_an_empty_prompt_needs_something_before_it() -> None:
    assert RENDERERS["adds_bos"].completion_prompt("") == [RENDERERS["adds_bos"].tokenizer.bos_token_id]
    with pytest.raises(ValueError, match="the prompt is empty"):
        RENDERERS["byte_level"].prompt_completion(PromptCompletion("", "hello"))


def test_a_character_that_the_tokenizer_does_not_know_is_not_learnt_as_unknown() -> None:
    with pytest.raises(ValueError, match="the tokenizer cannot write"):
        Renderer(tokenizer("wordpiece")).plain_text("hello ☃")


def test_a_tokenizer_without_an_end_of_text_token_is_refused() -> None:
    made = tokenizer("byte_level")
    made.eos_token = None
    with pytest.raises(RecipeError, match="end-of-text"):
        Renderer(made).plain_text("hello")


@everywhere
def test_tokens_decode_one_by_one_to_the_text_that_they_have_within_a_longer_one(kind: str) -> None:
    """What `preview` shows: put together it is the text."""
    renderer = RENDERERS[kind]
    ids = renderer.prompt_completion(PromptCompletion("hello", " world and  the dog")).input_ids[-6:-1]
    assert "".join(renderer.decode([token]) for token in ids) == renderer.decode(ids)
