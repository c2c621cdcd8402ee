"""Words meet the tokens of their running text: each word's tokens are its own, and one of them carries its label.

INVARIANTS row 36. The oracles: what the tokens decode to, the word tokenized by itself, and sets of characters.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from small_tokenizers import FAITHFUL, tokenizer

from pegbox.tasks.words import Offsets, label_places, own_tokens, running_text

Align = Callable[[Sequence[Offsets], Sequence[Offsets]], list[list[int]]]

SENTENCES = [
    ["The", "quick", "brown", "fox"],
    ["naïve", "café", ",", "北京", "and", "москва", "."],
    ["x"],
    ["😀", "12.5", "{", "}", "großé", "…"],
    ["Turn", "on", "New York", "now"],  # a word may hold a space
    ["a", "a", "aa", "a"],
]
# no white space, and none of what SentencePiece writes for a space
WORDS = st.lists(
    st.text(st.characters(exclude_categories=("Z", "C"), exclude_characters="▁"), min_size=1, max_size=8),
    min_size=1,
    max_size=8,
)
MADE: dict[str, Any] = {kind: tokenizer(kind) for kind in (*FAITHFUL, "wordpiece")}


def tokens_of(kind: str, words: Sequence[str]) -> tuple[list[int], list[Offsets], list[Offsets]]:
    """The ids of the running text, their offsets, and those of the words."""
    text, offsets = running_text(words)
    encoded = MADE[kind](text, return_offsets_mapping=True)
    return encoded["input_ids"], encoded["offset_mapping"], offsets


# ---- the text --------------------------------------------------------------------------------------------------------


@hypothesis.given(st.lists(st.text()))
def test_a_word_stands_in_the_running_text_where_its_offsets_say(words: list[str]) -> None:
    text, offsets = running_text(words)
    assert [text[start:end] for start, end in offsets] == words
    assert text == " ".join(words)


# ---- the tokens ------------------------------------------------------------------------------------------------------


def check_tokens_are_the_words(kind: str, words: Sequence[str], align: Align = own_tokens) -> None:
    """The tokens of each word decode to it, with the space before it where the tokenizer makes it part of them."""
    ids, tokens, offsets = tokens_of(kind, words)
    own = align(offsets, tokens)
    decoded = [MADE[kind].decode([ids[place] for place in places]) for places in own]
    assert [text.removeprefix(" ") for text in decoded] == list(words)


@pytest.mark.parametrize("kind", FAITHFUL)
@pytest.mark.parametrize("words", SENTENCES, ids=" ".join)
def test_the_tokens_of_a_word_decode_to_it(kind: str, words: list[str]) -> None:
    check_tokens_are_the_words(kind, words)


@pytest.mark.parametrize("kind", FAITHFUL)
@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(WORDS)
def test_the_tokens_of_any_word_decode_to_it(kind: str, words: list[str]) -> None:
    check_tokens_are_the_words(kind, words)


@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(WORDS)
def test_word_pieces_of_a_word_are_those_of_the_word_by_itself(words: list[str]) -> None:
    """Also where there are none: a normalizer drops accents that stand alone, and the row is refused."""
    ids, tokens, offsets = tokens_of("wordpiece", words)
    alone = [MADE["wordpiece"].encode(word, add_special_tokens=False) for word in words]
    assert [[ids[place] for place in places] for places in own_tokens(offsets, tokens)] == alone
    if all(alone):
        assert [ids[place] for place in label_places(offsets, tokens, last=False)] == [pieces[0] for pieces in alone]
        assert [ids[place] for place in label_places(offsets, tokens, last=True)] == [pieces[-1] for pieces in alone]
    else:
        with pytest.raises(ValueError, match=f"word {alone.index([]) + 1} of {len(words)}"):
            label_places(offsets, tokens, last=False)


def within(words: Sequence[Offsets], tokens: Sequence[Offsets]) -> list[list[int]]:
    """Bug: only tokens that lie within the word, so that one which brings the space before it is lost."""
    return [[p for p, (a, b) in enumerate(tokens) if start <= a < b <= end] for start, end in words]


def shifted(words: Sequence[Offsets], tokens: Sequence[Offsets]) -> list[list[int]]:
    """Bug: the words' tokens moved by one place."""
    return [[min(place + 1, len(tokens) - 1) for place in places] for places in own_tokens(words, tokens)]


@pytest.mark.parametrize("bug", [within, shifted])
def test_the_check_sees_lost_and_shifted_tokens(bug: Align) -> None:
    with pytest.raises(AssertionError):
        check_tokens_are_the_words("byte_level", ["Turn", "on", "the", "light"], bug)


# ---- one place a word ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("words", SENTENCES, ids=" ".join)
def test_each_word_has_one_place_and_each_place_one_word(kind: str, last: bool, words: list[str]) -> None:
    _, tokens, offsets = tokens_of(kind, words)
    places = label_places(offsets, tokens, last=last)
    assert len(places) == len(words)
    assert places == sorted(set(places))
    for place, (start, end) in zip(places, offsets, strict=True):
        overlapping = [p for p, (a, b) in enumerate(tokens) if a < end and b > start and a < b]
        assert place == overlapping[-1 if last else 0]


def test_the_example_of_the_docstring_holds() -> None:
    offsets = running_text(["Anna", "visited", "Reykjavik"])[1]
    pieces = [(0, 0), (0, 2), (2, 4), (5, 12), (13, 16), (16, 17), (17, 19), (19, 22), (0, 0)]
    assert own_tokens(offsets, pieces) == [[1, 2], [3], [4, 5, 6, 7]]
    assert label_places(offsets, pieces, last=False) == [1, 3, 4]
    assert label_places(offsets, pieces, last=True) == [2, 3, 7]


@hypothesis.given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.data())
def test_a_token_belongs_to_the_only_word_that_it_shares_a_character_with(sizes: list[int], data: Any) -> None:
    text, words = running_text(["x" * size for size in sizes])
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))) | {0, len(text)})
    tokens = list(itertools.pairwise(cuts))
    wanted: list[list[int]] = [[] for _ in words]
    for place, token in enumerate(tokens):
        shared = [n for n, word in enumerate(words) if set(range(*word)) & set(range(*token))]
        if len(shared) == 1:
            wanted[shared[0]].append(place)
    assert own_tokens(words, tokens) == wanted


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_a_word_without_a_token_is_refused_by_its_number() -> None:
    _, tokens, offsets = tokens_of("wordpiece", ["the", "\u0301", "dog"])
    with pytest.raises(ValueError, match="word 2 of 3 has no token of its own"):
        label_places(offsets, tokens, last=False)


def test_a_token_over_two_words_labels_neither() -> None:
    _, offsets = running_text(["New", "York", "now"])
    with pytest.raises(ValueError, match=r"word 1 of 3 \(and 1 more\)"):
        label_places(offsets, [(0, 8), (8, 12)], last=False)
    assert label_places(offsets, [(0, 2), (2, 6), (6, 8), (8, 12)], last=True) == [0, 2, 3]


def test_an_empty_word_is_refused() -> None:
    for words, bare in ((["a", "", "b"], 2), ([""], 1), (["a", ""], 2)):
        _, tokens, offsets = tokens_of("byte_level", words)
        with pytest.raises(ValueError, match=f"word {bare} of {len(words)}"):
            label_places(offsets, tokens, last=False)
