"""The picture: tokens a second of each peer, workload by workload, a bar with its spread, and the floor as a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from speed.targets import US

from pegbox.report import pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE, HEAD, FOOT = 44, 34, 30  # units: of a peer, above the peers, below them


@dataclass(frozen=True)
class Palette:
    """The colours of a picture: of a page that follows light and dark, or of a file."""

    ink: str = pictures.INK
    muted: str = pictures.MUTED
    line: str = pictures.LINE
    ours: str = pictures.TUNED_COLOUR
    theirs: str = pictures.RIVAL_COLOUR


PAPER = Palette("#1b2430", "#566273", "#d7dce3", "#0a5fb5", "#6f7b89")  # those of the report, in light


def inline(name: str, found: Mapping[str, Any]) -> Markup:
    """One workload's picture for a page."""
    rates = {peer: one["tokens_per_second"]["value"] for peer, one in found.items() if peer != "floor"}
    with pictures.canvas(height(found)) as figure:
        _draw(figure, 0.0, height(found), name, found, Palette())
        told = "; ".join(f"{peer} {rate:.0f}" for peer, rate in rates.items())
        return pictures.inline(figure, name.replace(" ", "-"), f"{name}, tokens a second: {told}")


def save(file: Path, every: Mapping[str, Mapping[str, Any]]) -> None:
    """All workloads' pictures, one below another, as a PNG."""
    whole = sum(map(height, every.values()))
    with pictures.canvas(whole) as figure:
        top = whole
        for name, found in every.items():
            top -= height(found)
            _draw(figure, top, whole, name, found, PAPER)
        figure.savefig(file, dpi=144, facecolor="#ffffff", metadata={"Software": None})


def height(found: Mapping[str, Any]) -> float:
    """Units that a workload's picture is high."""
    return HEAD + LINE * (len(found) - 1) + FOOT


def _draw(figure: Figure, bottom: float, whole: float, name: str, found: Mapping[str, Any], palette: Palette) -> None:
    peers = {peer: one for peer, one in found.items() if peer != "floor"}
    axes = figure.add_axes((0.03, (bottom + FOOT) / whole, 0.94, LINE * len(peers) / whole))
    for place, (peer, one) in enumerate(peers.items()):
        _bar(axes, -place, peer, one["tokens_per_second"], palette)
    axes.axvline(found["floor"]["value"], color=palette.ink, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_ylim(0.5 - len(peers), 0.5)
    axes.set_xlim(0, 1.04 * max(found["floor"]["value"], *(one["tokens_per_second"]["high"] for one in peers.values())))
    axes.yaxis.set_visible(False)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(palette.line)
    axes.tick_params(colors=palette.muted, labelsize=10)
    axes.set_title(f"{name}, tokens/s (dashed: the floor)", loc="left", color=palette.ink, fontsize=13)


def _bar(axes: Axes, place: float, peer: str, rates: Mapping[str, float], palette: Palette) -> None:
    """Its name and value above a bar, and the spread over repetitions as a thin line."""
    colour, weight = (palette.ours, "bold") if peer == US else (palette.theirs, "normal")
    told, across = f"{peer}  {rates['value']:,.0f}", axes.get_yaxis_transform()
    axes.text(0.0, place + 0.12, told, transform=across, color=palette.ink, weight=weight, fontsize=11)
    axes.barh(place - 0.2, rates["value"], height=0.36, color=colour)
    axes.plot([rates["low"], rates["high"]], [place - 0.2] * 2, color=palette.ink, linewidth=1.2)
