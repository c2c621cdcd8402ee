"""The picture of tuned's lead in parts of the test rows: points with their intervals about zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from pegbox.report.gains import Part
from pegbox.report.pictures import INK, TUNED_COLOUR, canvas, fitting, inline, scale_leads
from pegbox.report.wording import SHARES, difference, difference_bounds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LETTERS = 48  # that stand beside one another in a picture


def leads(parts: Sequence[Part], metric: str, name: str, title: str, called: str) -> Markup:
    """Tuned's lead in each part: a point with its 95 % interval, or a hollow point where the part is too small for one.

    `called`: what the metric is called.
    """
    height = 46 + 40 * len(parts)
    with canvas(height) as figure:
        axes = figure.add_axes((0.02, 46 / height, 0.96, 1 - 46 / height))
        scale_leads(axes, metric, [part.lead for part in parts])
        for place, part in enumerate(parts):
            _part(axes, -place, part, metric)
        axes.set_ylim(0.6 - len(parts), 0.75)
        unit = "percentage points" if metric in SHARES else called
        axes.set_xlabel(f"lead in {unit}: right of 0 tuned is better")
        return inline(figure, name, f"{title}: {'; '.join(_told_part(part, metric) for part in parts)}")


def _part(axes: Axes, place: float, part: Part, metric: str) -> None:
    """One part: its name, rows and lead over a line with the point and the interval."""
    rows = f"({part.rows:,} row{'' if part.rows == 1 else 's'}{', few' if part.small else ''})"
    words: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "color": INK, "parse_math": False}
    found = part.lead
    lead = difference(found["difference"], metric)
    axes.text(0.0, place + 0.24, f"{fitting(part.name, LETTERS - len(rows) - len(lead))} {rows}", **words)
    axes.text(1.0, place + 0.24, lead, ha="right", **words)
    axes.plot([0, 0], [place - 0.2, place + 0.12], color=INK, linewidth=1.2)
    if found["difference"] is None:
        return
    if not part.small:
        left, right = axes.get_xlim()
        ends = [left if found["low"] is None else found["low"], right if found["high"] is None else found["high"]]
        axes.plot(ends, [place, place], color=TUNED_COLOUR, linewidth=3, solid_capstyle="butt")
    face = "none" if part.small else TUNED_COLOUR
    axes.plot(
        [found["difference"]], [place], "o", color=TUNED_COLOUR, markerfacecolor=face, markersize=8, clip_on=False
    )


def _told_part(part: Part, metric: str) -> str:
    interval = "too few for an interval" if part.small else difference_bounds(part.lead, metric)
    return f"{part.name}, {part.rows:,} rows: {difference(part.lead['difference'], metric)} ({interval})"
