"""Formats of prompts and what follows: prompt/completion, plain text, source/target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pegbox.data.cells import text
from pegbox.data.conversations import turns_of
from pegbox.data.masks import spans_of
from pegbox.data.records import Conversation, Message, PlainText, PromptCompletion, SourceTarget
from pegbox.data.tools import tools_of


def prompt_completion(values: Mapping[str, Any]) -> PromptCompletion:
    """`prompt` and `completion`; a `train_detail` beside them says which characters of the completion are trained."""
    completion, detail = text(values, "completion"), values.get("train_detail")
    trained = None if detail is None else spans_of(detail, len(completion), "the completion")
    return PromptCompletion(text(values, "prompt"), completion, trained)


def prompt_completion_as_chat(values: Mapping[str, Any]) -> Conversation:
    """`prompt` and `completion` as a user's turn and the assistant's answer; or as messages, as TRL has them."""
    if isinstance(values["prompt"], list):
        return joined(
            turns_of(values["prompt"], "prompt"), turns_of(values["completion"], "completion"), tools_of(values)
        )
    told = prompt_completion(values)
    weight = 1.0 if told.trained is None or told.trained else 0.0
    answer = Message("assistant", told.completion, weight, told.trained)
    return Conversation((Message("user", told.prompt), answer))


def joined(asked: tuple[Message, ...], answered: tuple[Message, ...], tools: tuple[str, ...]) -> Conversation:
    """Messages of which only the later part is trained."""
    return Conversation((*(replace(message, weight=0.0) for message in asked), *answered), tools)


def plain_text(values: Mapping[str, Any]) -> PlainText:
    """`text`, learnt whole."""
    return PlainText(text(values, "text"))


def source_target(values: Mapping[str, Any]) -> SourceTarget:
    """`source` and `target`: a text and its translation, its summary."""
    return SourceTarget(text(values, "source"), text(values, "target"))


def led(instruction: str) -> str:
    """An instruction as what a source begins with, "translate English to German: ": parted from it by white space."""
    return instruction if instruction[-1].isspace() else f"{instruction} "


def source_target_as_chat(values: Mapping[str, Any]) -> Conversation:
    """`source` and `target` as a user's turn and the assistant's answer; `data.instruction` can say what is asked."""
    told = source_target(values)
    turns = (Message("user", told.source), Message("assistant", told.target, 1.0))
    return Conversation(turns, of_source=True)
