"""A row that is too long is cut at its input or split into several: nothing is lost in silence, no answer is touched."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pegbox.data.records import (
    Content,
    Conversation,
    LabelledText,
    MatchedTexts,
    Message,
    PlainText,
    PromptCompletion,
    TaggedWords,
)
from pegbox.data.shorten import Fits, cut, pieces


def size(content: Content) -> int:
    match content:
        case PromptCompletion(prompt, completion):
            return len(prompt) + len(completion)
        case LabelledText(text, _, pair):
            return len(text) + len(pair or "")
        case PlainText(text):
            return len(text)
        case MatchedTexts():
            return max(map(len, content.texts))
        case TaggedWords(tokens):
            return sum(map(len, tokens))
        case Conversation(messages):
            return sum(len(message.content) + 3 for message in messages)
    raise AssertionError(content)


def within(limit: int) -> Fits:
    return lambda content: size(content) <= limit


TEXT = st.text(alphabet="ab \n\u00e9\U0001f600", max_size=60)


@given(TEXT, TEXT, st.integers(1, 80))
def test_a_cut_prompt_is_the_longest_that_fits_and_the_completion_stays(prompt: str, answer: str, limit: int) -> None:
    done = cut(PromptCompletion(prompt, answer), within(limit))
    kept = min(len(prompt) - 1, limit - len(answer))
    if kept < 1:
        assert done is None
    else:
        assert done == PromptCompletion(prompt[:kept], answer)


def test_of_a_pair_the_longer_text_is_cut() -> None:
    assert cut(LabelledText("aaaa", "x", "bbbbbbbb"), within(10)) == LabelledText("aaaa", "x", "bbbbbb")
    assert cut(LabelledText("a" * 9, "x", "bb"), within(10)) == LabelledText("a" * 8, "x", "bb")


@given(st.lists(TEXT, min_size=2, max_size=3), st.integers(0, 80))
def test_of_texts_that_are_read_one_by_one_each_is_cut(texts: list[str], limit: int) -> None:
    done = cut(MatchedTexts(*texts), within(limit))
    kept = [text[:limit] for text in texts]
    assert done == (MatchedTexts(*kept) if all(kept) else None)


def test_of_a_conversation_the_longest_turn_that_is_not_the_assistants_is_cut() -> None:
    turns = (Message("user", "u" * 5), Message("tool", "t" * 50), Message("assistant", "a" * 60, 1.0))
    done = cut(Conversation(turns), within(100))
    assert done == Conversation((turns[0], Message("tool", "t" * 26), turns[2]))


def test_what_is_all_answer_cannot_be_cut() -> None:
    assert cut(PlainText("a" * 30), within(10)) is None
    assert cut(TaggedWords(("a",) * 30, ("x",) * 30), within(10)) is None


@settings(max_examples=300)
@given(TEXT.filter(bool), st.integers(1, 30))
def test_the_pieces_of_a_text_are_the_text(text: str, limit: int) -> None:
    found = pieces(PlainText(text), within(limit))
    assert "".join(piece.text for piece in found if isinstance(piece, PlainText)) == text
    assert all(0 < size(piece) <= limit for piece in found)


def test_a_text_is_split_behind_white_space_where_it_can_be() -> None:
    found = pieces(PlainText("one two three four\nfive six"), within(12))
    assert [piece.text for piece in found if isinstance(piece, PlainText)] == ["one two ", "three four\n", "five six"]


@given(st.lists(st.text("ab", min_size=1, max_size=9), min_size=1, max_size=30), st.integers(1, 20))
def test_the_pieces_of_a_sentence_hold_each_word_with_its_tag(words: list[str], limit: int) -> None:
    tags = tuple(f"{word} {place}" for place, word in enumerate(words))
    found = [
        piece for piece in pieces(TaggedWords(tuple(words), tags), within(limit)) if isinstance(piece, TaggedWords)
    ]
    if max(map(len, words)) > limit:
        assert found == []
    else:
        assert [*zip(words, tags, strict=True)] == [p for f in found for p in zip(f.tokens, f.tags, strict=True)]


def test_a_conversation_is_split_behind_answers_and_keeps_its_system_message() -> None:
    system = Message("system", "be kind")
    turns = [(Message("user", f"u{i}" * 3), Message("assistant", f"a{i}" * 3, float(i != 2))) for i in range(5)]
    whole = Conversation((system, *(message for turn in turns for message in turn)))
    found = pieces(whole, within(46))
    assert [len(piece.messages) for piece in found if isinstance(piece, Conversation)] == [5, 5, 3]
    spoken = [m for piece in found if isinstance(piece, Conversation) for m in piece.messages[1:]]
    assert spoken == list(whole.messages[1:])
    assert all(isinstance(piece, Conversation) and piece.messages[0] == system for piece in found)


def test_tool_answers_stay_with_the_call() -> None:
    turns = ("user", "assistant", "tool", "assistant", "user", "assistant")
    whole = Conversation(tuple(Message(role, role * 3, float(role == "assistant")) for role in turns))
    found = pieces(whole, within(100))
    assert [len(piece.messages) for piece in found if isinstance(piece, Conversation)] == [4, 2]


def test_what_has_one_label_cannot_be_split() -> None:
    assert pieces(LabelledText("a" * 30, "x"), within(10)) == []
    assert pieces(PromptCompletion("a" * 30, "x"), within(10)) == []


def test_a_long_text_is_encoded_little_more_than_its_length() -> None:
    encoded = 0

    def fits(content: Content) -> bool:
        nonlocal encoded
        encoded += size(content)
        return size(content) <= 1000

    found = pieces(PlainText("word " * 20_000), fits)
    assert len(found) <= 210 and encoded < 20 * 100_000


def test_an_entity_is_never_parted() -> None:
    words, tags = ("in", "New", "York", "City", "it", "rains"), ("O", "B-LOC", "I-LOC", "I-LOC", "O", "O")
    found = [piece for piece in pieces(TaggedWords(words, tags), within(12)) if isinstance(piece, TaggedWords)]
    assert [piece.tokens for piece in found] == [("in",), ("New", "York", "City"), ("it", "rains")]
    assert pieces(TaggedWords(words, tags), within(9)) == []  # the name alone is longer
