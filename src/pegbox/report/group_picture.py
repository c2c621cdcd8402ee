"""The picture of groups: in each a point with its 95 % interval for tuned, and a hollow one for its counterpart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from pegbox.evaluation.verdict import TUNED
from pegbox.report.pictures import INK, RIVAL_COLOUR, TUNED_COLOUR, canvas, fitting, inline, scale_values
from pegbox.report.wording import bounds, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LETTERS = 48  # that stand beside one another in a picture


def picture(found: Mapping[str, Any], shown: Sequence[Mapping[str, Any]], counterpart: str, measured: str) -> Markup:
    """Both systems in each of the groups that are `shown`. `measured`: the metric as people call it."""
    metric, systems = found["primary"], (TUNED, found["counterpart"])
    told = "; ".join(
        f"{group['group']}: tuned {_told(group, TUNED, metric)}, {counterpart} {_told(group, systems[1], metric)}"
        for group in shown
    )
    height = 46 + 54 * len(shown)
    with canvas(height) as figure:
        axes = figure.add_axes((0.02, 46 / height, 0.96, 1 - 46 / height))
        scale_values(axes, metric, [group["systems"][system][metric] for group in shown for system in systems])
        for place, group in enumerate(shown):
            _group(axes, -place, group, metric, systems)
        axes.set_ylim(0.6 - len(shown), 0.7)
        axes.set_xlabel(measured)
        return inline(figure, "groups", f"{measured} by group with 95 % intervals: {told}")


def _told(group: Mapping[str, Any], system: str, metric: str) -> str:
    found = group["systems"][system][metric]
    return f"{number(found['value'], metric)} ({bounds(found, metric)})"


def _group(axes: Axes, place: float, group: Mapping[str, Any], metric: str, systems: Sequence[str]) -> None:
    """One group: its name and rows over a line for each system."""
    rows = f"({group['rows']:,} rows)"
    name = f"{fitting(group['group'], LETTERS - len(rows))} {rows}"
    axes.text(0.0, place + 0.28, name, transform=axes.get_yaxis_transform(), color=INK, parse_math=False)
    left, right = axes.get_xlim()
    for at, system, colour in zip((place + 0.08, place - 0.18), systems, (TUNED_COLOUR, RIVAL_COLOUR), strict=True):
        found = group["systems"][system][metric]
        if found["value"] is None:
            continue
        ends = [left if found["low"] is None else found["low"], right if found["high"] is None else found["high"]]
        axes.plot(ends, [at, at], color=colour, linewidth=3, solid_capstyle="butt")
        face = colour if system == TUNED else "none"
        axes.plot([found["value"]], [at], "o", color=colour, markerfacecolor=face, markersize=8, clip_on=False)
