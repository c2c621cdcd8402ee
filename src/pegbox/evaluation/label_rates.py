"""How often each label is given in each group, rightly and wrongly, and how far the groups lie apart in that.

Of one label against the rest, in the rows of one group:

    selection rate       = rows that were given the label / rows
    true positive rate   = rows that were given it and have it / rows that have it
    false positive rate  = rows that were given it and do not have it / rows that do not have it

    demographic parity difference = largest - smallest selection rate over the groups
    equalized odds difference     = the larger of the same difference in true and in false positive rates

These are fairlearn's (`fairlearn.metrics`, method "between_groups", agg "worst_case"), and as there a rate over no rows is
0. Where some group has no row with the label, the difference is thereby as large as another group's rate, whatever the
system does: such groups are named, and the label is not called the worst in equalized odds.

A missing answer gives no label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pegbox.evaluation import gaps
from pegbox.evaluation.bootstrap import draw_weights
from pegbox.evaluation.grouping import Group, Lines, fewest
from pegbox.metrics import FloatArray
from pegbox.metrics.base import divide
from pegbox.metrics.labels import in_order, label_set

WITH_LABELS = ("classification", "multilabel")
RATES = ("selection_rate", "true_positive_rate", "false_positive_rate")
MOST_LABELS = 20  # that have numbers: the most frequent
RESAMPLES_AT_ONCE = 500


def fairness(
    lines: Lines, systems: Sequence[str], groups: Sequence[Group], labels: Mapping[Any, int], resamples: int
) -> dict[str, Any]:
    """The rates and differences of each of the labels that are shown, and for each measure the label with tuned's largest.

    `systems`: tuned and its counterpart; `labels`: all, from `label_counts`.
    """
    shown = list(labels)[:MOST_LABELS]
    statistics = rate_statistics(lines, systems, shown)
    values, draws = _rates(statistics, groups, resamples)
    found = [
        {
            "label": label,
            "rows": labels[label],
            "rates": _told(values[:, :, place], systems, groups),
            **{
                name: gaps.compare(measure, values[:, :, place], draws[:, :, :, place], fewest(groups), most=1.0)
                for name, measure in MEASURES.items()
            },
            **_empty(statistics[:, 0, place], groups),
        }
        for place, label in enumerate(shown)
    ]
    return {
        "labels": found,
        "left_out": len(labels) - len(shown),
        "worst": {name: _worst(found, name) for name in MEASURES},
    }


def label_counts(lines: Lines) -> dict[Any, int]:
    """How many rows have each label, the most frequent first; of equals the first in the alphabet."""
    counts = Counter(label for line in lines for label in label_set(line["reference"]))
    return {label: counts[label] for label in sorted(in_order(counts), key=lambda label: -counts[label])}


def rate_statistics(lines: Lines, systems: Sequence[str], labels: Sequence[Any]) -> FloatArray:
    """Numerators and denominators of the rates by row: float64 [n, S systems, L labels, 3 rates, 2]."""
    has = _indicators([line["reference"] for line in lines], labels)
    found = np.empty((len(lines), len(systems), len(labels), len(RATES), 2))
    for place, system in enumerate(systems):
        given = _indicators([line["answers"][system] for line in lines], labels)
        found[:, place, :, 0] = np.stack([given, np.ones_like(given)], axis=-1)
        found[:, place, :, 1] = np.stack([given * has, has], axis=-1)
        found[:, place, :, 2] = np.stack([given * (1 - has), 1 - has], axis=-1)
    return found


def _indicators(answers: Sequence[Any], labels: Sequence[Any]) -> FloatArray:
    """1 where a row has the label, else 0: [n, L]."""
    sets = [frozenset() if answer is None else label_set(answer) for answer in answers]
    return np.array([[label in given for label in labels] for given in sets], dtype=np.float64)


def rates(sums: FloatArray) -> FloatArray:
    """Summed numerators and denominators [..., 2] -> rates [...]."""
    return divide(sums[..., 0], sums[..., 1], empty=0.0)


def demographic_parity_difference(found: FloatArray) -> FloatArray:
    """From rates [..., G groups, 3] to the difference [...]."""
    return gaps.spread(found[..., :1])[..., 0]


def equalized_odds_difference(found: FloatArray) -> FloatArray:
    """From rates [..., G groups, 3] to the difference [...]."""
    larger: FloatArray = gaps.spread(found[..., 1:]).max(axis=-1)
    return larger


MEASURES = {
    "demographic_parity_difference": demographic_parity_difference,
    "equalized_odds_difference": equalized_odds_difference,
}


def _rates(statistics: FloatArray, groups: Sequence[Group], resamples: int) -> tuple[FloatArray, FloatArray]:
    """Rates [S, G, L, 3], and resampled ones [S, B, G, L, 3]."""
    shape = statistics.shape[1:-1]
    values = np.empty((len(groups), *shape))
    draws = np.empty((len(groups), resamples, *shape))
    for place, group in enumerate(groups):
        rows = statistics[group.rows]
        values[place] = rates(rows.sum(axis=0))
        sums, rng = group.drawn.sums(rows.reshape(len(rows), -1)), np.random.default_rng(group.seed)
        for start in range(0, resamples, RESAMPLES_AT_ONCE):
            weights = draw_weights(rng, min(RESAMPLES_AT_ONCE, resamples - start), group.drawn.count)
            draws[place, start : start + len(weights)] = rates((weights @ sums).reshape(len(weights), *shape, 2))
    return values.swapaxes(0, 1), draws.transpose(2, 1, 0, 3, 4)


def _told(values: FloatArray, systems: Sequence[str], groups: Sequence[Group]) -> dict[str, Any]:
    """Of each group and system the three rates, from [S, G, 3]."""
    return {
        group.name: {system: dict(zip(RATES, values[s, g].tolist(), strict=True)) for s, system in enumerate(systems)}
        for g, group in enumerate(groups)
    }


def _empty(statistics: FloatArray, groups: Sequence[Group]) -> dict[str, list[str]]:
    """The groups of which no row has the label, and those of which every row has it; from one system's [n, 3, 2]."""
    rows = {group.name: statistics[group.rows, :, 1].sum(axis=0) for group in groups}
    denominators = {"without_positives": 1, "without_negatives": 2}
    return {kind: [name for name, found in rows.items() if not found[rate]] for kind, rate in denominators.items()}


def _worst(found: Sequence[Mapping[str, Any]], measure: str) -> Any:
    """The label with tuned's largest difference, of equals the more frequent; None where none can be called so."""
    known = [
        one
        for one in found
        if measure == "demographic_parity_difference" or not (one["without_positives"] or one["without_negatives"])
    ]
    return max(known, key=lambda one: one[measure]["tuned"]["value"])["label"] if known else None
