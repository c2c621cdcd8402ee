"""Metrics of search: recall_at_1, recall_at_5, recall_at_10, mrr, ndcg. Each is a mean over rows, a row being a question.

An answer tells the ranks r (from 1) of the R right texts in the order that a system gave all texts of the test.

    recall_at_k = right texts with r <= k / R
    mrr         = 1 / least r                                                  reciprocal rank (Voorhees 1999)
    ndcg        = sum over r <= 10 of 1 / log2(1 + r)  /  the same for the ranks 1 .. R        (Jarvelin & Kekalainen 2002)

nDCG looks at the first ten, as BEIR and MTEB do (Thakur et al. 2021, arXiv 2104.08663). A missing answer scores 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from pegbox.metrics.base import FloatArray, Kind, Metric, mean, with_count

DEPTH = 10  # ranks that nDCG looks at
RANKS = "ranks"  # under which an answer has them


def _has_ranks(answer: Any, reference: Any) -> bool:
    return isinstance(answer, dict) and isinstance(answer.get(RANKS), list) and bool(answer[RANKS])


RANKINGS = Kind("ranks of right texts", _has_ranks)
Score = Callable[[FloatArray], float]


def _by_row(score: Score, answers: Sequence[Any], references: Sequence[Any]) -> FloatArray:
    """Statistics [n, 2] of the mean over rows of `score(ranks)`."""
    assert len(answers) == len(references), f"{len(answers)} answers to {len(references)} rows"
    ranks = (None if answer is None else np.array(answer[RANKS], dtype=np.float64) for answer in answers)
    return with_count([0.0 if found is None else score(found) for found in ranks])


def _recall(k: int, ranks: FloatArray) -> float:
    return float((ranks <= k).mean())


def _reciprocal(ranks: FloatArray) -> float:
    return float(1 / ranks.min())


def _gain(ranks: FloatArray) -> float:
    return float((1 / np.log2(1 + ranks[ranks <= DEPTH])).sum())


def _ndcg(ranks: FloatArray) -> float:
    return _gain(ranks) / _gain(np.arange(1.0, len(ranks) + 1))


def _metric(name: str, score: Score) -> Metric:
    return Metric(name, partial(_by_row, score), mean, greater_is_better=True, kind=RANKINGS)


RECALLS = tuple(_metric(f"recall_at_{k}", partial(_recall, k)) for k in (1, 5, 10))
MRR = _metric("mrr", _reciprocal)
NDCG = _metric("ndcg", _ndcg)
