"""Metrics of entity spans: precision, recall, f1; and the spans that tags mean.

An answer is a list of spans `{"label", "start", "end", "first_word", "last_word"}`, both words included. A span is right
where label, first and last word are those of a reference: whole spans count, never words or tokens. Over all rows together
(micro average):

    precision = right / predicted        recall = right / true        f1 = 2 right / (predicted + true)

0 where a denominator is 0. Values are seqeval's in its default mode, which is that of conlleval. A missing answer (None) is
worth one wrong span: with none at all it would raise the precision, and go unnoticed in a row without entities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pegbox.metrics.base import FloatArray, Kind, Metric, divide

_RIGHT, _PREDICTED, _TRUE = 0, 1, 2
Span = tuple[str, int, int]  # label, first word, last word


def _is_spans(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(span, Mapping) and "first_word" in span for span in value)


SPANS = Kind("entity spans", lambda answer, reference: _is_spans(answer) and _is_spans(reference))


def _placed(spans: Sequence[Mapping[str, Any]]) -> frozenset[Span]:
    return frozenset((span["label"], span["first_word"], span["last_word"]) for span in spans)


def span_counts(answers: Sequence[Any], references: Sequence[Any]) -> FloatArray:
    """Statistics [n, 3]: spans that are right, that were predicted, that are true."""
    counts = np.zeros((len(references), 3))
    for row, (answer, reference) in enumerate(zip(answers, references, strict=True)):
        true, predicted = _placed(reference), _placed(answer or ())
        counts[row] = len(true & predicted), 1 if answer is None else len(predicted), len(true)
    return counts


def _f1(sums: FloatArray) -> FloatArray:
    return divide(2 * sums[..., _RIGHT], sums[..., _PREDICTED] + sums[..., _TRUE], empty=0.0)


def _precision(sums: FloatArray) -> FloatArray:
    return divide(sums[..., _RIGHT], sums[..., _PREDICTED], empty=0.0)


def _recall(sums: FloatArray) -> FloatArray:
    return divide(sums[..., _RIGHT], sums[..., _TRUE], empty=0.0)


F1 = Metric("f1", span_counts, _f1, greater_is_better=True, kind=SPANS)
PRECISION = Metric("precision", span_counts, _precision, greater_is_better=True, kind=SPANS)
RECALL = Metric("recall", span_counts, _recall, greater_is_better=True, kind=SPANS)


# ---- tags ------------------------------------------------------------------------------------------------------------


def spans_of_tags(tags: Sequence[str]) -> list[Span]:
    """The spans that one row's tags mean, in order: BIO, BIOES and IOB1 alike.

    A tag is a prefix (its first character) and a type (what follows the first "-" behind it, or all that follows the
    prefix, or "_"). Tags need not be consistent: a span also begins at an I or E that follows nothing it could continue,
    and ends where the type changes. All this, also for prefixes that are none, is as seqeval's `get_entities` has it.
    """
    spans: list[Span] = []
    before, first = ("O", ""), 0
    for word, tag in enumerate((*tags, "O")):
        now = _split(tag)
        if _ends(before, now):
            spans.append((before[1], first, word - 1))
        if _begins(before, now):
            first = word
        before = now
    return spans


def _split(tag: str) -> tuple[str, str]:
    """A tag as its prefix and its type."""
    rest, dash, after = tag[1:].partition("-")
    return tag[:1], (after if dash else rest) or "_"


def _ends(before: tuple[str, str], now: tuple[str, str]) -> bool:
    """Whether a span ends between two tags."""
    if before[0] in ("E", "S") or (before[0] in ("B", "I") and now[0] in ("B", "S", "O")):
        return True
    return before[0] not in ("O", ".") and before[1] != now[1]


def _begins(before: tuple[str, str], now: tuple[str, str]) -> bool:
    """Whether a span begins between two tags."""
    if now[0] in ("B", "S") or (now[0] in ("I", "E") and before[0] in ("E", "S", "O")):
        return True
    return now[0] not in ("O", ".") and before[1] != now[1]
