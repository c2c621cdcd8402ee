"""The pictures of a comparison: runs with their intervals, the first run's leads, and the curves over one another.

Each run has a colour and a mark, the same in every picture, so that it is known without colours too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from pegbox.report.pictures import (
    INK,
    MUTED,
    TUNED_COLOUR,
    canvas,
    fitting,
    inline,
    scale_leads,
    scale_losses,
    scale_values,
)
from pegbox.report.wording import SHARES, bounds, difference, difference_bounds, metric_name, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Found = Mapping[str, Any]
COLOURS = tuple(f"#0{place}0{place}0f" for place in range(1, 7))  # templates/comparison.html has a variable for each
MARKS = ("o", "s", "^", "D", "v", "P", "X")  # one more than colours: many runs have more pairs of them
MARGIN = 46  # units below the axes
LETTERS = 48  # that stand beside one another in a picture


def runs(found: Sequence[Found], metric: str, scale: str) -> Markup:
    """The primary metric of every run: a point, and its 95 % interval as a bar. `scale`: what its numbers mean."""
    height = MARGIN + 44 * len(found)
    values = [run["metrics"][metric] for run in found]
    told = "; ".join(
        f"{run['name']} {number(value['value'], metric)} ({bounds(value, metric)})"
        for run, value in zip(found, values, strict=True)
    )
    with canvas(height) as drawn:
        axes = drawn.add_axes((0.02, MARGIN / height, 0.96, 1 - MARGIN / height))
        scale_values(axes, metric, values)
        for place, (run, value) in enumerate(zip(found, values, strict=True)):
            ends = (value["low"], value["value"], value["high"])
            _line(axes, place, run["name"], number(value["value"], metric), ends, *_look(place))
        axes.set_ylim(0.6 - len(found), 0.75)
        axes.set_xlabel(f"{metric_name(metric)} ({scale})")
        return _coloured(inline(drawn, "runs", f"{metric_name(metric)} with 95 % intervals: {told}"))


def leads(pairs: Sequence[Found], first: str, metric: str) -> Markup:
    """How far the first run is ahead of each other one: a point with its 95 % interval, zero being marked."""
    shown = [pair for pair in pairs if pair["run"] == first]
    height = MARGIN + 44 * len(shown)
    told = "; ".join(
        f"{pair['against']} by {difference(pair['difference'], metric)} ({difference_bounds(pair, metric)})"
        for pair in shown
    )
    with canvas(height) as drawn:
        axes = drawn.add_axes((0.02, MARGIN / height, 0.96, 1 - MARGIN / height))
        scale_leads(axes, metric, shown)
        for place, pair in enumerate(shown):
            ends = (pair["low"], pair["difference"], pair["high"])
            axes.plot([0, 0], [-place - 0.3, -place + 0.1], color=INK, linewidth=1)  # not through the names
            lead = difference(pair["difference"], metric)
            _line(axes, place, f"against {pair['against']}", lead, ends, TUNED_COLOUR, "o")
        axes.set_ylim(0.6 - len(shown), 0.75)
        unit = "percentage points" if metric in SHARES else metric_name(metric)
        axes.set_xlabel(f"lead in {unit}; right of 0: ahead")
        return inline(drawn, "leads", f"{first} is ahead of: {told}")


def _look(place: int) -> tuple[str, str]:
    return COLOURS[place % len(COLOURS)], MARKS[place % len(MARKS)]


def _line(axes: Axes, place: int, name: str, told: str, ends: tuple[float | None, ...], colour: str, mark: str) -> None:
    """A name and a number over a line with a point and its interval; an end that is not finite goes to the edge."""
    words: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "color": INK, "parse_math": False}
    axes.text(0.0, 0.22 - place, fitting(name, LETTERS - len(told)), **words)
    axes.text(1.0, 0.22 - place, told, ha="right", **words)
    low, value, high = ends
    if value is None:
        return
    left, right = axes.get_xlim()
    bar = [left if low is None else low, right if high is None else high]
    axes.plot(bar, [-place, -place], color=colour, linewidth=3, solid_capstyle="butt")
    axes.plot([value], [-place], mark, color=colour, markersize=9, clip_on=False)


def curves(found: Sequence[Found], unit: str) -> Markup | None:
    """The validation loss of all runs by update, each chosen one ringed; None where no run has any that is finite."""
    series = [[(step, loss) for step, loss in run["validation"] if loss is not None] for run in found]
    losses = [loss for points in series for _, loss in points]
    if not losses:
        return None
    legend = 20 * len(found)
    height = 270 + legend
    with canvas(height) as drawn:
        axes = drawn.add_axes((0.135, 50 / height, 0.845, 185 / height))
        for place, (run, points) in enumerate(zip(found, series, strict=True)):
            _curve(axes, place, run, points)
        title = f"validation loss, {scale_losses(axes, losses, unit)}"
        axes.text(-0.13, 1 + 10 / 185, title, transform=axes.transAxes, color=MUTED)
        _legend(axes, len(found))
        return _coloured(inline(drawn, "curves", _told(found, series)))


def _curve(axes: Axes, place: int, run: Found, points: Sequence[tuple[int, float]]) -> None:
    """One run's line, its chosen update ringed."""
    colour, mark = _look(place)
    steps, losses = [step for step, _ in points], [loss for _, loss in points]
    axes.plot(steps, losses, f"{mark}-", color=colour, markersize=6, linewidth=1.5, label=fitting(run["name"], LETTERS))
    chosen = [(step, loss) for step, loss in points if step == run["chosen_step"]]
    for step, loss in chosen:
        axes.plot([step], [loss], "o", color=INK, markerfacecolor="none", markersize=13, clip_on=False)


def _legend(axes: Axes, count: int) -> None:
    """One line a run, above the title, its text as it is written."""
    legend = axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.16, 1 + 26 / 185),
        frameon=False,
        borderpad=0,
        handlelength=1.6,
        handletextpad=0.6,
        labelspacing=0.3,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    assert len(legend.get_texts()) == count, "every run has its line in the legend"


def _told(found: Sequence[Found], series: Sequence[Sequence[tuple[int, float]]]) -> str:
    parts = [
        f"{run['name']} from {points[0][1]:.4g} at update {points[0][0]} to {points[-1][1]:.4g} at update "
        f"{points[-1][0]}, chosen: update {run['chosen_step']}"
        for run, points in zip(found, series, strict=True)
        if points
    ]
    return f"Validation loss: {'; '.join(parts)}"


def _coloured(drawn: Markup) -> Markup:
    """The runs' colours as the page's variables."""
    for place, colour in enumerate(COLOURS, start=1):
        drawn = Markup(drawn.replace(colour, f"var(--run-{place})"))
    return drawn
