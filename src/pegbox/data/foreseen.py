"""What the tokenizer will be asked for a block of rows, so that it is asked all of it at once.

Texts that are encoded together are shared out among the cores, and the tokenizer's tables stay in the processor's cache:
a text costs a fifth of what it costs by itself between other work. Nothing is promised: a text that was not foreseen is
encoded by itself, and one that nobody asks for was encoded in vain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import NamedTuple, TypeVar

from pegbox.data.records import Content, Conversation, Message, PlainText, PromptCompletion
from pegbox.data.template import Template
from pegbox.errors import RecipeError

Item = TypeVar("Item")
ROWS = 256  # foreseen at once


class Asked(NamedTuple):
    """Texts by what a `Codec` will be asked for them: `encode`, `learnt_behind`, `learnt`."""

    served: list[str]
    behind: list[str]
    learnt: list[str]


def blocks(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The items, as many together as are foreseen at once."""
    left = iter(items)
    while block := list(islice(left, ROWS)):
        yield block


def asked_of(chat: Template, contents: Iterable[Content]) -> Asked:
    """The texts of prompts and of answers; none of a kind of row, or of a conversation, that nothing is foreseen of."""
    asked = Asked([], [], [])
    for content in contents:
        match content:
            case Conversation(messages, ()):
                with suppress(ValueError, RecipeError):  # who renders the row will say so
                    _turns(chat, messages, asked)
            case PromptCompletion(prompt, completion):
                asked.served.append(prompt)
                asked.behind.append(completion)
            case PlainText(text):
                asked.learnt.append(text)
            case _:
                pass
    return asked


def _turns(chat: Template, messages: tuple[Message, ...], asked: Asked) -> None:
    """What stands before each answer, beyond what stood before the last; and the answers."""
    told = ""
    for index, message in enumerate(messages):
        if message.role == "assistant" and not message.tool_calls:
            opened = chat.ahead(messages[:index], True)
            chat.ahead(messages[: index + 1], False)
            asked.served.append(opened.removeprefix(told))
            asked.behind.append(message.content)
            told = opened
