"""Which row goes to train, validation and test: three ways, seeded, by hash.

A row's place depends on the seed and on its own key alone, so it keeps its side when others are appended; so do the
rows of every label, whose shares are right in expectation. The key is the row's group where it has one, else its
normalised input: exact twins stay together. A row with an earlier near twin joins the side of that twin, whatever its
own place: direct neighbours only, so that a chain of small steps does not draw a whole file to one side. A row that
has twins on two sides is left out and listed, for either side would leak.
"""

from __future__ import annotations

import hashlib
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from pegbox.data.records import (
    Content,
    Conversation,
    LabelledText,
    LabelSetText,
    MatchedTexts,
    PlainText,
    Preference,
    PromptCompletion,
    Record,
    ScoredText,
    SourceTarget,
    TaggedWords,
)
from pegbox.errors import DataError

SPLITS = ("train", "validation", "test")
NONE = np.zeros((0, 2), np.int64)  # no pairs
BETWEEN = "\0"  # parts of an input; white space would not tell ("a b", none) from ("a", "b")


@dataclass(frozen=True)
class Splits:
    """The records of each split, and those that were left out because their twins stand on another side."""

    train: Sequence[Record]
    validation: Sequence[Record]
    test: Sequence[Record]
    left_out: Sequence[Record] = ()


def parts(content: Content) -> tuple[str, str]:
    """What the model is asked, as one text, and the right answer; two records that are asked the same are twins."""
    match content:
        case Conversation(messages):
            last = max((i for i, message in enumerate(messages) if message.weight > 0), default=len(messages))
            asked = BETWEEN.join(f"{message.role}: {message.text}" for message in messages[:last])
            return asked, "".join(message.text for message in messages[last : last + 1])
        case PromptCompletion(asked, answer) | SourceTarget(asked, answer):
            return asked, answer
        case Preference(chosen, rejected):
            return parts(chosen)[0], BETWEEN.join((parts(chosen)[1], parts(rejected)[1]))
        case PlainText(text):
            return text, ""
        case LabelledText(text, answer, pair) | LabelSetText(text, answer, pair) | ScoredText(text, answer, pair):
            return (text if pair is None else f"{text}{BETWEEN}{pair}"), str(answer)
        case MatchedTexts(text, pair, negative, score):
            if score is not None:
                return f"{text}{BETWEEN}{pair}", str(score)
            return text, pair if negative is None else f"{pair}{BETWEEN}{negative}"
        case TaggedWords(tokens, tags):
            return " ".join(tokens), " ".join(tags)


def own_words(content: Content) -> str:
    """What the model is asked, without the system's message, which is the same in many rows."""
    if isinstance(content, Conversation):
        content = replace(content, messages=tuple(m for m in content.messages if m.role != "system"))
    return parts(content)[0]


def twin_key(content: Content) -> str:
    """A hash of the input without differences of case, white space and Unicode form."""
    return hashlib.sha256(normal(parts(content)[0]).encode()).hexdigest()


