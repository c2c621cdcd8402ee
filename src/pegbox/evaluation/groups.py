"""Every metric in each group of test rows, for tuned and its untouched counterpart, and what tuning did to the gap.

A group is what the lines' `group` names: whom a row is about (the sensitive feature), else which rows belong together. The
counterpart is the untouched model (`base`); where it cannot be asked, the next of COUNTERPARTS that there is. Which groups
have numbers, and what is resampled, is said in `grouping`.

    gap = primary metric in the best group - in the worst     (worst - best where lower is better; see `gaps`)

Where rows have labels there are fairlearn's differences besides, label by label (see `label_rates`).

The same lines give the same numbers, in whatever order they stand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pegbox.evaluation import gaps, label_rates
from pegbox.evaluation.bootstrap import RANKED_RESAMPLES, RESAMPLES
from pegbox.evaluation.grouping import MINIMUM_ROWS, Group, Lines, cells, fewest, groups_of
from pegbox.evaluation.verdict import BASE, FEW_SHOT, TRIVIAL, TUNED, Comparison, Interval, compare, to_json
from pegbox.metrics import FloatArray, Metric, line_statistics, lookup

COUNTERPARTS = (BASE, FEW_SHOT, "linear_probe", TRIVIAL)
FEWER_RESAMPLES = 2_000  # where groups or rows, times labels, are more than these: seconds instead of a minute
MANY_GROUPS, MANY_ROWS = 100, 30_000


def by_group(lines: Lines, *, task: str, primary: str, metrics: Sequence[str], seed: int) -> dict[str, Any]:
    """The entry `groups` of `evaluation.json`, from lines of `predictions.jsonl` of which some name a group.

    `primary`: the metric of the gap and of the worst group; `metrics`: the others that are computed. What is not finite is
    None. Raises RecipeError where a metric is unknown or does not fit the task.
    """
    named = sorted((line for line in lines if line["group"] is not None), key=_content)
    metric = lookup(primary)
    statistics = line_statistics(metric, named, [TUNED, *COUNTERPARTS])
    counterpart = next(name for name in COUNTERPARTS if name in statistics)
    systems = (TUNED, counterpart)
    groups, resampled = groups_of(named, seed)
    labels = label_rates.label_counts(named) if task in label_rates.WITH_LABELS else {}
    resamples = _resamples(len(named), len(groups), min(len(labels), label_rates.MOST_LABELS))

    values, draws = cells(metric, {name: statistics[name] for name in systems}, groups, resamples)
    leads = {
        group.name: compare(metric, TUNED, counterpart, cell, drawn, group.units)[0]
        for group, cell, drawn in zip(groups, values, draws, strict=True)
    }
    known = {metric.name: values} | _others(named, systems, groups, metrics, primary, resamples)
    several = len(groups) > 1
    return {
        "counterpart": counterpart,
        "primary": metric.name,
        "rows": len(named),
        "resampled": resampled,
        "resamples": resamples,
        "minimum_rows": MINIMUM_ROWS,
        "groups": _table(named, _numbers(known, systems, groups), leads),
        "gap": _gap(metric, counterpart, groups, values, draws, leads) if several else None,
        "fairness": label_rates.fairness(named, systems, groups, labels, resamples) if labels and several else None,
    }


def _content(line: Mapping[str, Any]) -> str:
    """By what lines are brought into an order of their own."""
    return json.dumps(line, sort_keys=True)


def _resamples(rows: int, groups: int, labels: int) -> int:
    each = max(1, labels)
    return FEWER_RESAMPLES if groups * each > MANY_GROUPS or rows * each > MANY_ROWS else RESAMPLES


def _others(
    named: Lines, systems: Sequence[str], groups: Sequence[Group], metrics: Sequence[str], primary: str, resamples: int
) -> dict[str, list[dict[str, Interval]]]:
    """By the name of each other metric, and by group and system: its value and interval."""
    found = {}
    for metric in [lookup(reference) for reference in dict.fromkeys(metrics) if reference != primary]:
        drawn = resamples if metric.additive else min(resamples, RANKED_RESAMPLES)
        if statistics := line_statistics(metric, named, systems):
            found[metric.name] = cells(metric, statistics, groups, drawn)[0]
    return found


def _numbers(
    known: Mapping[str, Sequence[Mapping[str, Interval]]], systems: Sequence[str], groups: Sequence[Group]
) -> dict[str, dict[str, dict[str, Any]]]:
    """By group, system and metric as JSON. A system that gave nothing of what a metric reads lacks it."""
    return {
        group.name: {
            system: {name: to_json(found[place][system]) for name, found in known.items() if system in found[place]}
            for system in systems
        }
        for place, group in enumerate(groups)
    }


def _table(named: Lines, numbers: Mapping[str, Any], leads: Mapping[str, Comparison]) -> list[dict[str, Any]]:
    """Every group, the largest first; `lead`: how far tuned is ahead of its counterpart by the primary metric."""
    units: dict[str, list[int]] = {}
    for line in named:
        units.setdefault(line["group"], []).append(line["unit"])
    return [
        {
            "group": name,
            "rows": len(units[name]),
            "units": len(set(units[name])),
            "systems": numbers.get(name),
            "lead": {key: to_json(leads[name])[key] for key in ("difference", "low", "high")}
            if name in leads
            else None,
        }
        for name in sorted(units, key=lambda name: (-len(units[name]), name))
    ]


def _gap(
    metric: Metric,
    counterpart: str,
    groups: Sequence[Group],
    cells: Sequence[Mapping[str, Interval]],
    draws: Sequence[Mapping[str, FloatArray]],
    leads: Mapping[str, Comparison],
) -> dict[str, Any]:
    """The gap of the primary metric before and after, between which groups, and in a sentence what became of it.

    `levelled_down`: the gap is smaller, and the group that was best before is worse than it was.
    """
    systems = {"tuned": TUNED, "counterpart": counterpart}
    values = np.array([[[cell[name].value] for cell in cells] for name in systems.values()])
    resampled = np.array([[drawn[name] for drawn in draws] for name in systems.values()])
    found = gaps.compare(gaps.only_rate, values, resampled.swapaxes(1, 2)[..., None], fewest(groups))
    for place, name in enumerate(systems):
        order = _ranked(metric, groups, values[place, :, 0])
        found[name] |= {"best": order[0] if order else None, "worst": order[-1] if order else None}
    change = found["change"]["value"]
    found["levelled_down"] = change is not None and change < 0 and leads[found["counterpart"]["best"]].difference < 0
    return found | {"reason": _reason(metric.name, counterpart, found)}


def _ranked(metric: Metric, groups: Sequence[Group], values: FloatArray) -> list[str]:
    """The groups from the best to the worst, equals by their name; without those that have no value."""
    sign = -1.0 if metric.greater_is_better else 1.0
    known = [(sign * float(value), group.name) for group, value in zip(groups, values, strict=True)]
    return [name for value, name in sorted(found for found in known if not math.isnan(found[0]))]


def _reason(metric: str, counterpart: str, found: Mapping[str, Any]) -> str:
    """What became of the gap, by the names of the files; the report has its own words."""
    change = found["change"]
    if change["value"] is None:
        return f"The gap in {metric} between the groups is not finite."
    low, high = ("not finite" if change[end] is None else f"{change[end]:.3g}" for end in ("low", "high"))
    size = f"{change['value']:.3g}, 95 % interval {low} to {high}"
    told = (
        f"The gap in {metric} between the best and the worst group is {found['tuned']['value']:.3g} for tuned, "
        f"{found['counterpart']['value']:.3g} for {counterpart}"
    )
    if found["verdict"] == "not shown":
        return f"{told}; that tuning changed it is not shown ({size})."
    return f"{told}: tuning {found['verdict']} it ({size})."
