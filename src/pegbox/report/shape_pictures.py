"""The pictures of what the rows are like: a bar for each name, and a histogram of lengths with the limit marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from pegbox.report.pictures import (
    INK,
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

ROW, THICK = 34, 9  # units of a name with its bar, and of the bar
HEIGHT = 210
MARKS = 5  # numbers below a histogram, at most
TOLD = 3  # names or bins in the words for those who cannot see the picture


def bars(counts: Sequence[tuple[str, int]], name: str, title: str) -> Markup:
    """A bar a name, in the given order."""
    height, most = ROW * len(counts) + 4, max(max(count for _, count in counts), 1)
    with canvas(height) as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, WIDTH)
        axes.set_ylim(height, 0)
        for place, (label, count) in enumerate(counts):
            top = ROW * place + 2
            axes.text(0, top + 9, fitting(label, 40), color=INK, va="center", parse_math=False)
            axes.text(WIDTH, top + 9, f"{count:,}", color=INK, va="center", ha="right")
            _bar(axes, (0, top + 19, max(WIDTH * count / most, 1), THICK), TUNED_COLOUR)
        told = "; ".join(f"{label} {count:,}" for label, count in counts[:TOLD])
        more = f"; and {len(counts) - TOLD} more" if len(counts) > TOLD else ""
        return inline(figure, name, f"{title}: {told}{more}")


def histogram(found: Mapping[str, Any], name: str, unit: str, limit: int | None = None) -> Markup:
    """Bars of equal width for bins of `edges` and `counts`; those beyond the limit in another colour, after a line."""
    used = [place for place, count in enumerate(found["counts"]) if count]
    if limit is not None:  # the bin that the limit ends is shown even where no row is so long
        used.append(found["edges"].index(limit + 1) - 1)
    first, last = (min(used), max(used)) if used else (0, 0)
    edges, counts = found["edges"][first : last + 1], found["counts"][first : last + 1]
    with canvas(HEIGHT) as figure:
        axes = figure.add_axes((0.02, 0.24, 0.96, 0.58))
        for place, (edge, count) in enumerate(zip(edges, counts, strict=True)):
            beyond = limit is not None and edge > limit
            _bar(axes, (place + 0.06, 0, 0.88, count), WRONG_COLOUR if beyond else RIVAL_COLOUR)
        axes.set_xlim(0, len(edges))
        axes.set_ylim(0, 1.05 * max(*counts, 1))
        _marks(axes, edges, unit)
        axes.text(0, 1.12, f"rows (at most {max(counts):,} in a bar)", transform=axes.transAxes, color=MUTED)
        if limit is not None:
            _limit(axes, limit, sum(edge <= limit for edge in edges), len(edges))
        return inline(figure, name, _told(edges, counts, unit, limit))


def _bar(axes: Axes, place: tuple[float, float, float, float], colour: str) -> None:
    from matplotlib.patches import Rectangle

    x, y, width, height = place
    axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, linewidth=0))


def _marks(axes: Axes, edges: Sequence[int], unit: str) -> None:
    """Where some of the bins begin."""
    places = range(0, len(edges), -(-len(edges) // MARKS))
    axes.set_xticks(list(places), [f"{edges[place]:,}" for place in places])
    axes.set_xlabel(f"{unit}, each bar from its number on")
    axes.yaxis.set_visible(False)
    axes.spines["left"].set_visible(False)


def _limit(axes: Axes, limit: int, at: int, bins: int) -> None:
    axes.axvline(at, color=INK, linewidth=1, linestyle=(0, (4, 3)), clip_on=False)
    words: dict[str, Any] = {"ha": "right" if 2 * at > bins else "left", "va": "bottom", "color": INK}
    axes.text(at, axes.get_ylim()[1], f" limit {limit:,} ", **words)


def _told(edges: Sequence[int], counts: Sequence[int], unit: str, limit: int | None) -> str:
    most = sorted(range(len(counts)), key=lambda place: -counts[place])[:TOLD]
    found = [f"{counts[place]:,} rows from {edges[place]:,} {unit} on" for place in sorted(most) if counts[place]]
    marked = f"; the limit of {limit:,} is marked" if limit is not None else ""
    return f"Histogram of {unit}: most are {', '.join(found) or 'none'}{marked}"
