"""What the report shows of each kind of task: a row a kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pegbox.report import differences, entities, labels, numbers
from pegbox.report.sections import Given, Section

Pieces = Sequence[tuple[str, ...]]  # (kind, text), or (kind, text, what is said of it)


@dataclass(frozen=True)
class Marks:
    """How a row shows where tuned's answer and the right one differ.

    `signs`: what stands before it; `of(text, right, answer)`: the pieces, None where there is nothing to show;
    `always`: also where the answer is right.
    """

    signs: Pieces
    of: Callable[[str, Any, Any], Pieces | None]
    always: bool = False


def _words(text: str, right: Any, answer: Any) -> Pieces | None:
    """Word by word, of answers that are texts."""
    return differences.difference(right, answer) if isinstance(answer, str) else None


def _entities(text: str, right: Any, answer: Any) -> Pieces | None:
    """The text with its entities."""
    return entities.marked(text, right, answer or ()) if right or answer else None


WORDS = Marks(
    (("same", "its difference: "), (differences.MISSING, "missing"), ("same", ", "), (differences.ADDED, "added")),
    _words,
)
ENTITIES = Marks((("same", "its entities in the text"),), _entities, always=True)


@dataclass(frozen=True)
class Kind:
    """`section`: the task's own section of the page; `marks`: of a row; `one_label`: an answer is a single label, so that
    gains can be told by the right label, and mistakes by the one that was said instead.
    """

    section: Callable[[Given], Section] | None = None
    marks: Marks | None = None
    one_label: bool = False


KINDS: Mapping[str, Kind] = {
    "chat": Kind(marks=WORDS),
    "completion": Kind(marks=WORDS),
    "classification": Kind(labels.classification, one_label=True),
    "multilabel": Kind(labels.multilabel),
    "regression": Kind(numbers.regression),
    "token_classification": Kind(labels.entities, ENTITIES),
    "masked_lm": Kind(),
    "seq2seq": Kind(marks=WORDS),
    "embedding": Kind(),
}
