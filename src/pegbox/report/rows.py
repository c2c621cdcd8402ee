"""Which test rows the report shows: where tuned and a rival differ, in both directions, drawn and not picked.

Rows fall into three kinds by their scores alone: tuned better, tuned worse, no difference. Each kind is shuffled with the
run's seed; five of the first, five of the second, then of the third are shown, and what room is left goes to the first two.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pegbox.evaluation.bootstrap import paired_difference
from pegbox.evaluation.verdict import TUNED
from pegbox.metrics import FloatArray, lookup, paired_statistics

MOST, OF_A_KIND = 12, 5
KINDS = ("tuned better", "tuned worse", "no difference")


@dataclass(frozen=True)
class Choice:
    """The lines of `predictions.jsonl` to show, each with its kind and the score of every system.

    `metric` names what the scores are of; `counts` and `shown` are rows by kind. `all_or_nothing`: no score lies between
    right (1) and wrong (0).
    """

    metric: str
    rows: Sequence[tuple[Mapping[str, Any], str, Mapping[str, float]]]
    counts: Mapping[str, int]
    shown: Mapping[str, int]
    all_or_nothing: bool


def choose(lines: Sequence[Mapping[str, Any]], metric: str, rival: str, seed: int) -> Choice:
    """A dozen rows, tuned being compared with `rival` by `metric`; the same seed draws the same ones."""
    scores = row_scores(lines, metric)
    lead = paired_difference(scores[TUNED], scores[rival])
    direction = np.sign(lead) * (1 if lookup(metric).greater_is_better else -1)
    members = {kind: np.flatnonzero(direction == sign).tolist() for kind, sign in zip(KINDS, (1, -1, 0), strict=True)}
    for indices in members.values():
        random.Random(seed).shuffle(indices)
    better, worse, level = members.values()
    order = [*better[:OF_A_KIND], *worse[:OF_A_KIND], *level, *better[OF_A_KIND:], *worse[OF_A_KIND:]][:MOST]
    kind_of = {index: kind for kind, indices in members.items() for index in indices}
    ordered = sorted(order, key=lambda index: KINDS.index(kind_of[index]))
    return Choice(
        metric=metric,
        rows=[(lines[i], kind_of[i], {name: float(row[i]) for name, row in scores.items()}) for i in ordered],
        counts={kind: len(indices) for kind, indices in members.items()},
        shown={kind: sum(kind_of[index] == kind for index in order) for kind in KINDS},
        all_or_nothing=bool(np.isin(np.stack(list(scores.values())), (0.0, 1.0)).all()),
    )


def row_metric(evaluation: Mapping[str, Any]) -> str:
    """The metric that can score one row: of a label, whether it is right; else the primary."""
    return "accuracy" if evaluation["task"] == "classification" else str(evaluation["primary"])


def row_scores(lines: Sequence[Mapping[str, Any]], metric: str) -> dict[str, FloatArray]:
    """The score [n] of each row by itself, per system."""
    answers = {name: [line["answers"][name] for line in lines] for name in lines[0]["answers"]}
    statistics = paired_statistics(lookup(metric), answers, [line["reference"] for line in lines])
    return {name: lookup(metric).value(rows) for name, rows in statistics.items()}