def normal(text: str) -> str:
    """The text without differences of case, white space and Unicode form."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _position(seed: int, key: str) -> float:
    """A number in [0, 1) that the seed and the key fix."""
    digest = hashlib.sha256(f"{seed}\0{key}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


FIRST, LONGEST = 1_000, 2_000  # rows, and characters of each, in which a beginning that many share is looked for
MANY, SHORTEST = 20, 24  # rows that share it and characters, at least


class Traits:
    """What a split needs of each record: 32 bytes, however long it is; and how many of them begin."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.several = False  # whether a text may have several right answers: those that match it
        self._beginnings: list[str] = []  # of the first rows
        self._twin, self._answer, self._group, self._at = array("Q"), array("Q"), array("Q"), array("d")

    def see(self, record: Record) -> None:
        """Take note of one record."""
        twin, group = twin_key(record.content), record.group
        self.several |= isinstance(record.content, MatchedTexts) and record.content.score is None
        if len(self._beginnings) < FIRST:
            self._beginnings.append(normal(own_words(record.content))[:LONGEST])
        self._twin.append(_number(twin))
        self._answer.append(_number(parts(record.content)[1]))
        self._group.append(0 if group is None else _number(group) or 1)
        self._at.append(_position(self._seed, twin if group is None else f"group {group}"))

    def __len__(self) -> int:
        return len(self._twin)

    @property
    def opening(self) -> str:
        """The longest beginning that at least MANY of the first rows share, and a tenth of them: an instruction; empty
        where that is a word or two."""
        texts = sorted(self._beginnings)
        count = max(MANY, len(texts) // 10)
        pairs = zip(texts, texts[count - 1 :], strict=False)  # what both ends of a run share, all in it share
        found = max((_shared(one, other) for one, other in pairs), key=len, default="")
        return found if len(found) >= SHORTEST else ""

    @property
    def twin(self) -> NDArray[np.uint64]:
        """Hashes [n] of what is asked; the same for exact twins."""
        return np.array(self._twin, np.uint64)

    @property
    def answer(self) -> NDArray[np.uint64]:
        """Hashes [n] of the right answers."""
        return np.array(self._answer, np.uint64)

    @property
    def group(self) -> NDArray[np.uint64]:
        """Hashes [n] of the groups; 0 where a row has none."""
        return np.array(self._group, np.uint64)

    @property
    def at(self) -> NDArray[np.float64]:
        """Places [n] in [0, 1), by the group, else by what is asked."""
        return np.array(self._at, np.float64)


def traits_of(records: Iterable[Record], seed: int) -> Traits:
    """The traits of records, in their order."""
    traits = Traits(seed)
    for record in records:
        traits.see(record)
    return traits


def _shared(one: str, other: str) -> str:
    """How both begin."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return "".join(char for char, _ in same)


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


# ---- placing ---------------------------------------------------------------------------------------------------------

LEFT_OUT = -1
TRAIN, VALIDATION, TEST = range(3)  # places in SPLITS


def place(
    traits: Traits, shares: Mapping[str, float], near: NDArray[np.int64] = NONE, rows: int | None = None
) -> NDArray[np.int8]:
    """The side int8 [n] of each row: its place in SPLITS, or LEFT_OUT.

    `shares` of validation and test; `near` int64 [P, 2]: pairs (earlier, later) of rows that are near twins.
    Raises DataError where rows that belong together are more than the split they fall to was to hold.
    """
    test, validation = shares.get("test", 0.0), shares.get("validation", 0.0)
    at, group, asked = traits.at[:rows], traits.group[:rows], traits.twin[:rows]
    sides = np.select([at < test, at < test + validation], [TEST, VALIDATION], TRAIN).astype(np.int8)
    _, first, kind = np.unique(asked, return_index=True, return_inverse=True)
    twin = first[kind]  # the first row that is asked the same
    leader = _join(sides, near[(group[near] == 0).all(axis=1)])
    joins = (group == 0) & (group[twin] == 0)
    sides[joins], leader[joins] = sides[twin[joins]], leader[twin[joins]]
    sides[~joins & (sides != sides[twin])] = LEFT_OUT
    alone = (group == 0) & (twin == np.arange(len(twin)))  # exact twins count once: taking them out is easy, and told
    _refuse_large(np.where(group == 0, leader.astype(np.uint64), group), group, sides, shares, alone | (group != 0))
    return sides


def _join(sides: NDArray[np.int8], near: NDArray[np.int64]) -> NDArray[np.int64]:
    """Put each row on the side of its earlier near twins, or on none; whom each row followed, int64 [n]."""
    leader = np.arange(len(sides))
    for row, earlier in _by_later(near):
        found = {int(sides[other]): other for other in reversed(earlier) if sides[other] != LEFT_OUT}
        if len(found) > 1:
            sides[row] = LEFT_OUT
        elif found:
            ((side, other),) = found.items()
            sides[row], leader[row] = side, leader[other]
    return leader


def _by_later(near: NDArray[np.int64]) -> Iterator[tuple[int, list[int]]]:
    """Each row that has earlier near twins, in order, with these."""
    if len(near):
        near = near[np.lexsort((near[:, 0], near[:, 1]))]
        for pairs in np.split(near, np.flatnonzero(np.diff(near[:, 1])) + 1):
            yield int(pairs[0, 1]), pairs[:, 0].tolist()


def _refuse_large(
    together: NDArray[np.uint64],
    group: NDArray[np.uint64],
    sides: NDArray[np.int8],
    shares: Mapping[str, float],
    counted: NDArray[np.bool_],
) -> None:
    """Raise DataError for rows that belong together and are more than the split they fell to was to hold."""
    for name, share in shares.items():
        rows = np.flatnonzero((sides == SPLITS.index(name)) & counted)
        _, first, counts = np.unique(together[rows], return_index=True, return_counts=True)
        if len(rows) and counts.max() > max(1, share * len(sides)):
            kept = "a group" if group[rows[first[counts.argmax()]]] else "near twins of each other"
            what = f"{counts.max()} rows are {kept}, and the split '{name}' was to hold {share * len(sides):.0f}"
            cure = "give a larger share or a file of its own"
            if kept != "a group":
                cure += ", or let near twins stand on both sides with data.allow: [near_duplicate]"
            raise DataError(what, where=f"data.{name}", cure=cure)


def split(
    records: Sequence[Record],
    given: Mapping[str, Sequence[Record]],
    shares: Mapping[str, float],
    seed: int,
    near: NDArray[np.int64] = NONE,
    traits: Traits | None = None,
) -> Splits:
    """Split `records` by hash for the `shares` of validation and test that are not `given` as files of their own.

    `traits`: those of the records with this seed, where they are known. Raises DataError where a split would be empty.
    """
    sides = place(traits_of(records, seed) if traits is None else traits, shares, near)
    made = {
        name: given[name] if name in given else [r for r, at in zip(records, sides, strict=True) if at == side]
        for side, name in enumerate(SPLITS)
    }
    refuse_empty(made)
    return Splits(**made, left_out=[r for r, at in zip(records, sides, strict=True) if at == LEFT_OUT])


def refuse_empty(made: Mapping[str, Sized]) -> None:
    """Raise DataError for a split without rows."""
    for name, rows in made.items():
        if not len(rows):
            cure = "give more rows (or groups), a larger share, or a file of its own"
            raise DataError(f"the split '{name}' has no rows", where=f"data.{name}", cure=cure)
