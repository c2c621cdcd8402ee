"""`README.md`: the model card, in the hub's format with its metadata block. From the receipt; nothing in it is invented.

A card is made to be published: it names data files without their folders, and holds no row of them. What the run does not
know (the licence, the language, what the model is fit for) is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import yaml

from pegbox.evaluation.verdict import TUNED
from pegbox.recipe import Lora, Recipe
from pegbox.report import usage, wording
from pegbox.runs.folder import RunFolder

PIPELINE_TAGS = {"classification": "text-classification"}


def card(folder: RunFolder, recipe: Recipe) -> str:
    """The card of a finished run. Raises RecipeError where a file of the run is missing."""
    evaluation, receipt = folder.read_json("evaluation.json"), folder.read_json("receipt.json")
    metadata = yaml.safe_dump(_metadata(folder, recipe, evaluation, receipt), sort_keys=False, allow_unicode=True)
    names = wording.system_names(evaluation, recipe)
    parts = [
        f"---\n{metadata}---",
        f"# {_plain(_title(receipt))}, tuned with pegbox",
        f"**{_plain(wording.headline(evaluation, names))}**",
        wording.explanation(evaluation, names),
        _plain(wording.statistics(evaluation, names)),
        "## Results",
        _table(evaluation, names),
        _how_measured(evaluation, recipe),
        "## What it was made from",
        _made_from(recipe, receipt),
        "## How to use it",
        f"In the folder of this file, with pegbox:\n\n```python\n{usage.with_pegbox(recipe, receipt)}\n```",
        f"Without it:\n\n```python\n{usage.without_pegbox(recipe, receipt)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _title(receipt: Mapping[str, Any]) -> str:
    """The model's name without the folder it lies in."""
    name = str(receipt["model"]["name"])
    return name if _is_on_hub(receipt) else PurePath(name).name


def _is_on_hub(receipt: Mapping[str, Any]) -> bool:
    """Whether the name is one of the hub's, wherever the files came from."""
    return str(receipt["model"]["source"]).startswith(("hub", "package"))


def _metadata(
    folder: RunFolder, recipe: Recipe, evaluation: Mapping[str, Any], receipt: Mapping[str, Any]
) -> dict[str, Any]:
    """The block that the hub reads."""
    adapter = isinstance(recipe.method, Lora)
    base = {"base_model": receipt["model"]["name"], "base_model_relation": "adapter" if adapter else "finetune"}
    return {
        **(base if _is_on_hub(receipt) else {}),
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": PIPELINE_TAGS.get(recipe.task.kind, "text-generation"),
        "tags": ["pegbox", recipe.task.kind, recipe.method.kind],
        "model-index": [{"name": folder.path.resolve().name, "results": [_result(recipe, evaluation, receipt)]}],
    }


def _result(recipe: Recipe, evaluation: Mapping[str, Any], receipt: Mapping[str, Any]) -> dict[str, Any]:
    """The tuned model's values on the test rows; a value that is not finite cannot be stated there."""
    files = recipe.data.train if isinstance(recipe.data.test, float) else recipe.data.test
    metrics = [
        {"type": metric, "name": f"{wording.metric_name(metric)}, 95 % interval {wording.bounds(found, metric)}"}
        | {"value": found["value"], "verified": False}
        for metric, found in evaluation["systems"][TUNED].items()
        if found["value"] is not None
    ]
    return {
        "task": {"type": PIPELINE_TAGS.get(recipe.task.kind, "text-generation"), "name": recipe.task.kind},
        "dataset": {
            "type": "local",
            "name": ", ".join(PurePath(file).name for file in files),
            "split": "test",
            "args": {"rows": evaluation["rows"], "sha256": list(receipt["data"].values())},
        },
        "metrics": metrics,
    }


def _plain(text: str) -> str:
    """Text of unknown origin as Markdown that shows it and does nothing else."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*_{}\[\]<>#|~&!])", r"\\\1", line)


def _table(evaluation: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Every system and metric, with intervals."""
    known = [name for system in evaluation["systems"].values() for name in system]
    metrics = list(dict.fromkeys([evaluation["primary"], *known]))
    lines = [
        ["system", *(f"{wording.metric_name(m)} ({wording.scale(m)})" for m in metrics)],
        ["---"] * (len(metrics) + 1),
    ]
    for system in wording.ranked(evaluation):
        found = evaluation["systems"][system]
        cells = [
            f"{wording.number(found[m]['value'], m)} ({wording.bounds(found[m], m)})" if m in found else ""
            for m in metrics
        ]
        lines.append([names[system], *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _how_measured(evaluation: Mapping[str, Any], recipe: Recipe) -> str:
    return (
        f"Measured on {wording.size(evaluation)} that were held out, all systems on the same rows, with 95 % intervals. "
        f"The verdict is on {wording.metric_name(evaluation['primary'])}, fixed before training. "
        "Of other data than these nothing is known."
    )


def _made_from(recipe: Recipe, receipt: Mapping[str, Any]) -> str:
    """The facts of the receipt, as a list."""
    plan, rows, versions = receipt["plan"], receipt["rows"], receipt["versions"]
    facts = [
        f"Base model: {_plain(_title(receipt))} (from: {_plain(str(receipt['model']['source']))})",
        f"Task: {recipe.task.kind}; method: {recipe.method.kind}, {plan['trainable_parameters']:,} of "
        f"{plan['parameters']:,} parameters learnt",
        f"Rows: {', '.join(f'{count:,} for {name}' for name, count in rows.items())}",
        *(f"Data: {_plain(PurePath(name).name)}, SHA-256 `{digest}`" for name, digest in receipt["data"].items()),
        *(f"Model file: {_plain(name)}, SHA-256 `{digest}`" for name, digest in receipt["model_files"].items()),
        f"Chosen checkpoint: update {receipt['chosen_step']:,}; {receipt['tokens']:,} tokens trained on in "
        f"{wording.seconds(receipt['seconds']['training'])} on {receipt['hardware'].get('gpu', receipt['hardware']['device'])}",
        f"Seed: {receipt['seed']}; versions: {', '.join(f'{name} {version}' for name, version in versions.items())}",
    ]
    return "\n".join(f"- {fact}" for fact in facts)
