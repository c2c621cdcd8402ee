"""The page of several runs compared, and its words. All of it comes from what `finished.comparing.compare` has found.

The same kind of page as the report: the answer first, then the runs with their intervals, every pair, what was different
about the runs, how they learnt, what they cost, and the rows on which they differ most.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from pegbox import __version__
from pegbox.evaluation.verdict import MINIMUM_UNITS
from pegbox.report import comparison_pictures, metric_words, wording
from pegbox.report.page import render
from pegbox.report.rows import short_ids
from pegbox.report.task_words import words_of
from pegbox.report.written import shortened, written

Found = Mapping[str, Any]


def comparison_page(found: Found) -> str:
    """The HTML of a comparison."""
    runs, primary = found["runs"], found["primary"]
    lead, sentence = headline(found)
    return render(
        "comparison.html",
        tone="not-shown" if found["best"] is None else "better",
        lead=lead,
        sentence=sentence,
        reason=found["reason"],
        statistics=statistics(found),
        about=f"{len(runs)} runs · {found['task']} · {wording.size(found)}",
        warnings=[told["message"] for told in found["notes"] if told["severity"] == "warning"],
        notes=[told["message"] for told in found["notes"] if told["severity"] != "warning"],
        runs_picture=comparison_pictures.runs(runs, primary, wording.scale(primary, found)),
        leads_picture=comparison_pictures.leads(found["differences"], runs[0]["name"], primary),
        first=runs[0]["name"],
        metrics=_metrics(found),
        signature=found.get("signature"),
        differences=_differences(found),
        recipes=[(key, _values(row)) for key, row in found["recipes"].items()],
        curves_picture=comparison_pictures.curves(runs, _unit(found)),
        losses=[(run["name"], _losses(run)) for run in runs],
        chosen=[(run["name"], _chosen(run)) for run in runs],
        apart=any(key.startswith(("model", "data", "task")) for key in found["recipes"]),
        costs=_costs(runs),
        rows=_rows(found),
        folders=[_folder(run) for run in runs],
        command=f"pegbox compare {' '.join(shlex.quote(run['run']) for run in runs)}"
        + (f" --metric {primary}" if any(run["primary"] != primary for run in runs) else ""),
        versions={"pegbox": __version__},
    )


# ---- sentences -------------------------------------------------------------------------------------------------------


def headline(found: Found) -> tuple[str, str]:
    """Which run is better, or that it is not shown: the lead and the sentence for everybody."""
    (first, second, *others), metric = found["runs"], found["primary"]
    one, other = (wording.number(run["metrics"][metric]["value"], metric) for run in (first, second))
    claim = metric_words.claim(metric, found["task"]).format(value=one)
    better = "best" if others else "better"
    lead = f"Not shown which is {better}:" if found["best"] is None else f"{better.capitalize()}:"
    lower = "" if wording.metric_of(found, metric).greater_is_better else " (lower is better)"
    return lead, f"{first['name']} {claim}; {'the next, ' if others else ''}{second['name']}, {other}{lower}."


def reason(found: Found) -> str:
    """Why the first run is the best, or why that is not shown and how many rows it would take."""
    first, *others = (run["name"] for run in found["runs"])
    of_first = [pair for pair in found["differences"] if pair["run"] == first]
    rivals = [pair["against"] for pair in of_first if not pair["shown"]]
    behind = [name for name in others if name not in rivals]
    kind = "rows" if found["units"] == found["rows"] else "groups of rows"
    needed = found["units_needed"]
    more = f" About {needed:,} {kind} would be needed to show a difference of this size." if needed else ""
    if found["best"] is not None:
        return f"{first} is ahead of {_listed(others)}, by more than chance would explain."
    if found["units"] < MINIMUM_UNITS:
        return (
            f"It takes at least {MINIMUM_UNITS} {kind} that are independent to show which run is better; these are "
            f"{found['units']}.{more}"
        )
    also = f" {first} is ahead of {_listed(behind)}." if behind else ""
    if level := [pair["against"] for pair in of_first if pair["difference"] == 0]:
        return f"{_listed([first, *level])} score the same; more rows alone may not change that.{also}"
    return f"{first} scored above {_listed(rivals)}, but not by more than chance would explain.{also}{more}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def statistics(found: Found) -> str:
    """The comparison that decides, for a statistician: the first run against the one it is least surely ahead of."""
    first, metric, count = found["runs"][0]["name"], found["primary"], len(found["differences"])
    of_first = [pair for pair in found["differences"] if pair["run"] == first]
    closest = min(of_first, key=lambda pair: -math.inf if pair["low"] is None else pair["low"])
    adjusted = (
        f", adjusted for {count} comparisons {wording.p_value(closest['p_adjusted'])} (Holm)" if count > 1 else ""
    )
    return (
        f"{first} against {closest['against']}{', the closest' if count > 1 else ''}: "
        f"{wording.difference(closest['difference'], metric)} in {wording.metric_name(metric, found['task'])} (positive: {first} is "
        f"better), 95 % interval {wording.difference_bounds(closest, metric)}, p {wording.p_equals(closest['p_value'])}"
        f"{adjusted}; {closest['test']}, {found['resamples']:,} resamples of {wording.size(found)}."
    )


# ---- tables ----------------------------------------------------------------------------------------------------------


def _metrics(found: Found) -> dict[str, Any]:
    """Every metric of every run: a row per run."""
    heads = [(metric_words.metric_name(m, found["task"]), wording.scale(m, found)) for m in found["runs"][0]["metrics"]]
    table = [
        {
            "name": run["name"],
            "told": f"{run['method']}; its own verdict: {run['verdict']}",
            "cells": [
                (wording.number(scored["value"], m), wording.bounds(scored, m)) for m, scored in run["metrics"].items()
            ],
            "best": run["name"] == found["best"],
        }
        for run in found["runs"]
    ]
    return {"heads": heads, "rows": table}


def _differences(found: Found) -> list[dict[str, Any]]:
    """Every pair: the difference with its interval, its p-values, and what they say."""
    metric = found["primary"]
    return [
        {
            "run": pair["run"],
            "against": pair["against"],
            "by": wording.difference(pair["difference"], metric),
            "interval": wording.difference_bounds(pair, metric),
            "p": wording.p_value(pair["p_value"]),
            "adjusted": wording.p_value(pair["p_adjusted"]),
            "shown": pair["shown"],
        }
        for pair in found["differences"]
    ]


def _values(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The values of one key, each with the runs that have it."""
    names: dict[str, list[str]] = {}
    for name, value in row.items():
        names.setdefault(_value(value), []).append(name)
    return [(value, ", ".join(given)) for value, given in names.items()]


