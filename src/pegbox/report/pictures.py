"""The report's pictures as inline SVG: systems with their intervals, and the learning curves.

Drawn with matplotlib's object-oriented API, its settings put back afterwards whatever the user's are. Text stays text and
colours become the page's CSS variables, so that a picture follows light, dark and print. Narrow on purpose: on a phone
the letters stay readable.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unicodedata import category, east_asian_width

from markupsafe import Markup, escape

from pegbox.evaluation.overfitting import Parting
from pegbox.evaluation.verdict import TUNED
from pegbox.report.wording import SHARES, bounds, metric_name, number, ranked, scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, LINE, TUNED_COLOUR, RIVAL_COLOUR = "#010101", "#020202", "#030303", "#040404", "#050505"
WRONG_COLOUR = "#060606"
VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", TUNED_COLOUR: "--accent", RIVAL_COLOUR: "--rival"}
VARIABLES |= {WRONG_COLOUR: "--wrong"}
WIDTH = 400  # units of a picture, of which 72 are an inch of matplotlib's
LETTERS = 52  # that stand beside one another in a picture
LOG_FROM = 30.0  # a range of losses this wide is drawn on a logarithmic scale


@contextmanager
def canvas(height: float, width: float = WIDTH) -> Iterator[Figure]:
    """A figure with matplotlib's default settings and ours; its size is in units."""
    import matplotlib.style
    from matplotlib.figure import Figure

    ours = {
        "svg.fonttype": "none",
        "svg.hashsalt": "pegbox",
        "font.size": 13,
        "text.color": INK,
        "axes.edgecolor": LINE,
        "axes.labelcolor": MUTED,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "grid.color": LINE,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.style.context(ours, after_reset=True):
        yield Figure(figsize=(width / 72, height / 72), dpi=72)


def inline(figure: Figure, name: str, told: str) -> Markup:
    """The figure as an SVG element that says `told` to those who cannot see it."""
    drawn = io.StringIO()
    with warnings.catch_warnings():  # text stays text, and the browser has the letters that matplotlib's font lacks
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = drawn.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'font: ([\d.]+px)[^;"]*', r"font-size: \1", svg)
    svg = re.sub(
        r'\bid="|(?<=href="#)|(?<=url\(#)', lambda found: f"{found[0]}{name}-", svg
    )  # ids of a page are unique
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(told)}"', 1))


def systems(evaluation: Mapping[str, Any], names: Mapping[str, str]) -> Markup:
    """The primary metric of every system: a point, and its 95 % interval as a bar."""
    metric, order = evaluation["primary"], ranked(evaluation)
    found = {system: evaluation["systems"][system][metric] for system in order}
    told = "; ".join(f"{names[s]} {number(found[s]['value'], metric)} ({bounds(found[s], metric)})" for s in order)
    with canvas(46 + 44 * len(order)) as figure:
        axes = figure.add_axes((0.02, 46 / (46 + 44 * len(order)), 0.96, 1 - 46 / (46 + 44 * len(order))))
        scale_values(axes, metric, [found[system] for system in order])
        for place, system in enumerate(order):
            _system(axes, -place, names[system], found[system], metric, tuned=system == TUNED)
        axes.set_ylim(0.6 - len(order), 0.75)
        name = metric_name(metric, evaluation["task"])
        axes.set_xlabel(f"{name} ({scale(metric, evaluation)})")
        return inline(figure, "systems", f"{name} with 95 % intervals: {told}")


def scale_values(axes: Axes, metric: str, found: Sequence[Mapping[str, float | None]]) -> None:
    """The axis of the values; with room at its ends for what is not finite."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    finite = [value for system in found for key in ("value", "low", "high") if (value := system[key]) is not None]
    low, high = (0.0, 1.0) if metric in SHARES or not finite else (min(finite), max(finite))
    if metric == "perplexity" and low > 0:
        axes.set_xscale("log")
        spread = max(high / low, 1.1) ** 0.06
        axes.set_xlim(low / spread, high * spread)
        ticks = (
            LogLocator(subs=(1, 2, 5) if high / low < 100 else (1,), numticks=6) if high / low > 10 else MaxNLocator(5)
        )
    else:
        spread = 0.04 * ((high - low) or 1.0)
        axes.set_xlim(low - spread, high + spread)
        ticks = MaxNLocator(5)
    axes.xaxis.set_major_locator(ticks)
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda at, _: _inside(axes, at, f"{100 * at:g} %" if metric in SHARES else f"{at:g}"))
    )
    axes.xaxis.set_minor_formatter(NullFormatter())
    _only_values(axes)


def _inside(axes: Axes, at: float, words: str) -> str:
    """The words of a mark; none where they would not have room up to the picture's edges."""
    place = axes.transAxes.inverted().transform(axes.transData.transform((at, 0)))[0]
    half, beside = 7.5 * len(words) / 2 / WIDTH, 0.02
    return words if half - beside <= place <= 1 + beside - half else ""


def _only_values(axes: Axes) -> None:
    """No axis but that of the values."""
    axes.yaxis.set_visible(False)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", linewidth=0.6)
    axes.set_axisbelow(True)


