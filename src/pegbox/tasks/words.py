"""Words <-> the tokens of the running text that they make: one place a word.

A row of words is read as the text of its words joined by single spaces, and that text is tokenized as any other, in
training and in serving. Words and tokens then meet by their character offsets: a token belongs to the one word that it
overlaps. So no tokenizer has to be told of words, nor whether it puts a space before each (`add_prefix_space`): where
the offsets of a token begin with that space (byte-level BPE, SentencePiece), it still overlaps one word only.

    text      Anna visited Reykjavik         words   (0, 4) (5, 12) (13, 22)
    tokens    [CLS] an ##na visited rey ##k ##ja ##vik [SEP]
    word      -     0  0    1       2   2    2    2     -      place 1, 3, 4 (first) or 2, 3, 7 (last)

A word is labelled once, at the first of its tokens, as BERT does it (Devlin et al. 2019, arXiv 1810.04805, section 5.3),
or at the last, where a causal model has seen the whole word. A token that reaches over two words belongs to neither: it
can carry no label of a single word.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

Offsets = tuple[int, int]  # of the first character, and behind the last


def running_text(words: Sequence[str]) -> tuple[str, list[Offsets]]:
    """The words joined by single spaces, and where each stands in that text."""
    offsets, start = [], 0
    for word in words:
        offsets.append((start, start + len(word)))
        start += len(word) + 1
    return " ".join(words), offsets


def own_tokens(words: Sequence[Offsets], tokens: Sequence[Offsets]) -> list[list[int]]:
    """For each word the places of the tokens that overlap it and no other word.

    `words` stand in order and do not overlap; a token of no width (`[CLS]`) belongs to none.
    """
    starts, ends = [start for start, _ in words], [end for _, end in words]
    own: list[list[int]] = [[] for _ in words]
    for place, (start, end) in enumerate(tokens):
        first, last = bisect_right(ends, start), bisect_left(starts, end) - 1
        if start < end and first == last:
            own[first].append(place)
    return own


def label_places(words: Sequence[Offsets], tokens: Sequence[Offsets], *, last: bool) -> list[int]:
    """The place of the one token of each word that carries its label: the first of its own tokens, or the `last`.

    Raises ValueError, with the word's number, where a word has none: the tokenizer drops all its characters, or cuts no
    token between it and its neighbour.
    """
    own = own_tokens(words, tokens)
    bare = [number for number, places in enumerate(own, start=1) if not places]
    if bare:
        more = f" (and {len(bare) - 1} more)" if len(bare) > 1 else ""
        raise ValueError(
            f"word {bare[0]} of {len(words)}{more} has no token of its own: the tokenizer drops or joins it"
        )
    return [places[-1 if last else 0] for places in own]
