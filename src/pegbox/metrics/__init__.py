"""Metrics: pure functions from answers and references to numbers. No torch here.

To add one: a `Metric` (statistics per row, value of their sum) in a file of this folder, and a row in `METRICS`. A user's
own is named by its file (see `own`).
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pegbox.errors import RecipeError
from pegbox.metrics import code, corpus, labels, numbers, probabilities, retrieval, rouge, spans, text
from pegbox.metrics.base import FloatArray, Metric, line_statistics, paired_statistics
from pegbox.metrics.own import own_metric
from pegbox.metrics.spans import spans_of_tags
from pegbox.recipe.own import is_own, split

_TABLE = (
    labels.ACCURACY,
    labels.BALANCED_ACCURACY,
    labels.F1_MACRO,
    labels.F1_WEIGHTED,
    labels.MATTHEWS_CORRELATION,
    probabilities.AUROC,
    probabilities.CALIBRATION_ERROR,
    numbers.MSE,
    numbers.RMSE,
    numbers.MAE,
    numbers.R2,
    numbers.PEARSON,
    numbers.SPEARMAN,
    spans.F1,
    spans.PRECISION,
    spans.RECALL,
    text.EXACT_MATCH,
    text.TOKEN_F1,
    text.EDIT_SIMILARITY,
    code.SYNTAX_VALIDITY,
    *retrieval.RECALLS,
    retrieval.MRR,
    retrieval.NDCG,
    corpus.BLEU_METRIC,
    corpus.CHRF_METRIC,
    corpus.TER_METRIC,
    rouge.ROUGE1,
    rouge.ROUGE2,
    rouge.ROUGE_L,
    corpus.LENGTH_RATIO,
    corpus.PERPLEXITY,
)

METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _TABLE})


def lookup(name: str, *, where: str | None = None) -> Metric:
    """The metric of that name, or the user's own where it is `PATH.py:NAME`; `where`: the recipe key it was read from.

    Raises RecipeError, for an unknown name with the nearest one.
    """
    if name in METRICS:
        return METRICS[name]
    if is_own(name):
        metric = own_metric(name, where or "metric")
        if metric.name in METRICS:
            what = f"{metric.name} is a metric of pegbox's, too"
            raise RecipeError(f"{name}: {what}", where=where, cure="give the function another name")
        return metric
    near = difflib.get_close_matches(name, METRICS, n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    known = f"The metrics are {', '.join(sorted(METRICS))}, and your own as ./my_metric.py:name."
    raise RecipeError(f"there is no metric {name!r}", where=where, cure=meant + known)


def own_metrics(names: Sequence[str]) -> dict[str, str]:
    """Of a recipe's metrics the user's own: by the name that stands in results, where each is to be found.

    Raises RecipeError where two of them have one name.
    """
    found: dict[str, str] = {}
    for reference in dict.fromkeys(filter(is_own, names)):
        path, function = split(reference)
        name, place = lookup(reference).name, f"{os.path.abspath(path)}:{function}"
        if found.setdefault(name, place) != place:
            what = f"{found[name]} and {place} are both called {name}"
            raise RecipeError(what, where="evaluate.metrics", cure="give one of the functions another name")
    return found


def reference_of(results: Mapping[str, Any], name: str) -> str:
    """What `lookup` takes for a metric that `evaluation.json` or a comparison names: these say where the user's own are."""
    return str(results.get("own_metrics", {}).get(name, name))


__all__ = [
    "METRICS",
    "FloatArray",
    "Metric",
    "line_statistics",
    "lookup",
    "own_metrics",
    "paired_statistics",
    "reference_of",
    "spans_of_tags",
]
