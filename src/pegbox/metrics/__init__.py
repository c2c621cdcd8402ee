"""Metrics: pure functions from answers and references to numbers. No torch here.

To add one: a `Metric` (statistics per row, value of their sum) in a file of this folder, and a row in `METRICS`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from pegbox.errors import RecipeError
from pegbox.metrics import corpus, labels, text
from pegbox.metrics.base import FloatArray, Metric, paired_statistics

_TABLE = (
    labels.ACCURACY,
    labels.BALANCED_ACCURACY,
    labels.F1_MACRO,
    labels.F1_WEIGHTED,
    labels.MATTHEWS_CORRELATION,
    text.EXACT_MATCH,
    text.TOKEN_F1,
    text.EDIT_SIMILARITY,
    corpus.BLEU_METRIC,
    corpus.CHRF_METRIC,
    corpus.PERPLEXITY,
)

METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _TABLE})


def lookup(name: str, *, where: str | None = None) -> Metric:
    """The metric of that name; `where` is the recipe key it was read from. Raises RecipeError, with the nearest name."""
    if name in METRICS:
        return METRICS[name]
    near = difflib.get_close_matches(name, METRICS, n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    raise RecipeError(
        f"there is no metric {name!r}", where=where, cure=f"{meant}The metrics are {', '.join(sorted(METRICS))}."
    )


__all__ = ["METRICS", "FloatArray", "Metric", "lookup", "paired_statistics"]
