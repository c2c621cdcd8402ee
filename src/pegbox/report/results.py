"""The numbers of the evaluation as the page's tables say them: systems by metrics, comparisons, and the notes to them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from pegbox.evaluation.verdict import FEW_SHOT, TUNED
from pegbox.recipe import Recipe
from pegbox.report import wording
from pegbox.report.task_words import note_of

ABREAST = 4  # metrics of a table, at most


def systems(evaluation: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The table: a row per system, a cell per metric (None where the system cannot have it), the primary metric first."""
    known = [name for system in evaluation["systems"].values() for name in system]
    metrics = list(dict.fromkeys([evaluation["primary"], *known]))
    table = []
    for system in wording.ranked(evaluation):
        found = evaluation["systems"][system]
        cells = [
            (wording.number(found[m]["value"], m), wording.bounds(found[m], m)) if m in found else None for m in metrics
        ]
        told = wording.explanation_of(system, evaluation["task"])
        table.append({"name": names[system], "told": told, "cells": cells, "tuned": system == TUNED})
    heads = [(wording.metric_name(m, evaluation["task"]), wording.scale(m, evaluation)) for m in metrics]
    return {"heads": heads, "rows": table}


def in_parts(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table of systems as tables of a few metrics each, that fit beside one another; what systems are is told once."""
    heads, count = table["heads"], -(-len(table["heads"]) // ABREAST)
    ends = [round(len(heads) * part / count) for part in range(count + 1)]
    return [
        {
            "heads": heads[start:end],
            "rows": [
                row | {"cells": row["cells"][start:end], "told": "" if start else row["told"]} for row in table["rows"]
            ],
        }
        for start, end in pairwise(ends)
    ]


def comparisons(evaluation: Mapping[str, Any], names: Mapping[str, str]) -> list[tuple[str, str, str, str]]:
    """Rival, difference, interval and p-value; the least favourable first."""
    metric = evaluation["primary"]

    def lowest(found: Mapping[str, Any]) -> float:
        return -math.inf if found["low"] is None else float(found["low"])

    return [
        (
            names[found["against"]],
            wording.difference(found["difference"], metric),
            wording.difference_bounds(found, metric),
            wording.p_value(found["p_value"]),
        )
        for found in sorted(evaluation["comparisons"].values(), key=lowest)
    ]


def notes(
    evaluation: Mapping[str, Any], receipt: Mapping[str, Any], recipe: Recipe, names: Mapping[str, str]
) -> list[str]:
    """What else a careful reader asks about the numbers."""
    rows, test, scored = evaluation["rows"], receipt["rows"]["test"], receipt["test_scored"]
    drawn = (
        f"{rows:,} of {test:,} test rows, drawn with seed {recipe.seed}" if rows < test else f"All {test:,} test rows"
    )
    found = [f"{drawn}, scored {'once' if scored == 1 else f'{scored} times'} so far. Intervals are 95 %."]
    if evaluation["units"] < rows:
        found.append(f"Rows that belong together are resampled as one: {evaluation['units']:,} groups.")
    if note := note_of(evaluation["task"], receipt.get("task", {})):
        found.append(note)
    found += _signatures(evaluation)
    shots, wanted = receipt["shots"], recipe.evaluate.few_shot
    if FEW_SHOT in evaluation["systems"] and shots < wanted:
        found.append(f"Of the {wanted} examples that the recipe asks for, {shots} fit into the prompt.")
    close = {names[name]: count for name, count in evaluation.get("close_calls", {}).items() if count}
    if close:
        listed = ", ".join(f"{name} {count:,}" for name, count in close.items())
        found.append(f"Answers in which two tokens were as good as equally likely: {listed}.")
    return found


def _signatures(evaluation: Mapping[str, Any]) -> list[str]:
    """How the numbers were computed whose name does not say it all; metrics of one signature together."""
    alike: dict[str, list[str]] = {}
    for metric, signature in evaluation.get("signatures", {}).items():
        alike.setdefault(signature, []).append(wording.metric_name(metric, evaluation["task"]))
    return [
        f"{', '.join(names)} {'were' if len(names) > 1 else 'was'} computed as {signature}."
        for signature, names in alike.items()
    ]
