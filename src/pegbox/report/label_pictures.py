"""The pictures of labels: the confusion matrix, and the reliability diagram (Guo et al. 2017, arXiv 1706.04599).

A cell's shade is its share of the row's test rows, never darker than letters on it can be read; its number is their
count. The diagonal lies where right and said label are the same, so that no colour is needed to find it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pegbox.report.pictures import (
    INK,
    LINE,
    MUTED,
    RIVAL_COLOUR,
    TUNED_COLOUR,
    WIDTH,
    WRONG_COLOUR,
    canvas,
    fitting,
    inline,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LETTER = 8.3  # units that a letter takes at most, on average over a name
BROAD = 760  # units of a picture for wide windows alone
HEAD = 44  # units above the cells
DARKEST, LIGHTEST = 0.45, 0.12  # shades of a whole row, and of a single one of many rows
SIZE = 13  # of letters
LOOKS = {"before": (RIVAL_COLOUR, "none"), "after": (TUNED_COLOUR, TUNED_COLOUR)}  # edge and face


def confusion(labels: Sequence[str], matrix: NDArray[np.int64], rest: bool, *, broad: bool = False) -> Markup:
    """int [C, C]: rows of each label (down) that were taken for each (across). `rest`: the last is several labels as one."""
    width = BROAD if broad else WIDTH
    letters = min(24 if broad else 15, max(map(_length, labels)))
    cell_width = min((width - LETTER * (letters + 3) - 4) / len(labels), 120)
    cell_height = max(20.0, min(cell_width, 44))
    left, height = width - cell_width * len(labels) - 2, HEAD + cell_height * len(labels) + 2
    numbered = any(_length(label) * LETTER > cell_width - 4 for label in labels)
    names = [f"{place} {fitting(label, letters)}" if numbered else label for place, label in enumerate(labels, start=1)]
    heads = [str(place) for place in range(1, len(labels) + 1)] if numbered else labels
    with canvas(height, width) as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        _heads(axes, left, cell_width, cell_height, names, heads)
        counts = max((len(f"{count:,}") for count in matrix.flat), default=1)
        size = min(SIZE, (cell_width - 3) / (0.6 * counts))
        for row, said in zip(*np.nonzero(matrix), strict=True):
            colour = RIVAL_COLOUR if rest and row == said == len(labels) - 1 else WRONG_COLOUR
            colour = TUNED_COLOUR if row == said and colour is WRONG_COLOUR else colour
            place = (left + said * cell_width, HEAD + row * cell_height, cell_width, cell_height)
            _cell(axes, place, int(matrix[row, said]), matrix[row, said] / matrix[row].sum(), colour, size)
        name = "confusion-broad" if broad else "confusion"
        return inline(figure, name, _told_confusion(labels, matrix))


def _length(label: str) -> int:
    return len(fitting(label, 99))


def _heads(axes: Axes, left: float, width: float, height: float, names: Sequence[str], heads: Sequence[str]) -> None:
    """What rows and columns are, their names, and the frame of each row."""
    right = left + width * len(names)
    words: dict[str, Any] = {"va": "center", "parse_math": False}
    axes.text(0, 30, "right label", color=MUTED, **words)
    axes.text(right, 9, "label said", color=MUTED, ha="right", **words)
    for place, (name, head) in enumerate(zip(names, heads, strict=True)):
        top = HEAD + place * height
        axes.text(0, top + height / 2, name, color=INK, **words)
        axes.text(left + (place + 0.5) * width, 30, head, color=INK, ha="center", **words)
        axes.plot([0, right], [top, top], color=LINE, linewidth=0.8)
        axes.plot([left + place * width] * 2, [HEAD, HEAD + height * len(names)], color=LINE, linewidth=0.8)
    axes.plot([0, right, right], [HEAD + height * len(names)] * 2 + [HEAD], color=LINE, linewidth=0.8)


def _cell(
    axes: Axes, place: tuple[float, float, float, float], count: int, share: float, colour: str, size: float
) -> None:
    """One cell that has rows: its shade, their number, and where there is room their share."""
    from matplotlib.patches import Rectangle

    x, y, width, height = place
    shade = LIGHTEST + (DARKEST - LIGHTEST) * share
    axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, alpha=shade, linewidth=0))
    words: dict[str, Any] = {"ha": "center", "va": "center", "color": INK, "size": size}
    if width < 5 * LETTER or height < 40:
        axes.text(x + width / 2, y + height / 2, f"{count:,}", **words)
        return
    axes.text(x + width / 2, y + 0.3 * height, f"{count:,}", **words)
    axes.text(x + width / 2, y + 0.72 * height, f"{100 * share:.0f} %", **words)


def _told_confusion(labels: Sequence[str], matrix: NDArray[np.int64]) -> str:
    """The most frequent confusions in words."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:3]
    pairs = [divmod(int(place), len(labels)) for place in order]
    found = [f"{labels[a]} for {labels[b]} {wrong[a, b]:,} times" for a, b in pairs if wrong[a, b]]
    return (
        f"Confusion matrix of {len(labels)} labels, {int(np.trace(matrix)):,} of {int(matrix.sum()):,} rows on its diagonal. "
        f"Most often taken: {'; '.join(found) or 'none'}"
    )


def reliability(sides: Mapping[str, Sequence[Mapping[str, Any]]], errors: Mapping[str, str]) -> Markup:
    """How often answers are right by how sure the model is of them, before and after the temperature."""
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    height = 400
    with canvas(height) as figure:
        axes = figure.add_axes((0.14, 48 / height, 0.79, 292 / height))
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        most = max(bin["rows"] for bins in sides.values() for bin in bins)
        for side, bins in sides.items():
            colour, face = LOOKS[side]
            x, y = [bin["sure"] for bin in bins], [bin["right"] for bin in bins]
            areas = [25 + 200 * bin["rows"] / most for bin in bins]
            axes.plot(x, y, color=colour, linewidth=1)
            axes.scatter(x, y, s=areas, facecolor=face, edgecolor=colour, linewidth=2, clip_on=False, zorder=3)
            axes.plot([], [], "o", color=colour, markerfacecolor=face, markeredgewidth=2, markersize=8, label=side)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MultipleLocator(0.2))
            axis.set_major_formatter(FuncFormatter(lambda at, _: f"{100 * at:.0f} %"))
        axes.tick_params(axis="x", pad=8)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.grid(linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel("how sure the model is of its answer")
        axes.text(-0.15, 1.07, "answers that are right", transform=axes.transAxes, color=MUTED, va="center")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.19, 1.1), ncols=2, frameon=False, borderpad=0, handletextpad=0)
        told = "; ".join(f"{side} the temperature, the error is {error}" for side, error in errors.items())
        return inline(figure, "reliability", f"Reliability diagram: {told}")
