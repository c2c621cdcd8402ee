"""`pegbox compare RUN RUN ...`: finished runs against each other, paired on the test rows that all of them have.

From saved files alone; no model is loaded. The tuned models' answers to the same rows are scored again, and every pair is
compared as the verdict compares (`evaluation.pairwise`). Perplexity is per token, so it is compared only where all models
cut each text into equally many tokens.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pegbox.errors import RecipeError
from pegbox.evaluation.bootstrap import RESAMPLES, paired_difference
from pegbox.evaluation.pairwise import Ranking, rank
from pegbox.evaluation.verdict import interval_of, to_json
from pegbox.finished.fairness import Note, by_value, differing_keys, note, notes
from pegbox.finished.matching import Line, Matched, match
from pegbox.finished.run import Run
from pegbox.metrics import Metric, line_statistics, lookup, own_metrics, reference_of
from pegbox.metrics.retrieval import RANKINGS
from pegbox.report import comparison, loss_words
from pegbox.report.rows import row_metric, row_scores

PERPLEXITY = "perplexity"
MOST_ROWS = 20  # rows that are told one by one


def compare(run_dirs: Sequence[str | Path], *, metric: str | None = None, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Compare finished runs by their common primary metric, or by `metric`; what comes out can be written as JSON.

    `runs` stand best first, `differences` are positive; `best` names a run or is None, with the `reason` in a sentence.
    A number that is not finite is None.

    Raises RecipeError for runs that are not finished, that are judged by different metrics or tasks where `metric` is not
    given, that have no test row in common, or whose perplexities are of different tokens.
    """
    runs = _open(run_dirs)
    primary = metric or _common_primary(runs)
    chosen, asked = lookup(primary, where="--metric" if metric else None), _asked(primary, runs)
    lines = {name: _predictions(run) for name, run in runs.items()}
    matched = match(lines)
    _refuse_unlike(chosen, matched, runs)
    seed = min(run.recipe.seed for run in runs.values())
    statistics = line_statistics(chosen, matched.rows)
    ranking = rank(chosen, statistics, matched.units, seed=seed, resamples=resamples)
    differing = differing_keys(runs)
    metrics = _metrics(chosen, matched, ranking, asked, seed, resamples)
    tasks = sorted({run.recipe.task.kind for run in runs.values()})
    found = {
        "task": ", ".join(tasks),
        "primary": chosen.name,
        **({"signature": chosen.signature} if chosen.signature else {}),
        **({"own_metrics": own} if (own := own_metrics(asked)) else {}),
        "rows": ranking.rows,
        "units": ranking.units,
        "resamples": ranking.resamples,
        "best": ranking.best,
        "units_needed": ranking.units_needed,
        "runs": [_described(name, runs[name], len(lines[name]), metrics[name]) for name in ranking.systems],
        "differences": [pair.to_json() for pair in ranking.pairs],
        "notes": [*_about_rows(ranking, lines), *_about_metric(chosen, runs), *notes(runs, matched, differing)],
        "recipes": {key: {name: row[name] for name in ranking.systems} for key, row in differing.items()},
    }
    found["rows_that_differ"] = _most_different(matched, found, tasks, list(ranking.systems), seed)
    return found | {"reason": comparison.reason(found)}


# ---- the runs --------------------------------------------------------------------------------------------------------


