"""Test rows by themselves: what tuned gained or lost on each against a rival, and the twenty on which it changed most.

A row's score is the metric of that row alone. Rows fall into three kinds by it: tuned better, tuned worse, equal. The most
changed are those with the greatest difference of scores, ten gains and ten losses as far as there are; where there are
fewer of one kind, more of the other. Between equal differences the run's seed draws, so nothing is picked by hand.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any

import numpy as np

from pegbox.evaluation.bootstrap import paired_difference
from pegbox.evaluation.verdict import TUNED
from pegbox.metrics import FloatArray, line_statistics, lookup, reference_of
from pegbox.metrics.retrieval import RANKINGS
from pegbox.metrics.spans import SPANS
from pegbox.tasks import TASKS

MOST = 20
KINDS = BETTER, WORSE, EQUAL = ("tuned better", "tuned worse", "equal")


@dataclass(frozen=True)
class Compared:
    """The scores [n] of every system by `metric`, and tuned's lead [n] over the rival, positive where tuned is better.

    `errors`: a lower score is better.
    """

    metric: str
    scores: Mapping[str, FloatArray]
    lead: FloatArray
    errors: bool = False

    @cached_property
    def kinds(self) -> list[str]:
        """The kind of every row."""
        return [BETTER if lead > 0 else WORSE if lead < 0 else EQUAL for lead in self.lead]

    @cached_property
    def counts(self) -> dict[str, int]:
        """Rows by kind."""
        return {kind: self.kinds.count(kind) for kind in KINDS}

    @cached_property
    def all_or_nothing(self) -> bool:
        """No score lies between right (1) and wrong (0)."""
        return not self.errors and bool(np.isin(np.stack(list(self.scores.values())), (0.0, 1.0)).all())


def compare(lines: Sequence[Mapping[str, Any]], metric: str, rival: str) -> Compared:
    """The rows of `predictions.jsonl`, tuned against `rival` by `metric`, as `metrics.lookup` takes it."""
    scores, chosen = row_scores(lines, metric), lookup(metric)
    sign = 1 if chosen.greater_is_better else -1
    lead = sign * paired_difference(scores[TUNED], scores[rival])
    return Compared(chosen.name, scores, lead, errors=not chosen.greater_is_better)


def most_changed(compared: Compared, seed: int) -> list[int]:
    """The rows on which tuned and the rival differ most, gains first; the same seed draws the same ones."""
    order = list(range(len(compared.lead)))
    random.Random(seed).shuffle(order)
    order.sort(key=lambda row: -abs(compared.lead[row]))  # stable: the shuffle decides between equals
    gains = [row for row in order if compared.lead[row] > 0]
    losses = [row for row in order if compared.lead[row] < 0]
    half = MOST // 2
    gained = gains[: max(half, MOST - len(losses))]
    return gained + losses[: MOST - len(gained)]


def row_metric(evaluation: Mapping[str, Any]) -> str:
    """The metric that can score one row: the task's own (of a label, whether it is right), else the primary.

    A correlation is of many rows; of one there is the error.
    """
    own = TASKS[evaluation["task"]].row_metric or str(evaluation["primary"])
    return own if lookup(reference_of(evaluation, own)).additive else "mae"


def right_or_wrong(lines: Sequence[Mapping[str, Any]], evaluation: Mapping[str, Any]) -> list[bool] | None:
    """Whether tuned's answer to each row is the right one; None where answers are numbers, or the text is the target."""
    task, answers, right = TASKS[evaluation["task"]], [line["answers"][TUNED] for line in lines], lines[0]["reference"]
    if evaluation["primary"] == "perplexity" or task.loss_unit == "value" or isinstance(right, float):
        return None
    if RANKINGS.fits(answers[0], right):
        return [answer["ranks"][0] == 1 for answer in answers]
    if task.row_metric:
        return [answer == line["reference"] for answer, line in zip(answers, lines, strict=True)]
    return [bool(score) for score in row_scores(lines, "exact_match")[TUNED]]


def row_scores(lines: Sequence[Mapping[str, Any]], metric: str) -> dict[str, FloatArray]:
    """The score [n] of each row by itself, per system.

    Where there was no entity to find and none was found, the metrics of entities are 0 by definition; such an answer is
    right, and a single row is scored 1.
    """
    chosen = lookup(metric)
    scores = {name: chosen.by_row(rows) for name, rows in line_statistics(chosen, lines).items()}
    if chosen.kind is SPANS:
        for name, found in scores.items():
            found[[line["reference"] == line["answers"][name] == [] for line in lines]] = 1.0
    return scores


def short_ids(ids: Sequence[str]) -> dict[str, str]:
    """`file:line` without the file's folder, where that leaves no two files with the same name."""
    files = dict.fromkeys(given.rpartition(":")[0] for given in ids)
    names = {file: PurePath(file).name for file in files}
    if len(set(names.values())) < len(names):
        return {given: given for given in ids}
    return {given: f"{names[file]}:{line}" for given in ids for file, _, line in [given.rpartition(":")]}
