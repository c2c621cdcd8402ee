"""Rows that are too long, made to fit: an input cut from its end, or a row split into several. An answer is never cut.

Both are found by encoding again: `fits` is asked of shorter and shorter forms, so that what a template or a tokenizer
adds is counted as it will be. Only rows that are too long pay for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from pegbox.data.records import (
    Content,
    Conversation,
    LabelledText,
    LabelSetText,
    MatchedTexts,
    Message,
    PlainText,
    PromptCompletion,
    ScoredText,
    SourceTarget,
    TaggedWords,
)

Fits = Callable[[Content], bool]


def cut(content: Content, fits: Fits) -> Content | None:
    """The content with its longest input shortened from the end until it fits; None where no part of it would be left.

    Of a conversation that is the longest turn that is not the assistant's, of a pair of texts the longer one. Of texts that
    the model reads one by one it is each of them.
    """
    if isinstance(content, MatchedTexts):
        return _each_cut(content, fits)
    found = _input(content)
    if found is None:
        return None
    text, rebuilt = found
    size = _largest(len(text) - 1, lambda kept: fits(rebuilt(text[:kept])))
    return rebuilt(text[:size]) if size else None


def _input(content: Content) -> tuple[str, Callable[[str], Content]] | None:
    """The text that may be cut, and the content with another in its place."""
    match content:
        case PromptCompletion(prompt=prompt):
            return prompt, lambda text: replace(content, prompt=text)
        case SourceTarget(source=source):
            return source, lambda text: replace(content, source=text)
        case Conversation(messages=messages):
            places = [place for place, message in enumerate(messages) if message.role != "assistant"]
            place = max(places, key=lambda place: len(messages[place].content), default=None)
            return None if place is None else (messages[place].content, _turn(content, place))
        case LabelledText() | LabelSetText() | ScoredText():
            pair = content.text_pair
            if pair is not None and len(pair) > len(content.text):
                return pair, lambda text: replace(content, text_pair=text)
            return content.text, lambda text: replace(content, text=text)
    return None


def _each_cut(content: MatchedTexts, fits: Fits) -> Content | None:
    def kept(text: str) -> str:
        return text[: _largest(len(text), lambda size: fits(MatchedTexts(text[:size], text[:size])), guess=len(text))]

    text, pair, *others = map(kept, content.texts)
    if not all((text, pair, *others)):
        return None
    return replace(content, text=text, text_pair=pair, negative=others[0] if others else None)


def _turn(content: Conversation, place: int) -> Callable[[str], Content]:
    before, turn, after = content.messages[:place], content.messages[place], content.messages[place + 1 :]
    return lambda text: replace(content, messages=(*before, replace(turn, content=text), *after))


def pieces(content: Content, fits: Fits) -> list[Content]:
    """The content as several that fit, nothing lost and nothing twice but the system's message; empty where that fails.

    A text is split behind white space where it can be, a sentence between words, a conversation behind an answer (what
    was said before is not shown to the later pieces).
    """
    match content:
        case PlainText(text=text):
            return _greedy(len(text), lambda a, b: replace(content, text=text[a:b]), fits, _behind_space(text))
        case TaggedWords(tokens=words, tags=tags):
            made = lambda a, b: replace(content, tokens=words[a:b], tags=tags[a:b])  # noqa: E731
            return _greedy(len(words), made, fits, _before_an_entity(tags))
        case Conversation(messages=messages):
            head = tuple(message for message in messages[:1] if message.role == "system")
            turns = list(_exchanges(messages[len(head) :]))
            spoken = lambda a, b: replace(content, messages=(*head, *(m for turn in turns[a:b] for m in turn)))  # noqa: E731
            return _greedy(len(turns), spoken, fits)
    return []


def _exchanges(messages: tuple[Message, ...]) -> Iterator[tuple[Message, ...]]:
    """The turns up to each answer of the assistant's that somebody else's turn follows."""
    begin = 0
    for place, message in enumerate(messages, start=1):
        if place == len(messages) or (message.role == "assistant" and messages[place].role in ("user", "system")):
            yield messages[begin:place]
            begin = place


def _behind_space(text: str) -> Callable[[int, int], int]:
    """Where to end a piece of a text that may reach from `begin` to `end`: behind its last line or word in that half."""

    def ended(begin: int, end: int) -> int:
        if end < len(text):
            for space in ("\n\n", "\n", " "):
                if (found := text.rfind(space, begin + (end - begin) // 2, end)) > 0:
                    return found + len(space)
        return end

    return ended


def _before_an_entity(tags: tuple[str, ...]) -> Callable[[int, int], int]:
    """Where to end a piece of a sentence: not within an entity, whose tags after the first begin with I- or E-."""

    def ended(begin: int, end: int) -> int:
        while begin < end < len(tags) and tags[end].startswith(("I-", "E-", "L-")):
            end -= 1
        return end

    return ended


def _greedy(
    size: int,
    made: Callable[[int, int], Content],
    fits: Fits,
    ended: Callable[[int, int], int] = lambda begin, end: end,
) -> list[Content]:
    """Pieces from the front, each as long as fits; empty where one unit alone does not fit."""
    found: list[Content] = []
    begin, guess = 0, size
    while begin < size:
        length = _largest(size - begin, lambda length: fits(made(begin, begin + length)), guess)  # noqa: B023
        if length == 0:
            return []
        end = ended(begin, begin + length)
        if end == begin:
            return []
        found.append(made(begin, end))
        begin, guess = end, length
    return found


def _largest(most: int, holds: Callable[[int], bool], guess: int = 0) -> int:
    """The largest size from 1 to `most` that holds, 0 where none does; `guess`: about where it lies."""
    low, high = 0, most + 1  # `low` holds, `high` does not
    size = min(most, guess) or (most + 1) // 2
    step = max(1, size // 8)
    while guess and low < size < high:  # gallop away from a guess, so that only texts of about this size are encoded
        if holds(size):
            low, size = size, size + step
        else:
            high, size = size, size - step
        step *= 2
    while high - low > 1:
        size = (low + high) // 2
        low, high = (size, high) if holds(size) else (low, size)
    return low