def _open(run_dirs: Sequence[str | Path]) -> dict[str, Run]:
    """The runs by their short names."""
    paths = [Path(path) for path in run_dirs]
    if len({path.resolve() for path in paths}) < max(2, len(paths)):
        cure = "name two or more different run folders: pegbox compare RUN RUN"
        raise RecipeError("a comparison takes two or more runs, each of them once", cure=cure)
    return {name: Run(path) for name, path in zip(_names(paths), paths, strict=True)}


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell all of them apart."""
    parts = [path.resolve().parts for path in paths]
    length = 1
    while len({found[-length:] for found in parts}) < len(parts):
        length += 1
    return ["/".join(found[-length:]) for found in parts]


def _predictions(run: Run) -> list[Line]:
    lines: list[Line] = list(run.folder.read_lines("predictions.jsonl"))
    if not lines:
        cure = f"finish it with `pegbox train --resume {run.path}`"
        raise RecipeError("the run has no predictions yet", where=str(run.path), cure=cure)
    return lines


def _common_primary(runs: Mapping[str, Run]) -> str:
    """The metric that all runs are judged by. Raises RecipeError where there is none, or where the tasks differ."""
    tasks = {name: run.recipe.task.kind for name, run in runs.items()}
    primaries = {name: _primary(run) for name, run in runs.items()}
    for what, found in (("of different tasks", tasks), ("judged by different metrics", primaries)):
        if len(set(found.values())) > 1:
            told = ", ".join(
                f"{name} by {value}" if found is primaries else f"{name}: {value}" for name, value in found.items()
            )
            raise RecipeError(f"the runs are {what} ({told})", cure="name one metric for all of them with --metric")
    return next(iter(primaries.values()))


def _primary(run: Run) -> str:
    """The metric that a run is judged by, as its recipe has it."""
    assert run.recipe.evaluate.primary is not None
    return run.recipe.evaluate.primary


def _asked(primary: str, runs: Mapping[str, Run]) -> list[str]:
    """The primary metric, and each that a recipe asks for; of several of users' own with one name, the first."""
    found: dict[str, str] = {}
    for name in (primary, *(name for run in runs.values() for name in run.recipe.evaluate.metrics or ())):
        found.setdefault(lookup(name).name, name)
    return list(found.values())


