"""The section on groups of rows: a table and a picture of tuned and its untouched counterpart, and what became of the gaps.

Everything said here is computed from `groups` of `evaluation.json`; runs without that entry have no such section.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pegbox.evaluation.verdict import TUNED
from pegbox.report import wording
from pegbox.report.group_picture import picture
from pegbox.report.wording import metric_name, number

PICTURED = 15  # groups
NAMED = 12  # groups without numbers
SHARE = "accuracy"  # a metric that is written as a share of rows, as the rates behind fairlearn's differences are
MEASURES = {
    "demographic_parity_difference": (
        "Demographic parity",
        "How much more often the label is given in the group that gets it most often than in the one that gets it least "
        "often, whether rightly or not.",
    ),
    "equalized_odds_difference": (
        "Equalized odds",
        "The same for two shares, of which the larger difference is shown: of the rows that have the label, those that "
        "were given it, and of the rows that do not have it, those that were given it all the same.",
    ),
}

Groups = Mapping[str, Any]


def section(evaluation: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any] | None:
    """Everything that the page shows of it; None where no row names a group."""
    if (found := evaluation.get("groups")) is None:
        return None
    known = [group for group in found["groups"] if group["systems"] is not None]
    counterpart, measured = names[found["counterpart"]], metric_name(found["primary"], evaluation["task"])
    return {
        "metric": measured,
        "counterpart": counterpart,
        "told": _sizes(found, known),
        "gap": _gap(found, counterpart) if known else [],
        "picture": picture(found, known[:PICTURED], counterpart, measured) if known else None,
        "pictured": len(known) > PICTURED and PICTURED,
        "rows": [_row(group, found) for group in known],
        "measures": _measures(found["fairness"]) if found["fairness"] else [],
        "notes": _notes(found, known),
    }


def card_line(evaluation: Mapping[str, Any], names: Mapping[str, str]) -> str | None:
    """The worst group and the gap, for the model card; None where there are not two groups with numbers.

    No group is named: a card is made to be published, and a group may be a customer.
    """
    found = evaluation.get("groups")
    if found is None or found["gap"] is None or found["gap"]["tuned"]["worst"] is None:
        return None
    gap, metric = found["gap"], found["primary"]
    worst = next(group for group in found["groups"] if group["group"] == gap["tuned"]["worst"])
    value = worst["systems"][TUNED][metric]
    counted = sum(group["systems"] is not None for group in found["groups"])
    return (
        f"In the group where the model is worst ({worst['rows']:,} rows; the report names it): {number(value['value'], metric)} in "
        f"{metric_name(metric, evaluation['task'])}, 95 % interval {wording.bounds(value, metric)}. The gap between the best and the worst of "
        f"{counted} groups is {_size(gap['tuned']['value'], metric)}, that of the {names[found['counterpart']]} "
        f"{_size(gap['counterpart']['value'], metric)}; {_changed(gap, metric)}."
    )


def _sizes(found: Groups, known: Sequence[Groups]) -> str:
    """How many groups there are, and which of them have no numbers."""
    groups, least = found["groups"], found["minimum_rows"]
    told = f"{found['rows']:,} test rows are of {len(groups):,} group{'' if len(groups) == 1 else 's'}."
    small = [f"{group['group']} ({group['rows']:,})" for group in groups if group["rows"] < least]
    beyond = len(groups) - len(known) - len(small)
    if small:
        told += f" Fewer than {least} rows are too few for a number: {wording.some(small, NAMED)}."
    return told + (f" The {beyond:,} smallest of the others are left out." if beyond else "")


def _gap(found: Groups, counterpart: str) -> list[str]:
    """The gap before and after, what became of it, and at whose cost."""
    gap, metric = found["gap"], found["primary"]
    if gap is None:
        return ["A gap takes two groups with numbers."]
    told = [
        f"The {name} {_extremes(found, system, gap[key])}"
        for name, system, key in ((counterpart, found["counterpart"], "counterpart"), ("tuned model", TUNED, "tuned"))
    ]
    what = _changed(gap, metric)
    return [*told, f"{what[:1].upper()}{what[1:]}. {_cost(found)}".strip()]


def _extremes(found: Groups, system: str, gap: Groups) -> str:
    metric = found["primary"]
    if gap["best"] is None:
        return "has a value in no group."
    values = {
        group["group"]: group["systems"][system][metric]["value"] for group in found["groups"] if group["systems"]
    }
    best, worst = (f"{gap[end]} ({number(values[gap[end]], metric)})" for end in ("best", "worst"))
    chance = "" if gap["by_chance"] is None else f"; up to {_size(gap['by_chance'], metric)} come about by chance alone"
    return (
        f"is best in {best} and worst in {worst}: a gap of {_size(gap['value'], metric)} "
        f"(95 % interval {_unsigned_bounds(gap, metric)}{chance})."
    )


def _changed(gap: Groups, metric: str) -> str:
    change = gap["change"]
    if change["value"] is None:
        return "what tuning did to the gap is not defined"
    size = f"{wording.difference(change['value'], metric)}, 95 % interval {wording.difference_bounds(change, metric)}"
    if gap["verdict"] == "not shown":
        return f"that tuning changed the gap is not shown ({size})"
    return f"tuning {gap['verdict']} the gap ({size})"


def _cost(found: Groups) -> str:
    """Whether a smaller gap came from making the better group worse."""
    gap, metric = found["gap"], found["primary"]
    if gap["change"]["value"] is None or gap["change"]["value"] >= 0:
        return ""
    before = next(group for group in found["groups"] if group["group"] == gap["counterpart"]["best"])
    lead = before["lead"]
    size = f"{wording.difference(lead['difference'], metric)}, 95 % interval {wording.difference_bounds(lead, metric)}"
    told = "A smaller gap can come from making the better group worse"
    if gap["levelled_down"]:
        return f"{told}, and here it did, at least in part: {before['group']}, the best before, got worse ({size})."
    return f"{told}; here {before['group']}, the best before, did not get worse ({size})."


def _size(value: float | None, metric: str) -> str:
    """A gap, which has no sign."""
    return wording.difference(value, metric).removeprefix("+")


def _unsigned_bounds(found: Groups, metric: str) -> str:
    return wording.difference_bounds(found, metric).replace("+", "")


def _row(group: Groups, found: Groups) -> dict[str, Any]:
    """Name, rows, and of tuned, the counterpart and the lead the value and the interval."""
    metric = found["primary"]
    cells = [group["systems"][system][metric] for system in (TUNED, found["counterpart"])]
    return {
        "name": group["group"],
        "rows": f"{group['rows']:,}",
        "cells": [
            *((number(cell["value"], metric), wording.bounds(cell, metric)) for cell in cells),
            (
                wording.difference(group["lead"]["difference"], metric),
                wording.difference_bounds(group["lead"], metric),
            ),
        ],
    }


def _measures(fairness: Groups) -> list[dict[str, Any]]:
    """A table for each of fairlearn's differences, in percentage points of rows."""
    return [
        {
            "title": title,
            "told": f"{told} {_worst(fairness, measure)} In percentage points:",
            "rows": [
                {
                    "label": str(one["label"]),
                    "rows": f"{one['rows']:,}",
                    "cells": _label_cells(one[measure]),
                    "empty": bool(measure == "equalized_odds_difference" and _empty(one)),
                }
                for one in fairness["labels"]
            ],
        }
        for measure, (title, told) in MEASURES.items()
    ]


