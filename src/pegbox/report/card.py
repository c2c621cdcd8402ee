"""`README.md`: the model card, in the hub's format with its metadata block. From the receipt; nothing in it is invented.

A card is made to be published: it names data files without their folders, and holds no row of them, nor a message of the
doctor's, which may quote one. What the run does not know (the language, what the model is meant for) is left out or said
to be unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from pegbox import samples
from pegbox.evaluation.calibration import ERROR
from pegbox.evaluation.overfitting import Parting, parting
from pegbox.evaluation.verdict import TUNED
from pegbox.recipe import Recipe
from pegbox.recipe.sources import SampleSource
from pegbox.report import curve_words, groups, usage, wording
from pegbox.report.card_metadata import is_on_hub, metadata_block
from pegbox.report.metric_words import metric_name
from pegbox.report.task_words import note_of, words_of
from pegbox.runs.folder import RunFolder


def card(folder: RunFolder, recipe: Recipe) -> str:
    """The card of a finished run. Raises RecipeError where a file of the run is missing."""
    evaluation, receipt = folder.read_json("evaluation.json"), folder.read_json("receipt.json")
    findings = folder.read_json("data.json")["findings"]
    names = wording.system_names(evaluation, receipt)
    parts = [
        metadata_block(folder.path.resolve().name, recipe, evaluation, receipt),
        f"# {_plain(_title(receipt))}, tuned with pegbox",
        f"**{_plain(wording.headline(evaluation, names))}**",
        wording.explanation(evaluation, names),
        _plain(wording.statistics(evaluation, names)),
        "## Results",
        _table(evaluation, names),
        _how_measured(evaluation, receipt),
        "## Limitations",
        _limitations(evaluation, receipt, findings, names),
        "## Licence",
        _licence(recipe, receipt),
        "## What it was made from",
        _made_from(recipe, receipt, parting(folder.read_lines("metrics.jsonl"))),
        "## How to use it",
        f"In the folder of this file, with pegbox:\n\n```python\n{usage.with_pegbox(recipe, receipt)}\n```",
        f"Without it:\n\n```python\n{usage.without_pegbox(recipe, receipt)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _title(receipt: Mapping[str, Any]) -> str:
    """The model's name without the folder it lies in."""
    name = str(receipt["model"]["name"])
    return name if is_on_hub(receipt) else PurePath(name).name