def _described(name: str, run: Run, rows: int, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What the comparison says of one run by itself."""
    receipt = run.receipt
    losses = [line for line in run.folder.read_lines("metrics.jsonl") if line.get("split") == "validation"]
    return {
        "run": str(run.path),
        "name": name,
        "model": run.recipe.model.name,
        "method": run.recipe.method.kind,
        "when": receipt["began"],
        "primary": lookup(_primary(run)).name,
        "verdict": run.verdict,
        "metrics": metrics,
        "rows_of_run": rows,
        "seconds": receipt["seconds"]["training"],
        "tokens": receipt["tokens"],
        "trainable_parameters": receipt["plan"]["trainable_parameters"],
        "parameters": receipt["plan"]["parameters"],
        "peak_memory": receipt["peak_memory"]["measured"],
        "device": receipt["hardware"].get("gpu", receipt["hardware"]["device"]),
        "chosen_step": receipt["chosen_step"],
        "loss_unit": loss_words.unit(run.recipe),
        "validation": [[line["step"], _finite(line["loss"])] for line in losses],
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


# ---- the numbers -----------------------------------------------------------------------------------------------------


def _metrics(
    primary: Metric, matched: Matched, ranking: Ranking, asked: Sequence[str], seed: int, resamples: int
) -> dict[str, dict[str, Any]]:
    """Every run's value and interval, on the rows compared, of the primary and of each metric that a recipe asks for."""
    found = {name: {primary.name: to_json(interval)} for name, interval in ranking.systems.items()}
    for other in map(lookup, asked):
        if other.name == primary.name or (other.name == PERPLEXITY) != (primary.name == PERPLEXITY):
            continue
        for name, statistics in line_statistics(other, matched.rows).items():
            interval = interval_of(other, statistics, matched.units, seed=seed, resamples=resamples)
            found[name][other.name] = to_json(interval)
    return found


def _refuse_unlike(metric: Metric, matched: Matched, runs: Mapping[str, Run]) -> None:
    """Raise RecipeError where the metric cannot be had of every run's answers, or is not of the same tokens."""
    for name in runs:
        if not any(name in row[metric.reads] for row in matched.rows):
            cure = "compare by a metric of the answers"
            raise RecipeError(f"{name} has no {metric.reads}; there is no {metric.name}", where="--metric", cure=cure)
        likelihoods = any(isinstance(answer, Mapping) and "nll" in answer for answer in matched.answers(name))
        if likelihoods != (metric.name == PERPLEXITY):
            has = (
                "likelihoods of texts, of which perplexity alone can be had"
                if likelihoods
                else "answers, not likelihoods"
            )
            cure = "compare runs of one kind, or by a metric that all of them have"
            raise RecipeError(f"{name} has {has}; there is no {metric.name}", where="--metric", cure=cure)
    if metric.kind is RANKINGS and any(run.evaluation["rows"] != len(matched.rows) for run in runs.values()):
        what = "ranks are those among all texts of a run's own test rows, and the runs have not the same rows"
        raise RecipeError(what, where="--metric", cure="give both recipes the same test rows, as a file of their own")
    if metric.name != PERPLEXITY:
        return
    cuts = [[answer and answer["tokens"] for answer in row["answers"].values()] for row in matched.rows]
    unlike = sum(len({tokens for tokens in cut if tokens is not None}) > 1 for cut in cuts)
    if unlike:
        raise RecipeError(
            f"{unlike:,} of {len(cuts):,} texts are cut into other numbers of tokens by one model than by another: "
            "perplexity is per token, and theirs cannot be compared",
            cure="compare runs whose models share a tokenizer",
        )


# ---- what is told besides --------------------------------------------------------------------------------------------


def _about_rows(ranking: Ranking, lines: Mapping[str, Sequence[Line]]) -> list[Note]:
    """How many rows of each run are compared, and how many comparisons there are."""
    told = []
    if any(len(given) != ranking.rows for given in lines.values()):
        of_each = by_value({name: f"{len(given):,}" for name, given in lines.items()})
        told.append(note("note", f"Compared are the {ranking.rows:,} rows that all runs were tested on, of {of_each}."))
    if (pairs := len(ranking.pairs)) > 1:
        message = (
            f"{pairs} pairs are compared. Each interval is a 95 % interval of its own pair; the p-values that decide are "
            f"adjusted for all {pairs} (Holm)."
        )
        told.append(note("note", message))
    return told


def _about_metric(metric: Metric, runs: Mapping[str, Run]) -> list[Note]:
    """That the metric was chosen afterwards, where it was."""
    if other := [name for name, run in runs.items() if lookup(_primary(run)).name != metric.name]:
        named = "every run" if len(other) == len(runs) else ", ".join(other)
        return [
            note("note", f"{metric.name} was chosen for this comparison; the primary metric of {named} is another.")
        ]
    return []


def _most_different(
    matched: Matched, found: Mapping[str, Any], tasks: Sequence[str], order: Sequence[str], seed: int
) -> dict[str, Any]:
    """The rows on which the runs' scores lie farthest apart; of equals those that the seed draws."""
    metric = row_metric({"task": tasks[0], "primary": found["primary"]})
    scores = row_scores(matched.rows, reference_of(found, metric))
    table = np.stack([scores[name] for name in order])
    apart = paired_difference(table.max(axis=0), table.min(axis=0))
    differ = np.flatnonzero(apart > 0).tolist()
    random.Random(seed).shuffle(differ)
    shown = sorted(differ, key=lambda index: -apart[index])[:MOST_ROWS]
    return {"metric": metric, "count": len(differ), "rows": [_told(matched.rows[i], scores, i, order) for i in shown]}


def _told(row: Mapping[str, Any], scores: Mapping[str, Any], index: int, order: Sequence[str]) -> dict[str, Any]:
    answers = {name: row["answers"][name] for name in order}
    return {"ids": {name: row["ids"][name] for name in order}, "input": row["input"], "reference": row["reference"]} | {
        "answers": answers,
        "scores": {name: _finite(float(scores[name][index])) for name in order},
    }
