"""`report.html`: one self-contained page with the verdict first. Nothing is loaded from anywhere.

Everything shown comes from the run folder. Text of users and models is escaped by the template engine; the page's own
content policy forbids all requests and all scripts but ours besides (see `page`). The page's form stands in templates/,
its words in wording.py.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from pegbox.evaluation.overfitting import parting
from pegbox.recipe import Recipe
from pegbox.report import (
    breakdown,
    curve_words,
    facts,
    groups,
    loss_words,
    pictures,
    results,
    rows,
    shape,
    usage,
    wording,
)
from pegbox.report.answers import Reader
from pegbox.report.kinds import KINDS
from pegbox.report.page import as_data, render
from pegbox.report.sections import Given
from pegbox.runs.folder import RunFolder


def report(folder: RunFolder, recipe: Recipe) -> str:
    """The page of a finished run. Raises RecipeError where a file of the run is missing."""
    evaluation, receipt = folder.read_json("evaluation.json"), folder.read_json("receipt.json")
    names = wording.system_names(evaluation, receipt)
    log, lines = list(folder.read_lines("metrics.jsonl")), list(folder.read_lines("predictions.jsonl"))
    tied = {line["id"]: line["group"] for line in folder.read_lines("splits.jsonl")}
    reader = Reader.of(lines, evaluation, names, receipt["task"])
    given = Given(lines, evaluation, names, receipt["task"], recipe.seed)
    own = KINDS[recipe.task.kind].section
    data, parted, chosen = folder.read_json("data.json"), parting(log), receipt["chosen_step"]
    changed = rows.most_changed(reader.compared, recipe.seed)
    return render(
        "report.html",
        verdict=evaluation["verdict"],
        headline=wording.headline(evaluation, names),
        explanation=wording.explanation(evaluation, names),
        statistics=wording.statistics(evaluation, names),
        model=receipt["model"]["name"],
        about=facts.about(receipt, recipe),
        systems=results.in_parts(results.systems(evaluation, names)),
        comparisons=results.comparisons(evaluation, names),
        notes=results.notes(evaluation, receipt, recipe, names),
        systems_picture=pictures.systems(evaluation, names),
        own=own(given) if own else None,
        breakdown=breakdown.section(lines, tied, evaluation, names, recipe.seed),
        groups=groups.section(evaluation, names),
        how=_how(reader, changed, evaluation, recipe.seed),
        cards=reader.cards(changed),
        filters=reader.filters(changed),
        rows_data=as_data(reader.data(changed)),
        curves_picture=pictures.curves(log, chosen, loss_words.unit(recipe), parted),
        parted=curve_words.told(log, parted, chosen, recipe.train),
        training=facts.training(log, receipt, recipe),
        findings=[facts.finding(found) for found in data["findings"]],
        shape=shape.section(data.get("shape")),
        rows=receipt["rows"],
        costs=facts.costs(receipt, list(folder.read_lines("timing.jsonl"))),
        versions=receipt["versions"],
        files=receipt["data"],
        seed=receipt["seed"],
        path=shlex.quote(str(folder.path)),
        commands=usage.COMMANDS,
        with_pegbox=usage.with_pegbox(recipe, receipt),
        without_pegbox=usage.without_pegbox(recipe, receipt),
        libraries=usage.libraries(recipe),
    )


def _how(reader: Reader, changed: Sequence[int], evaluation: Mapping[str, Any], seed: int) -> str:
    """How many rows tuned does better and worse on, and how those that changed most were chosen."""
    compared, rival = reader.compared, wording.deciding(evaluation)["against"]
    found = compared.counts
    name = reader.words.row_score or wording.metric_name(compared.metric, evaluation["task"])
    score = "" if compared.metric == evaluation["primary"] else f" in {name}"
    how = (
        f"Against the {reader.names[rival]}, the tuned model does better{score} on {found[rows.BETTER]:,} of "
        f"{len(reader.lines):,} test rows, worse on {found[rows.WORSE]:,}, and as well on {found[rows.EQUAL]:,}."
    )
    gains = sum(compared.lead[row] > 0 for row in changed)
    if len(changed) == found[rows.BETTER] + found[rows.WORSE]:
        return how
    return (
        f"{how} Shown first are the {len(changed)} that changed most: {gains} gains and {len(changed) - gains} losses, half "
        f"of each as far as there are; where changes are equal, the run's seed ({seed}) drew."
    )
