"""`report.html`: one self-contained page with the verdict first. No script, nothing loaded from anywhere.

Everything shown comes from the run folder. Text of users and models is escaped by the template engine; the page's own
content policy forbids scripts and requests besides. The page's form stands in templates/, its words in wording.py.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from pegbox.evaluation.verdict import TUNED
from pegbox.recipe import Lora, Recipe
from pegbox.report import pictures, rows, usage, wording
from pegbox.report.page import render
from pegbox.runs.folder import RunFolder

LONG = 280  # characters of a text that are shown without being asked for
NAMED = 8  # rows of a finding that are named


def report(folder: RunFolder, recipe: Recipe) -> str:
    """The page of a finished run. Raises RecipeError where a file of the run is missing."""
    evaluation, receipt = folder.read_json("evaluation.json"), folder.read_json("receipt.json")
    names = wording.system_names(evaluation, recipe)
    log = list(folder.read_lines("metrics.jsonl"))
    unit = "row" if recipe.task.kind == "classification" else "token"
    return render(
        "report.html",
        verdict=evaluation["verdict"],
        headline=wording.headline(evaluation, names),
        explanation=wording.explanation(evaluation, names),
        statistics=wording.statistics(evaluation, names),
        model=receipt["model"]["name"],
        about=_about(receipt, recipe),
        systems=_systems(evaluation, names),
        comparisons=_comparisons(evaluation, names),
        notes=_notes(evaluation, receipt, recipe, names),
        systems_picture=pictures.systems(evaluation, names),
        curves_picture=pictures.curves(log, receipt["chosen_step"], unit),
        training=_training(log, receipt, recipe, unit),
        shown=_shown(list(folder.read_lines("predictions.jsonl")), evaluation, names, recipe.seed),
        findings=[_finding(finding) for finding in folder.read_json("data.json")["findings"]],
        rows=receipt["rows"],
        costs=_costs(receipt, folder),
        versions=receipt["versions"],
        data=receipt["data"],
        seed=receipt["seed"],
        path=shlex.quote(str(folder.path)),
        commands=usage.COMMANDS,
        with_pegbox=usage.with_pegbox(recipe, receipt),
        without_pegbox=usage.without_pegbox(recipe, receipt),
        libraries="Transformers and PEFT" if isinstance(recipe.method, Lora) else "Transformers",
    )


def _about(receipt: Mapping[str, Any], recipe: Recipe) -> str:
    began = str(receipt["began"]).replace("T", " ").removesuffix("+00:00") + " UTC"
    return f"{recipe.task.kind} · {_method(recipe)} · {began}"


def _method(recipe: Recipe) -> str:
    method = recipe.method
    if not isinstance(method, Lora):
        return "full fine-tuning"
    kind = "rsLoRA" if method.use_rslora else "LoRA"
    return f"{kind}, r {method.r}, lora_alpha {2.0 * method.r if method.lora_alpha is None else method.lora_alpha:g}"


def _metrics(evaluation: Mapping[str, Any]) -> list[str]:
    """Every metric that some system has, the primary first."""
    known = [name for system in evaluation["systems"].values() for name in system]
    return list(dict.fromkeys([evaluation["primary"], *known]))


def _systems(evaluation: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The table: a row per system, a cell per metric (None where the system cannot have it)."""
    metrics = _metrics(evaluation)
    table = []
    for system in wording.ranked(evaluation):
        found = evaluation["systems"][system]
        cells = [
            (wording.number(found[m]["value"], m), wording.bounds(found[m], m)) if m in found else None for m in metrics
        ]
        told = wording.EXPLANATIONS.get(system, "")
        table.append({"key": system, "name": names[system], "told": told, "cells": cells, "tuned": system == TUNED})
    return {"heads": [(wording.metric_name(m), wording.scale(m)) for m in metrics], "rows": table}


def _comparisons(evaluation: Mapping[str, Any], names: Mapping[str, str]) -> list[tuple[str, str, str, str]]:
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


def _notes(
    evaluation: Mapping[str, Any], receipt: Mapping[str, Any], recipe: Recipe, names: Mapping[str, str]
) -> list[str]:
    """What else a careful reader asks about the numbers."""
    rows, test, scored = evaluation["rows"], receipt["rows"]["test"], receipt["test_scored"]
    drawn = (
        f"{rows:,} of {test:,} test rows, drawn with seed {recipe.seed}" if rows < test else f"All {test:,} test rows"
    )
    notes = [f"{drawn}, scored {'once' if scored == 1 else f'{scored} times'} so far. Intervals are 95 %."]
    if evaluation["units"] < rows:
        notes.append(f"Rows that belong together are resampled as one: {evaluation['units']:,} groups.")
    if signature := evaluation.get("signature"):
        notes.append(f"{wording.metric_name(evaluation['primary'])} was computed as {signature}.")
    close = {names[name]: count for name, count in evaluation.get("close_calls", {}).items() if count}
    if close:
        listed = ", ".join(f"{name} {count:,}" for name, count in close.items())
        notes.append(f"Answers in which two tokens were as good as equally likely: {listed}.")
    return notes