def _system(
    axes: Axes, place: float, name: str, found: Mapping[str, float | None], metric: str, *, tuned: bool
) -> None:
    """One system: its name and value over a line with the point and the interval."""
    colour, weight = (TUNED_COLOUR, "bold") if tuned else (RIVAL_COLOUR, "normal")
    at = axes.get_yaxis_transform()
    axes.text(0.0, place + 0.22, name, transform=at, color=INK, weight=weight)
    axes.text(1.0, place + 0.22, number(found["value"], metric), transform=at, color=INK, weight=weight, ha="right")
    if found["value"] is None:
        return
    left, right = axes.get_xlim()
    low = left if found["low"] is None else found["low"]
    high = right if found["high"] is None else found["high"]
    axes.plot([low, high], [place, place], color=colour, linewidth=3, solid_capstyle="butt")
    axes.plot([found["value"]], [place], "o", color=colour, markersize=9, clip_on=False)


def scale_leads(axes: Axes, metric: str, found: Sequence[Mapping[str, float | None]]) -> None:
    """The axis of leads, with zero marked and never at the edge."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    finite = [value for lead in found for key in ("difference", "low", "high") if (value := lead[key]) is not None]
    low, high = min([0.0, *finite]), max([0.0, *finite])
    spread = 0.06 * ((high - low) or 1.0)
    axes.set_xlim(low - spread, high + spread)
    times = 100 if metric in SHARES else 1
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda at, _: _inside(axes, at, f"{times * at:+g}" if abs(at) > 1e-9 * (high - low) else "0"))
    )
    _only_values(axes)


def fitting(name: str, width: int) -> str:
    """A name that takes the place of `width` letters at most, on one line, without signs that steer the text."""
    line = " ".join("".join(" " if category(sign).startswith("C") else sign for sign in name).split())
    shown, taken = "", 0
    for sign in line:
        taken += 2 if east_asian_width(sign) in "WF" else 1
        if taken > width:
            return shown[:-1].rstrip() + "…"
        shown += sign
    return shown


def curves(lines: Sequence[Mapping[str, Any]], chosen: int, unit: str, parted: Parting | None) -> Markup:
    """Training and validation loss by update, the chosen one marked, and where they part. `unit`: what a loss counts."""
    training = _series(line for line in lines if line.get("split") != "validation")
    validation = _series(line for line in lines if line.get("split") == "validation")
    losses = [loss for _, loss in (*training, *validation)]
    more = 0 if parted is None else 18  # units, for a second line of the legend
    height, upright = 260 + more, 169
    with canvas(height) as figure:
        axes = figure.add_axes((0.135, 49 / height, 0.845, upright / height))
        axes.plot(*_columns(training), color=RIVAL_COLOUR, linewidth=1.5, label="training")
        axes.plot(*_columns(validation), "o-", color=TUNED_COLOUR, markersize=5, linewidth=1.5, label="validation")
        axes.axvline(chosen, color=INK, linewidth=1, linestyle=(0, (4, 3)), label=f"chosen: update {chosen}")
        if parted is not None:
            words = f"parted from update {parted.start.step} on"
            axes.axvline(parted.start.step, color=INK, linewidth=1.5, label=words)
        unit_told = scale_losses(axes, losses, unit)
        title = fitting(f"loss, {unit_told}", LETTERS)
        axes.set_title(title, loc="left", color=MUTED, size=13, y=1 + (17 + more) / upright, parse_math=False)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.97), ncols=2 if more else 3, **_TIGHT)
        return inline(figure, "curves", _told(training, validation, chosen, parted))


def scale_losses(axes: Axes, losses: Sequence[float], unit: str) -> str:
    """The axes of learning curves; what the upright one counts, in the given unit."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    wide = bool(losses) and min(losses) > 0 and max(losses) / min(losses) > LOG_FROM
    if wide:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))  # six numbers of seven digits have room
    axes.grid(axis="y", linewidth=0.6)
    axes.set_xlabel("updates")
    return f"{unit} (logarithmic)" if wide else unit


_TIGHT: Mapping[str, Any] = {
    "frameon": False,
    "borderpad": 0,
    "labelspacing": 0.3,
    "handlelength": 1.2,
    "columnspacing": 1.2,
    "handletextpad": 0.5,
}


def _series(lines: Iterator[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """(update, loss) where the loss is finite."""
    return [(line["step"], line["loss"]) for line in lines if line["loss"] is not None and math.isfinite(line["loss"])]


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [loss for _, loss in points]


def _told(
    training: Sequence[tuple[int, float]], validation: Sequence[tuple[int, float]], chosen: int, parted: Parting | None
) -> str:
    parts = [f"the chosen model is that of update {chosen}"]
    for name, points in (("training", training), ("validation", validation)):
        if points:
            (first, began), (last, ended) = points[0], points[-1]
            parts.append(f"{name} loss {began:.4g} at update {first}, {ended:.4g} at update {last}")
    if parted is not None:
        parts.append(f"they part ways from update {parted.start.step} on")
    return f"Learning curves: {'; '.join(parts)}"
