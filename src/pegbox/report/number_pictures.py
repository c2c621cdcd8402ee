"""The picture of numbers: answers against right values, tuned beside its rival, on the same scales."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from pegbox.metrics import FloatArray
from pegbox.report.pictures import INK, MUTED, RIVAL_COLOUR, TUNED_COLOUR, WIDTH, canvas, fitting, inline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRAWN = 400  # rows, at most: more would hide one another
HEIGHT, BELOW, LEFT, SIDE, APART = 250, 46, 60, 158, 176  # units: of the picture, around and between its two panels
PLAIN = (1e-3, 1e5)  # numbers of this size are written as they are, others as so many times a power of ten
NEAR = 1e-3  # numbers that lie within this share of their size are written from the lowest on


def scatter(said: Mapping[str, FloatArray], right: FloatArray, target: str, name: str, seed: int) -> Markup:
    """A panel for each of two systems' answers [n] to the right values [n]; `name`: of the picture."""
    rows = np.arange(len(right))
    if len(rows) > DRAWN:
        rows = np.sort(np.random.default_rng(seed).choice(len(right), DRAWN, replace=False))
    finite = np.concatenate([values[rows][np.isfinite(values[rows])] for values in (right, *said.values())])
    base, power = _scale(float(finite.min()), float(finite.max()))
    ends = ((float(finite.min()) - base) / 10.0**power, (float(finite.max()) - base) / 10.0**power)
    with canvas(HEIGHT) as figure:
        for place, (system, values) in enumerate(said.items()):
            axes = figure.add_axes(((LEFT + APART * place) / WIDTH, BELOW / HEIGHT, SIDE / WIDTH, SIDE / HEIGHT))
            axes.plot(ends, ends, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
            x, y = (right[rows] - base) / 10.0**power, (values[rows] - base) / 10.0**power
            colour = RIVAL_COLOUR if place else TUNED_COLOUR
            axes.plot(x, y, "o", color=colour, markersize=3.5, alpha=0.55, markeredgewidth=0)
            _scales(axes, *ends, first=not place)
            axes.text(
                0, 1.06, fitting(system, 19), transform=axes.transAxes, color=INK, weight="normal" if place else "bold"
            )
        if target:
            figure.text(0.005, 0.97, fitting(target, 46), color=INK, va="top", parse_math=False)
        told = "right value" + (f" less {base:.8g}" if base else "") + (f", in 1e{power}" if power else "")
        figure.text(0.57, 0.02, told, color=MUTED, ha="center", va="bottom")
        return inline(figure, name, _told(said, right, target))


def _scale(low: float, high: float) -> tuple[float, int]:
    """How numbers between these are written so that they are short: less the first, in units of 10 to the second."""
    largest = max(abs(low), abs(high))
    base = low if high - low < NEAR * largest else 0.0
    size = high - low if base else largest
    return base, 0 if not size or PLAIN[0] <= size < PLAIN[1] else math.floor(math.log10(size))


def _scales(axes: Axes, low: float, high: float, *, first: bool) -> None:
    """The same ends and marks across and up; both panels share what stands at the first."""
    from matplotlib.ticker import MaxNLocator

    spread = 0.05 * ((high - low) or 1.0)
    marks = [mark for mark in MaxNLocator(3).tick_values(low, high) if low - spread <= mark <= high + spread]
    decimals = max(0, -math.floor(math.log10(marks[1] - marks[0]))) if len(marks) > 1 else 3
    labels = [f"{mark:.{decimals}f}" for mark in marks]
    axes.set_xticks(marks, labels)
    axes.set_yticks(marks, labels if first else [])
    axes.set_xlim(low - spread, high + spread)
    axes.set_ylim(low - spread, high + spread)
    axes.grid(linewidth=0.6)
    axes.set_axisbelow(True)


def _told(said: Mapping[str, FloatArray], right: FloatArray, target: str) -> str:
    """How far the answers of each lie from the right values."""
    found = [
        f"{name}: half of the answers are within {np.median(np.abs(values - right)):.4g}"
        for name, values in said.items()
    ]
    return f"Answers against right values{f' of {target}' if target else ''}. {'; '.join(found)}"