def _plain(text: str) -> str:
    """Text of unknown origin as Markdown that shows it and does nothing else."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*_{}\[\]<>#|~&!])", r"\\\1", line)


def _table(evaluation: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Every system and metric, with intervals."""
    known = [name for system in evaluation["systems"].values() for name in system]
    metrics = list(dict.fromkeys([evaluation["primary"], *known]))
    lines = [
        ["system", *(f"{metric_name(m, evaluation['task'])} ({wording.scale(m, evaluation)})" for m in metrics)],
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


def _how_measured(evaluation: Mapping[str, Any], receipt: Mapping[str, Any]) -> str:
    note = note_of(evaluation["task"], receipt.get("task", {}))
    return (
        f"Measured on {wording.size(evaluation)} that were held out, all systems on the same rows, with 95 % intervals. "
        f"The verdict is on {metric_name(evaluation['primary'], evaluation['task'])}, fixed before training. "
        f"{f'{note} ' if note else ''}Of other data than these nothing is known."
    )


def _limitations(
    evaluation: Mapping[str, Any],
    receipt: Mapping[str, Any],
    findings: Sequence[Mapping[str, Any]],
    names: Mapping[str, str],
) -> str:
    """What bounds the claim, as far as it was measured or counted."""
    scored, close = receipt["test_scored"], evaluation.get("close_calls", {}).get(TUNED, 0)
    facts = [
        *([NOT_BETTER[evaluation["verdict"]]] if evaluation["verdict"] in NOT_BETTER else []),
        *(["Examples in the prompt of the untouched model do as well."] if evaluation["prompting_is_as_good"] else []),
        f"All figures are of {wording.size(evaluation)} of one data set, which "
        f"{'was' if scored == 1 else 'were'} scored {'once' if scored == 1 else f'{scored:,} times'}.",
        *([f"{close:,} of the tuned model's answers to them hung on less than rounding."] if close else []),
        *map(_plain, _of_labels(evaluation)),
        *([_plain(told)] if (told := groups.card_line(evaluation, names)) else []),
        *(_finding(found) for found in findings),
        *(["The check of the rows before training found nothing to tell."] if not findings else []),
        f"{words_of(evaluation['task']).unmeasured} What the model is meant for, the run does not say.",
    ]
    return "\n".join(f"- {fact}" for fact in facts)


def _of_labels(evaluation: Mapping[str, Any]) -> list[str]:
    """The label that is told worst, and how far probabilities can be trusted."""
    told = []
    if known := {k: v for k, v in evaluation.get("per_class", {}).get(TUNED, {}).items() if v["support"]}:
        worst = min(known, key=lambda label: (known[label]["f1"], label))
        found = known[worst]
        told.append(
            f"Of {len(known)} labels the worst is {worst}, of which the test has {found['support']:,.0f}: precision "
            f"{found['precision']:.3f}, recall {found['recall']:.3f}, F1 {found['f1']:.3f}."
        )
    if (sure := evaluation.get("calibration")) is not None:
        told.append(
            f"Its probabilities, at the temperature {sure['temperature']:.3g} that was set on validation rows, have a "
            f"calibration error of {wording.number(sure['after']['value'], ERROR)}, 95 % interval "
            f"{wording.bounds(sure['after'], ERROR)}; without the temperature it is "
            f"{wording.number(sure['before']['value'], ERROR)}."
        )
    return told


NOT_BETTER = {
    "worse": "By the verdict the tuned model is worse than what it was made from.",
    "not shown": "By the verdict it is not shown that tuning helped.",
}


def _finding(found: Mapping[str, Any]) -> str:
    """What the doctor found, counted."""
    rows = f"{found['count']:,} row{'' if found['count'] == 1 else 's'}"
    return f"The check of the rows before training found: {found['check'].replace('_', ' ')}, {rows} ({found['severity']})."


def _licence(recipe: Recipe, receipt: Mapping[str, Any]) -> str:
    return "\n\n".join([_of_model(receipt["model"].get("licence")), *_of_rows(recipe)])


def _of_model(known: Mapping[str, str] | None) -> str:
    if known is None:
        return "The licence of the base model is not known to pegbox; none is stated here."
    more = "".join(f", {key}: {_plain(known[key])}" for key in ("name", "link") if key in known)
    return (
        f"The base model's licence is {_plain(known['id'])}{more} (read from: {_plain(known['source'])}). It is stated "
        "above as that of this model."
    )


def _of_rows(recipe: Recipe) -> Iterator[str]:
    """Of samples the licence, and whom it wants named; of other rows that it is not known."""
    given = [source for sources in recipe.data.given.values() for source in sources]
    named = dict.fromkeys(source.name for source in given if isinstance(source, SampleSource))
    for name in named:
        if (known := samples.SAMPLES.get(name)) is not None:
            yield f"The rows `{name}` come from {_plain(known.package)}, under {known.licence}: {_plain(known.attribution)}."
    if not all(isinstance(source, SampleSource) for source in given):
        rows = "other rows" if named else "rows"
        yield f"The licence of the {rows} that the model was tuned on is not known to pegbox."


def _made_from(recipe: Recipe, receipt: Mapping[str, Any], parted: Parting | None) -> str:
    """The facts of the receipt, as a list, and where training and validation part."""
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
        *([] if parted is None else [curve_words.card_line(parted, receipt["chosen_step"])]),
        f"Seed: {receipt['seed']}; versions: {', '.join(f'{name} {version}' for name, version in versions.items())}",
    ]
    return "\n".join(f"- {fact}" for fact in facts)
