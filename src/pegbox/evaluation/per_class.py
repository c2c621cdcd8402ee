"""How a system does on each label, from the lines of `predictions.jsonl`: precision, recall, F1, and what it is taken for.

Values are those of scikit-learn's `classification_report` and `confusion_matrix`, of entities those of seqeval's report, 0
where a denominator is 0. The labels are those that occur, as answer of the system or as reference, sorted. A missing answer
(None) is a wrong one and no label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pegbox.metrics.base import FloatArray, divide
from pegbox.metrics.labels import class_counts, in_order, label_set
from pegbox.metrics.spans import span_counts

Lines = Sequence[Mapping[str, Any]]


def per_class(lines: Lines, system: str) -> dict[str, dict[str, float]]:
    """{label: {precision, recall, f1, support}} of single labels or label sets; support: the rows that have it."""
    answers, references = _given(lines, system)
    counts = class_counts(answers, references).sum(axis=0).reshape(-1, 3)
    return dict(zip(_labels(answers, references), map(_rates, counts), strict=True))


def per_entity(lines: Lines, system: str) -> dict[str, dict[str, float]]:
    """The same of entity spans, by the label of the span; support: how many there are."""
    answers, references = ([given or [] for given in side] for side in _given(lines, system))
    labels = sorted({span["label"] for spans in (*answers, *references) for span in spans})

    def of(label: str, side: Sequence[Any]) -> list[list[Any]]:
        return [[span for span in spans if span["label"] == label] for spans in side]

    return {label: _rates(span_counts(of(label, answers), of(label, references)).sum(axis=0)) for label in labels}


def _rates(counts: FloatArray) -> dict[str, float]:
    """What follows from how many were right, predicted, and true."""
    tp, predicted, true = counts
    return {
        "precision": float(divide(tp, predicted, empty=0.0)),
        "recall": float(divide(tp, true, empty=0.0)),
        "f1": float(divide(2 * tp, predicted + true, empty=0.0)),
        "support": float(true),
    }


def confusion(lines: Lines, system: str) -> tuple[list[str], NDArray[np.int64]]:
    """The labels, and int64 [C, C]: how many rows of each (down) were taken for each (across), of single labels."""
    answers, references = _given(lines, system)
    labels = _labels(answers, references)
    place = {label: index for index, label in enumerate(labels)}
    matrix = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for answer, reference in zip(answers, references, strict=True):
        if answer is not None:
            matrix[place[reference], place[answer]] += 1
    return labels, matrix


def _given(lines: Lines, system: str) -> tuple[list[Any], list[Any]]:
    assert any(system in line["answers"] for line in lines), f"{system} gave no answers"
    return [line["answers"].get(system) for line in lines], [line["reference"] for line in lines]


def _labels(answers: Sequence[Any], references: Sequence[Any]) -> list[str]:
    """In the order of the columns of `class_counts`."""
    given = [answer for answer in (*answers, *references) if answer is not None]
    return in_order(frozenset().union(*map(label_set, given)))
