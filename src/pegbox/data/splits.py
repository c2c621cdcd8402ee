"""Which row goes to train, validation and test: three ways, seeded, by hash.

The side of a row depends on the seed and on its own key alone, so a row keeps its side when others are appended. The
key is the row's group where it has one, else its normalised input: exact twins stay together. A row that has twins in
groups on different sides is left out and listed, for either side would leak.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pegbox.data.records import (
    Content,
    Conversation,
    LabelledText,
    LabelSetText,
    PlainText,
    PromptCompletion,
    Record,
    ScoredText,
    TaggedWords,
)
from pegbox.errors import DataError

SPLITS = ("train", "validation", "test")
BETWEEN = "\0"  # parts of an input; white space would not tell ("a b", none) from ("a", "b")


@dataclass(frozen=True)
class Splits:
    """The records of each split, and those that were left out because their twins stand on another side."""

    train: tuple[Record, ...]
    validation: tuple[Record, ...]
    test: tuple[Record, ...]
    left_out: tuple[Record, ...] = ()


def parts(content: Content) -> tuple[str, str]:
    """What the model is asked, as one text, and the right answer; two records that are asked the same are twins."""
    match content:
        case Conversation(messages):
            last = max((i for i, message in enumerate(messages) if message.weight > 0), default=len(messages))
            asked = BETWEEN.join(f"{message.role}: {message.content}" for message in messages[:last])
            return asked, "".join(message.content for message in messages[last : last + 1])
        case PromptCompletion(prompt, completion):
            return prompt, completion
        case PlainText(text):
            return text, ""
        case LabelledText(text, answer, pair) | LabelSetText(text, answer, pair) | ScoredText(text, answer, pair):
            return (text if pair is None else f"{text}{BETWEEN}{pair}"), str(answer)
        case TaggedWords(tokens, tags):
            return " ".join(tokens), " ".join(tags)


def twin_key(content: Content) -> str:
    """A hash of the input without differences of case, white space and Unicode form."""
    text = " ".join(unicodedata.normalize("NFKC", parts(content)[0]).casefold().split())
    return hashlib.sha256(text.encode()).hexdigest()


def _position(seed: int, key: str) -> float:
    """A number in [0, 1) that the seed and the key fix."""
    digest = hashlib.sha256(f"{seed}\0{key}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def split(
    records: Sequence[Record],
    given: Mapping[str, Sequence[Record]],
    shares: Mapping[str, float],
    seed: int,
) -> Splits:
    """Split `records` by hash for the `shares` of validation and test that are not `given` as files of their own.

    Raises DataError where a split would be empty.
    """
    sides: dict[str, list[Record]] = {name: list(given.get(name, ())) for name in SPLITS}
    test, validation = shares.get("test", 0.0), shares.get("validation", 0.0)
    twins: dict[str, str] = {}
    left_out = []
    for record in records:
        twin = twin_key(record.content)
        at = _position(seed, twin if record.group is None else f"group {record.group}")
        side = "test" if at < test else "validation" if at < test + validation else "train"
        if twins.setdefault(twin, side) == side:
            sides[side].append(record)
        else:
            left_out.append(record)
    for name, rows in sides.items():
        if not rows:
            cure = "give more rows (or groups), a larger share, or a file of its own"
            raise DataError(f"the split '{name}' has no rows", where=f"data.{name}", cure=cure)
    return Splits(**{name: tuple(rows) for name, rows in sides.items()}, left_out=tuple(left_out))
