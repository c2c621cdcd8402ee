"""The texts of a record, for checks that look at characters and not at who asks and who answers."""

from __future__ import annotations

from collections.abc import Iterable

from pegbox.data.records import (
    Content,
    Conversation,
    LabelledText,
    LabelSetText,
    MatchedTexts,
    PlainText,
    Preference,
    PromptCompletion,
    ScoredText,
    SourceTarget,
    TaggedWords,
)


def texts(content: Content) -> Iterable[str]:
    """What was written in a row: its turns, its prompt and completion, its text and pair, its words as one text, ..."""
    match content:
        case Conversation():
            return [message.text for message in content.messages]
        case PromptCompletion(one, other) | SourceTarget(one, other):
            return (one, other)
        case Preference(chosen, rejected):
            return dict.fromkeys((*texts(chosen), *texts(rejected)))  # what was asked stands in both
        case PlainText(text):
            return (text,)
        case MatchedTexts():
            return content.texts
        case TaggedWords(tokens, _):
            return (" ".join(tokens),)
        case LabelledText(text, _, pair) | LabelSetText(text, _, pair) | ScoredText(text, _, pair):
            return (text,) if pair is None else (text, pair)


def names(content: Content) -> Iterable[str]:
    """What a row is called: its label, its labels, its tags; and the tools that a conversation has."""
    match content:
        case LabelledText(_, label, _):
            return (label,)
        case LabelSetText(_, labels, _) | TaggedWords(_, labels):
            return labels
        case Conversation():
            return content.tools
        case _:
            return ()


def whole(content: Content) -> str:
    """Everything in a row that a person wrote, each part on lines of its own."""
    return "\n".join((*texts(content), *names(content)))