def _label_cells(found: Groups) -> list[tuple[str, str]]:
    """Before, after and change, each with what stands below it; without the unit, for which a phone has no room."""
    gaps = [
        (_size(found[key]["value"], SHARE), _unsigned_bounds(found[key], SHARE)) for key in ("counterpart", "tuned")
    ]
    change = found["change"]
    bounds = f"{wording.difference_bounds(change, SHARE)}, {found['verdict']}"
    cells = [*gaps, (wording.difference(change["value"], SHARE), bounds)]
    return [(value.replace(" points", ""), below.replace(" points", "")) for value, below in cells]


def _worst(fairness: Groups, measure: str) -> str:
    """The label with tuned's largest difference."""
    label = fairness["worst"][measure]
    if label is None:
        return "In every label some group has only rows of one kind, so that none can be called the worst."
    found = next(one for one in fairness["labels"] if one["label"] == label)[measure]["tuned"]
    chance = (
        "" if found["by_chance"] is None else f", where up to {_size(found['by_chance'], SHARE)} come by chance alone"
    )
    return f"The tuned model's largest is in {label}: {_size(found['value'], SHARE)}{chance}."


def _empty(one: Groups) -> list[str]:
    return [*one["without_positives"], *one["without_negatives"]]


def _notes(found: Groups, known: Sequence[Groups]) -> list[str]:
    """What a careful reader asks about these numbers."""
    if not known:
        return []
    what = {
        "rows": "Resampled are the rows of each group: the intervals are about more rows of these groups, not about others.",
        "units": "Resampled within the groups is what the verdict resamples.",
    }
    told = [
        f"Intervals are 95 %, from {found['resamples']:,} resamples, not adjusted for looking at several groups"
        f"{' and labels' if found['fairness'] else ''}. {what[found['resampled']]}",
    ]
    if found["gap"]:
        told.append(
            "The largest minus the smallest of several numbers is above zero by chance alone, the more so the more groups "
            "and the fewer rows: what is said of chance covers 95 % of cases in which all groups are alike. A change is "
            "called shown where its interval leaves out 0 and chance does not reach it."
        )
    if found["fairness"]:
        told += _notes_on_labels(found["fairness"])
    return told


def _notes_on_labels(fairness: Groups) -> list[str]:
    told = ["The two differences are defined as in fairlearn, each label against the rest; at 0 the groups are alike."]
    if any(_empty(one) for one in fairness["labels"]):
        told[0] += (
            " A share of no rows counts as 0 there: where a group has only rows with or only rows without a label "
            "(marked *), equalized odds say little of that label."
        )
    if left := fairness["left_out"]:
        told.append(f"{left:,} rarer label{' is' if left == 1 else 's are'} left out.")
    return told