def _value(value: Any) -> str:
    """A recipe's value as a recipe says it."""
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _unit(found: Found) -> str:
    """What the runs' losses count, where it is the same."""
    units = {run["loss_unit"] for run in found["runs"]}
    return units.pop() if len(units) == 1 else "each run's own"


def _losses(run: Found) -> str:
    """A learning curve in numbers."""
    return ", ".join(f"{step:,}: {_loss(loss)}" for step, loss in run["validation"]) or "none"


def _loss(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.4g}"


def _chosen(run: Found) -> str:
    losses = [_loss(loss) for step, loss in run["validation"] if step == run["chosen_step"]]
    return f"update {run['chosen_step']:,}" + "".join(f", validation loss {loss}" for loss in losses)


COSTS = ("training", "tokens", "parameters that learnt", "peak memory", "device")


def _costs(runs: Sequence[Found]) -> dict[str, Any]:
    """Time, tokens, parameters, memory: a row per run, a value and what is said below it per cell."""
    table = [
        (
            run["name"],
            [
                (wording.seconds(run["seconds"]), ""),
                (f"{run['tokens']:,}", ""),
                (f"{run['trainable_parameters']:,}", f"of {run['parameters']:,}"),
                (wording.gigabytes(run["peak_memory"]), ""),
                (run["device"], ""),
            ],
        )
        for run in runs
    ]
    return {"heads": COSTS, "rows": table}


def _folder(run: Found) -> dict[str, Any]:
    began = str(run["when"]).replace("T", " ").removesuffix("+00:00") + " UTC"
    about = f"{run['model']}, {run['method']}, began {began}; {run['rows_of_run']:,} test rows"
    return {"name": run["name"], "path": run["run"], "about": about}


# ---- rows ------------------------------------------------------------------------------------------------------------


def _rows(found: Found) -> dict[str, Any]:
    """The rows on which the runs differ most, with every run's answer, and how they were chosen."""
    told = found["rows_that_differ"]
    first, shown, count = found["runs"][0]["name"], told["rows"], told["count"]
    ids = short_ids([row["ids"][first] for row in shown])
    which = f"Shown are the {len(shown)} on which they lie farthest apart; between equals the seed drew."
    how = (
        f"The runs' scores differ in {wording.metric_name(told['metric'], found['task'])} on {count:,} of {found['rows']:,} rows. "
        f"{which if count > len(shown) else 'All of them are shown, those farthest apart first.' if count else ''}"
    )
    metric, task = told["metric"], found["task"]
    return {"how": how, "cards": [_card(row, metric, ids[row["ids"][first]], task) for row in shown]}


def _card(row: Found, metric: str, place: str, task: str) -> dict[str, Any]:
    scores = row["scores"]
    all_or_nothing = metric in wording.SHARES
    right = [name for name, score in scores.items() if score]
    said = []
    for name, answer in row["answers"].items():
        mark, tone = metric_words.row_mark(metric, wording.number(scores[name], metric), task), "plain"
        if all_or_nothing:
            mark = tone = "right" if scores[name] else "wrong"
        text = shortened(written(answer, row["input"]))
        said.append({"name": name, "text": text, "mark": mark, "tone": tone, "tuned": False})
    return {
        "id": place,
        "kind": f"right: {_listed(right)}" if all_or_nothing and right else "scores differ",
        "input": shortened(row["input"]),
        "right": words_of(task).right,
        "reference": None if row["reference"] == row["input"] else shortened(written(row["reference"], row["input"])),
        "answers": said,
    }
