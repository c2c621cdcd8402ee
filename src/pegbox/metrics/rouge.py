"""ROUGE: rouge1, rouge2, rougeL (Lin 2004), by the package `rouge_score`, which follows the original's counts.

    rouge1, rouge2 = F1 of words, of pairs of neighbouring words
    rougeL         = F1 of the longest common subsequence of words, the text taken as one sentence

Means over rows, from 0 to 1. The package knows the letters a to z and digits alone, in lower case: all else parts words,
so texts in other scripts score 0, whatever they say. Nothing is stemmed. A missing answer (None) scores 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

from pegbox.metrics.base import TEXTS, FloatArray, Metric, mean, with_count


def _statistics(name: str, answers: Sequence[Any], references: Sequence[Any]) -> FloatArray:
    """[n, 2]: the row's F1, and 1."""
    from rouge_score.rouge_scorer import RougeScorer  # imported late: it brings NLTK along

    scorer = RougeScorer([name], use_stemmer=False)
    pairs = zip(answers, references, strict=True)
    return with_count([0.0 if one is None else scorer.score(right, one)[name].fmeasure for one, right in pairs])


def _metric(name: str) -> Metric:
    signature = f"stem:no|version:{version('rouge-score')}"
    return Metric(name, partial(_statistics, name), mean, greater_is_better=True, kind=TEXTS, signature=signature)


ROUGE1, ROUGE2, ROUGE_L = map(_metric, ("rouge1", "rouge2", "rougeL"))
