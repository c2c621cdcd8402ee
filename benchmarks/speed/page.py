"""`speed.md` from a run's JSON: the targets and what was reached, a table for each workload, the machine. Nothing is typed.

Beside the JSON a page and a picture are written for looking at; what people wrote under the last heading of speed.md stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from speed.figures import apart
from speed.targets import US, lines

from pegbox.report import page as report
from speed import chart

WRITTEN = "## What it says"
UNWRITTEN = "*To be written from the figures above.*"
COLUMNS = (
    *("", "tokens/s (spread)", "of the floor", f"{US} is faster by", "peak memory", "first update after"),
    "loss of held-out rows, by seed",
)
PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{{ title }}</title><style>{{ style }}</style></head>
<body><header><h1>{{ title }}</h1><p class="quiet">{{ machine }}</p></header>
<main>{% for name, one in workloads.items() %}<section><h2>{{ name }}</h2><p>{{ one.about }}</p>
<figure>{{ one.picture }}</figure>
<table class="wide"><thead><tr>{% for head in columns %}<th scope="col">{{ head }}</th>{% endfor %}</tr></thead><tbody>
{% for row in one.rows %}<tr>{% for cell in row %}<td class="words">{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></section>
{% endfor %}</main></body></html>
"""


def write(found: Mapping[str, Any], folder: Path) -> None:
    """Everything that a whole run leaves in `benchmarks/`."""
    name = f"speed-{found['date']}-{found['hardware']['device']}"
    results, text = folder / "results", folder / "speed.md"
    (results / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (results / f"{name}.html").write_text(html(found), encoding="utf-8")
    chart.save(results / f"{name}.png", _drawn(found))
    before = text.read_text(encoding="utf-8") if text.is_file() else ""
    text.write_text(markdown(found, before, f"results/{name}"), encoding="utf-8")


def markdown(found: Mapping[str, Any], before: str, files: str) -> str:
    """The page. `before`: the page as it was; `files`: where JSON, page and picture lie, without their endings."""
    kept = before.partition(WRITTEN)[2].strip() or UNWRITTEN
    told = [
        "# Speed",
        "",
        f"Made by `make bench` from [the figures]({files}.json) of {found['date']}; [as a page]({files}.html). {machine(found)}",
        "",
        f"![tokens a second of everybody]({files}.png)",
        "",
        "| asked | of | reached | |",
        "|---|---|---|---|",
        *_targets(found),
    ]
    for name, one in found["workloads"].items():
        told += ["", f"## {name}", "", f"{one['about']}. {_rows(one['rows'])}", "", *_table(one)]
        told += [f"\n**{peer}** did not run: {why}" for peer, why in one["failed"].items()]
    return "\n".join([*told, "", _settings(found), "", WRITTEN, "", kept]) + "\n"


def html(found: Mapping[str, Any]) -> str:
    """The page for looking at, all in one file."""
    every = {
        name: {
            "about": one["about"],
            "picture": chart.inline(name, one["figures"]),
            "rows": list(_cells(one["figures"])),
        }
        for name, one in found["workloads"].items()
    }
    style = Markup((report.TEMPLATES / "style.css").read_text(encoding="utf-8"))
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(PAGE)
    title = f"Speed, {found['date']}"
    return template.render(title=title, style=style, machine=machine(found), workloads=every, columns=COLUMNS)


def machine(found: Mapping[str, Any]) -> str:
    """What it ran on, in a sentence."""
    one, versions = found["hardware"], found["versions"]
    gpu = f"{one['gpu']}, " if "gpu" in one else ""
    packages = ", ".join(
        f"{name} {versions[name]}" for name in ("torch", "transformers", "peft", "trl") if name in versions
    )
    return (
        f"{gpu}{one['processor']}, {one['cores']} cores ({', '.join(one.get('flags', ()))}),"
        f" {one['memory'] / 1e9:.0f} GB; {packages}; {found['seconds'] / 60:.0f} minutes in all."
    )


def _targets(found: Mapping[str, Any]) -> Iterator[str]:
    for target, value in lines(found["workloads"]):
        sign = "at most" if target.at_most else "at least"
        said = "reached" if target.reached(value) else "**not reached**"
        yield f"| {target.what}: {sign} {target.asked:g} | {target.workload} | {value:.3g} | {said} |"


def _rows(one: Mapping[str, Any]) -> str:
    return (
        f"Rows of {one['tokens_per_row']:.0f} tokens on average, {one['tokens_per_update']:,.0f} an update, of which"
        f" {one['learnt_per_update']:,.0f} are learnt; {100 * one['share_not_padding']:.0f} % of a padded batch of eight is"
        f" no padding; the first {one['shared_prefix']} tokens are the same in all rows."
    )


def _table(one: Mapping[str, Any]) -> Iterator[str]:
    yield f"| {' | '.join(COLUMNS)} |"
    yield f"|{'---|' * len(COLUMNS)}"
    yield from (f"| {' | '.join(row)} |" for row in _cells(one["figures"]))
    floor = one["figures"]["floor"]
    yield f"| *the floor* | {_rate(floor)} | {floor['flops_per_second'] / 1e9:,.0f} GFLOP/s | | | | |"


def _cells(figures: Mapping[str, Any]) -> Iterator[list[str]]:
    """A row of the table for each peer."""
    ours = figures.get(US)
    for name, one in figures.items():
        if name == "floor":
            continue
        losses = ", ".join(f"{loss:.5f}" for loss in one["evaluation_loss"])
        beside = f" ({apart(ours, one):.1e} apart)" if ours and name != US else ""
        faster = ours["tokens_per_second"]["value"] / one["tokens_per_second"]["value"] if ours else 1.0
        yield [
            name,
            _rate(one["tokens_per_second"]),
            f"{100 * one['share_of_floor']:.0f} %",
            "" if name == US or not ours else f"{faster:.2f}",
            f"{one['peak_memory'] / 1e9:.1f} GB",
            f"{one['first_step']:.0f} s",
            losses + beside,
        ]


def _rate(one: Mapping[str, float]) -> str:
    return f"{one['value']:,.0f} ({one['low']:,.0f} .. {one['high']:,.0f})"


def _drawn(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one["figures"] for name, one in found["workloads"].items()}


def _settings(found: Mapping[str, Any]) -> str:
    return (
        "Everybody takes the same updates: the same rows in the same order, LoRA of rank 16 (alpha 32) on all linear layers"
        " unless all weights learn, AdamW (fused), the same rate, decay and clipping, the loss of the learnt tokens alone, in"
        " float32 on a CPU, from the same weights; the allocator's settings are pegbox's in every process, and nobody"
        " recomputes activations. *sorted*: the rows of an update by length, so that less is padded; *packed*: TRL's own"
        f" best-fit packing of an update's rows. Each run is a process of its own; `{found['command']}`."
    )
