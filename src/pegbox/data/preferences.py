"""Formats of preferences: two answers to the same, in both of OpenAI's spellings and in TRL's.

OpenAI: `input: {messages, tools}` with `preferred_output` and `non_preferred_output`, lists of an assistant's messages;
its reference has also called them `preferred_completion` and `non_preferred_completion`. TRL: `prompt`, `chosen` and
`rejected`, as texts or as messages; without a prompt it is what the two begin with alike. TRL cuts texts where they
first differ, also within a word; here they are cut before the word, for a tokenizer would not cut it there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pegbox.data.cells import text
from pegbox.data.conversations import turns_of
from pegbox.data.prompts import joined
from pegbox.data.records import Conversation, Message, Preference, PromptCompletion
from pegbox.data.tools import tools_of

Answered = Conversation | PromptCompletion
APART = "the two answers have no beginning in common, and there is no prompt"


def openai_preference(values: Mapping[str, Any]) -> Preference:
    """OpenAI's `preferred_output` and `non_preferred_output`."""
    return _openai(values, "preferred_output", "non_preferred_output")


def openai_preference_completion(values: Mapping[str, Any]) -> Preference:
    """The same as `preferred_completion` and `non_preferred_completion`."""
    return _openai(values, "preferred_completion", "non_preferred_completion")


def _openai(values: Mapping[str, Any], better: str, worse: str) -> Preference:
    asked = values["input"]
    if not isinstance(asked, dict) or "messages" not in asked:
        raise ValueError("'input' must be an object with messages")
    return _of_messages(turns_of(asked["messages"], "messages"), values[better], values[worse], tools_of(asked))


def trl_preference(values: Mapping[str, Any]) -> Preference:
    """TRL's `prompt`, `chosen` and `rejected`, as texts or as messages."""
    prompt, chosen, rejected = values["prompt"], values["chosen"], values["rejected"]
    if isinstance(chosen, list):
        asked = (Message("user", prompt),) if isinstance(prompt, str) else turns_of(prompt, "prompt")
        return _of_messages(asked, chosen, rejected, tools_of(values))
    prompt = text(values, "prompt")
    return _differing(
        PromptCompletion(prompt, text(values, "chosen")), PromptCompletion(prompt, text(values, "rejected"))
    )


def trl_implicit_preference(values: Mapping[str, Any]) -> Preference:
    """TRL's `chosen` and `rejected`, the prompt within both."""
    if isinstance(values["chosen"], list):
        better, worse = turns_of(values["chosen"], "chosen"), turns_of(values["rejected"], "rejected")
        shared = _shared(better, worse)
        return _between(better[:shared], better[shared:], worse[shared:], tools_of(values))
    good, bad = text(values, "chosen"), text(values, "rejected")
    prompt = _words(good[: _shared(good, bad)])
    if not prompt.strip():
        raise ValueError(APART)
    cut = len(prompt)
    return _differing(PromptCompletion(prompt, good[cut:]), PromptCompletion(prompt, bad[cut:]))


def _shared(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How long the two are the same from the beginning."""
    differing = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


def _words(text: str) -> str:
    """The whole words that a text begins with: the last may have only begun."""
    whole = text.rstrip()
    if whole != text:
        return whole
    head, *last = text.rsplit(maxsplit=1) or [""]
    return head if last else ""


def _of_messages(asked: tuple[Message, ...], better: Any, worse: Any, tools: tuple[str, ...]) -> Preference:
    return _between(asked, turns_of(better, "the better answer"), turns_of(worse, "the worse answer"), tools)


def _between(
    asked: tuple[Message, ...], better: tuple[Message, ...], worse: tuple[Message, ...], tools: tuple[str, ...]
) -> Preference:
    for turns in (better, worse):
        if not any(message.weight for message in turns):
            raise ValueError("an answer must hold a turn of the assistant")
    if not asked:
        raise ValueError(APART)
    return _differing(joined(asked, better, tools), joined(asked, worse, tools))


def _differing(chosen: Answered, rejected: Answered) -> Preference:
    if chosen == rejected:
        raise ValueError("the two answers are the same: there is nothing to prefer")
    return Preference(chosen, rejected)
