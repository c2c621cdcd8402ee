"""`benchmarks/methods.md` from `results/methods.json`: the table, and below it what people wrote about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from designs import FULL, METRIC

ORDERING = "## The ordering that the papers report, and this one"
UNWRITTEN = "*To be written from the figures above. Until then this page claims no ordering.*"
COLUMNS = ("method", "learnt beside the head", "macro F1", "minus full", "learning rate", "memory", "training", "file")


def page(found: Mapping[str, Any], before: str) -> str:
    """The page. `before`: the page as it was; what stands under its last heading is kept."""
    kept = before.partition(ORDERING)[2].strip() or UNWRITTEN
    rows = {name: f"{one['rows']:,}" for name, one in found["rows"].items()}
    lines = [
        "# Methods beside each other",
        "",
        f"Made by `benchmarks/methods/study.py` from `results/methods.json`. Model: {found['encoder']}. Task: a tweet ->"
        f" positive, neutral or negative. {rows['train']} rows to learn from, {found['epochs']:g} epochs,"
        f" {rows['validation']} for the best checkpoint, {rows['choice']} for the choice of a learning rate,"
        f" {rows['test']} for the test. Seeds: {', '.join(map(str, found['seeds']))}.",
        "",
        "Macro F1 is the mean over the seeds; in brackets 95 % intervals over test rows and seeds. `minus full`: the paired"
        " difference to full fine-tuning. The head (the pooler and the classifier) learns in every method, and is not"
        " counted. Memory is the most that the process held up to the end of training, of which"
        f" {_megabytes(found['memory_before'])} before it began; time that of training alone; both the median of the seeds."
        " The file is what is saved, without the tokenizer.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
        *(_row(name, one, found["parameters"] - found["head"]) for name, one in found["methods"].items()),
        "",
        "The same rows without training of the encoder: "
        + "; ".join(f"{name.replace('_', ' ')} {_interval(one)}" for name, one in found["rivals"].items())
        + ".",
        *([""] + [f"**{name} failed:** {why}" for name, why in found["failed"].items()] if found["failed"] else []),
        "",
        f"{found['date']}, {found['machine']}: `{found['command']}`",
        "",
        *_grid(found),
        ORDERING,
        "",
        kept,
    ]
    return "\n".join(lines) + "\n"


def _row(name: str, one: Mapping[str, Any], encoder: int) -> str:
    beside = one["beside_head"]
    cells = [
        name,
        f"{beside:,} ({100 * beside / encoder:.3g} %)",
        _interval(one[METRIC]),
        "" if name == FULL else _interval(one["minus_full"], sign="+"),
        f"{one['rate']:g}",
        _megabytes(one["peak_memory"]),
        f"{one['seconds']:.0f} s",
        _megabytes(one["file_bytes"]),
    ]
    return f"| {' | '.join(cells)} |"


def _grid(found: Mapping[str, Any]) -> list[str]:
    """How each rate was chosen."""
    lines = ["## How the learning rates were chosen", ""]
    lines += [
        "Macro F1 on the rows for the choice, of one run with a seed of its own:",
        "",
        "| method | rate: macro F1 |",
    ]
    lines += ["|---|---|"]
    for name, one in found["methods"].items():
        tried = ", ".join(f"{rate:g}: {score:.3f}" for rate, score in ((t["rate"], t["score"]) for t in one["grid"]))
        lines.append(f"| {name} | {tried} |")
    return [*lines, ""]


def _interval(one: Mapping[str, Any], sign: str = "") -> str:
    return f"{one['value']:{sign}.3f} ({one['low']:{sign}.3f} .. {one['high']:{sign}.3f})"


def _megabytes(size: float) -> str:
    megabytes = size / 1e6
    return f"{megabytes:,.0f} MB" if megabytes >= 10 else f"{megabytes:.1f} MB"
