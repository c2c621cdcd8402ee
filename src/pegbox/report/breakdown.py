"""The section on where tuned gained and lost: the parts of `gains` with their pictures, tables and captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pegbox.evaluation.verdict import MINIMUM_UNITS
from pegbox.metrics import reference_of
from pegbox.report import gains, wording
from pegbox.report.gains import Contest, Part, Parts
from pegbox.report.kinds import KINDS
from pegbox.report.lead_pictures import leads
from pegbox.report.rows import row_metric

MISTAKES = 12  # kinds of mistakes that are listed


@dataclass(frozen=True)
class About:
    """What the rival and the metric are called."""

    rival: str
    metric: str


def section(
    lines: Sequence[Mapping[str, Any]],
    groups: Mapping[str, str | None],
    evaluation: Mapping[str, Any],
    names: Mapping[str, str],
    seed: int,
) -> dict[str, Any]:
    """Everything that the page shows of it. `groups`: the group of each row by its id; none where rows have none."""
    metric, rival = row_metric(evaluation), wording.deciding(evaluation)["against"]
    contest = Contest.of(lines, reference_of(evaluation, metric), rival, seed)
    about = About(names[rival], wording.metric_name(metric, evaluation["task"]))
    views = [_by_length(contest, lines, about)]
    named = [groups.get(line["id"]) for line in lines]
    if any(named):
        views.append(_by_group(contest, named, about))
    labels = KINDS[evaluation["task"]].one_label
    if labels:
        views.append(_by_label(contest, [str(line["reference"]) for line in lines], about))
    return {
        "rival": about.rival,
        "metric": about.metric,
        "minimum": MINIMUM_UNITS,
        "views": views,
        "mistakes": _mistakes(lines, rival) if labels else None,
    }


def _by_length(contest: Contest, lines: Sequence[Mapping[str, Any]], about: About) -> dict[str, Any]:
    parts = gains.by_length(contest, [len(line["input"]) for line in lines])
    if parts is None:
        return _without("By length of the input", "All inputs have the same length.")
    told = f"{len(lines):,} rows in {parts.count} parts of about equal size, by the characters of their input."
    return _view("By length of the input", "length", "input", told, parts, contest, about)


def _by_group(contest: Contest, named: Sequence[str | None], about: About) -> dict[str, Any]:
    sizes = [named.count(name) for name in dict.fromkeys(named) if name]
    if max(sizes) == 1:
        return _without(
            "By group", f"The test rows are of {len(sizes):,} groups, one row of each: no group can be judged."
        )
    within = replace(contest, units=np.arange(len(named)))
    parts = gains.by_name(within, named)
    if parts is None:
        return _without("By group", "All test rows that have a group are of the same one.")
    return _view("By group", "group", "group", _how_many(parts, "groups"), parts, within, about)


def _by_label(contest: Contest, labels: Sequence[str], about: About) -> dict[str, Any]:
    parts = gains.by_name(contest, labels)
    if parts is None:
        return _without("By right label", "All test rows have the same label.")
    told = f"Recall: the share of each label's rows that were given that label. {_how_many(parts, 'labels')}"
    return _view("By right label", "label", "right label", told, parts, contest, about)


def _how_many(parts: Parts, kind: str) -> str:
    """How the parts stand in these rows, and which of them are shown."""
    level = parts.count - parts.ahead - parts.behind
    found = f"In these rows tuned is ahead on {parts.ahead:,} of {parts.count:,} {kind}, behind on {parts.behind:,}, level on {level:,}."
    if len(parts.shown) == parts.count:
        return found
    return (
        f"{found} Shown are the {len(parts.shown)} that add most to or take most from the whole (lead times rows); "
        "being picked by their result, they look more extreme than they are."
    )


def _view(title: str, key: str, head: str, told: str, parts: Parts, contest: Contest, about: About) -> dict[str, Any]:
    metric = contest.metric.name
    return {
        "title": title,
        "told": told,
        "picture": leads(
            parts.shown, metric, f"leads-{key}", f"{title}, tuned against the {about.rival}", about.metric
        ),
        "head": head,
        "rows": [_row(part, metric) for part in parts.shown],
    }


def _without(title: str, why: str) -> dict[str, Any]:
    return {"title": title, "told": why, "picture": None, "head": "", "rows": []}


def _row(part: Part, metric: str) -> tuple[str, ...]:
    """Name, rows, tuned, rival, lead, interval."""
    interval = "too few rows" if part.small else wording.difference_bounds(part.lead, metric)
    return (
        part.name,
        f"{part.rows:,}",
        wording.number(part.tuned, metric),
        wording.number(part.rival, metric),
        wording.difference(part.lead["difference"], metric),
        interval,
    )


def _mistakes(lines: Sequence[Mapping[str, Any]], rival: str) -> dict[str, Any]:
    found = gains.mistakes(lines, rival)
    return {"shown": found[:MISTAKES], "more": len(found) - len(found[:MISTAKES])}