def _training(
    log: Sequence[Mapping[str, Any]], receipt: Mapping[str, Any], recipe: Recipe, unit: str
) -> list[tuple[str, str]]:
    """What was trained, and how."""
    plan, train = receipt["plan"], recipe.train
    done = max((line["step"] for line in log), default=0)
    best = receipt["best_validation_loss"]
    lowest = (
        "no validation loss was finite" if best is None else f"validation loss {best:.4g} nats per {unit}, the lowest"
    )
    share = 100 * plan["trainable_parameters"] / plan["parameters"]
    return [
        ("Method", _method(recipe)),
        ("Parameters that learnt", f"{plan['trainable_parameters']:,} of {plan['parameters']:,} ({share:.3g} %)"),
        ("Updates", f"{done:,} of {plan['updates']:,} planned, {train.batch_size} rows each"),
        ("Learning rate", f"{train.learning_rate:g}, {train.lr_scheduler_type}"),
        ("Chosen checkpoint", f"update {receipt['chosen_step']:,} ({lowest})"),
    ]


def _costs(receipt: Mapping[str, Any], folder: RunFolder) -> list[tuple[str, str]]:
    """Time, tokens, memory, machine."""
    spent, memory, hardware = receipt["seconds"], receipt["peak_memory"], receipt["hardware"]
    updates = sum(line["seconds"] for line in folder.read_lines("timing.jsonl"))
    speed = f", {receipt['tokens'] / updates:,.0f} a second in updates" if updates else ""
    gpu = f"{hardware['gpu']}, " if "gpu" in hardware else ""
    ranks = f", {hardware['ranks']} processes" if hardware["ranks"] > 1 else ""
    return [
        ("Training", f"{wording.seconds(spent['training'])} (planned: {wording.seconds(receipt['plan']['seconds'])})"),
        ("Evaluation", wording.seconds(spent["evaluation"])),
        ("Tokens trained on", f"{receipt['tokens']:,}{speed}"),
        (
            "Peak memory",
            f"{wording.gibibytes(memory['measured'])} (predicted: {wording.gibibytes(memory['predicted'])})",
        ),
        ("Device", f"{hardware['device']}, {gpu}{hardware['cores']} cores{ranks}; {hardware['platform']}"),
        ("Model from", f"{receipt['model']['name']} ({receipt['model']['source']})"),
    ]


def _finding(finding: Mapping[str, Any]) -> dict[str, Any]:
    named = wording.some(finding["rows"], NAMED)
    return {**finding, "check": finding["check"].replace("_", " "), "named": named}


def _shown(
    lines: Sequence[Mapping[str, Any]], evaluation: Mapping[str, Any], names: Mapping[str, str], seed: int
) -> dict[str, Any]:
    """The dozen rows, and how they were chosen."""
    rival = wording.deciding(evaluation)["against"]
    choice = rows.choose(lines, rows.row_metric(evaluation), rival, seed)
    found, drawn = choice.counts, choice.shown
    better, worse, level = rows.KINDS
    score = "" if choice.metric == evaluation["primary"] else f" in {wording.metric_name(choice.metric)}"
    how = (
        f"Against the {names[rival]}, the tuned model does better{score} on {found[better]:,} of {len(lines):,} test rows, worse "
        f"on {found[worse]:,}, and as well on {found[level]:,}. Shown are {drawn[better]}, {drawn[worse]} and "
        f"{drawn[level]} of these, drawn at random with the run's seed ({seed})."
    )
    order = wording.ranked(evaluation)
    return {"how": how, "rows": [_row(line, kind, scores, order, names, choice) for line, kind, scores in choice.rows]}


def _row(
    line: Mapping[str, Any],
    kind: str,
    scores: Mapping[str, float],
    order: Sequence[str],
    names: Mapping[str, str],
    choice: rows.Choice,
) -> dict[str, Any]:
    answers = []
    for system in order:
        answer = {"name": names[system], "text": _text(line["answers"][system]), "tuned": system == TUNED}
        answers.append(answer | _mark(scores[system], choice))
    reference = None if line["reference"] == line["input"] else _text(line["reference"])
    return {"id": line["id"], "kind": kind, "input": _text(line["input"]), "reference": reference, "answers": answers}


def _mark(score: float, choice: rows.Choice) -> dict[str, str]:
    """How an answer did: right, wrong, or its score."""
    if choice.all_or_nothing:
        return {"mark": "right" if score else "wrong", "tone": "right" if score else "wrong"}
    value = wording.number(score if math.isfinite(score) else None, choice.metric)
    return {"mark": f"{wording.metric_name(choice.metric)} {value}", "tone": "plain"}


def _text(answer: Any) -> dict[str, str]:
    """An answer as text: `short` is its beginning where it is long, and empty where it is not."""
    if answer is None:
        whole = "(no answer)"
    elif isinstance(answer, Mapping) and answer.keys() == {"nll", "tokens"}:
        whole = f"{answer['nll']:,.1f} nats over {answer['tokens']:,} tokens"
    else:
        whole = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    return {"short": whole[:LONG].rstrip() + " …" if len(whole) > LONG else "", "whole": whole or "(empty)"}
