"""The section on numbers: answers against right values, and what is wrong with the answers as a whole.

Of each target, with the answers a and the right values y:

    mean error = mean of a - y                       above 0: answers are too high
    slope      = cov(a, y) / var(a)                  of the line that foretells y from a (calibration slope)

A slope below 1 says that answers lie farther apart than the values that they stand for, one above 1 that they shrink to
the mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pegbox.evaluation.verdict import TUNED
from pegbox.metrics import METRICS, FloatArray
from pegbox.report.number_pictures import DRAWN, scatter
from pegbox.report.sections import Block, Figure, Given, Section, Table
from pegbox.report.wording import difference, number

PICTURED = 3  # targets
ABOUT = (
    "Mean error: how much too high (+) or too low (-) answers are on average. Slope: how much the right value rises, on "
    "average, where the answer rises by one: below 1 answers lie too far apart, above 1 too close together. Below each value "
    "stands that of the {rival}."
)


def regression(given: Given) -> Section:
    """Of one target or several."""
    targets = list(given.state["targets"])
    right = columns([line["reference"] for line in given.lines], len(targets))
    said = {
        name: columns([line["answers"][name] for line in given.lines], len(targets)) for name in (TUNED, given.rival)
    }
    names = {TUNED: "tuned model", given.rival: given.rival_name}
    figures = []
    for place, target in enumerate(targets[:PICTURED]):
        shown = {names[system]: values[:, place] for system, values in said.items()}
        title = target if len(targets) > 1 else ""
        figures.append(Figure(scatter(shown, right[:, place], title, f"scatter-{place}", given.seed)))
    rows = [
        (target, _cells(right[:, place], *(values[:, place] for values in said.values())))
        for place, target in enumerate(targets)
    ]
    table = Table("Each target", ["target", "RMSE", "R²", "mean error", "slope"], rows)
    about = ABOUT.format(rival=given.rival_name)
    block = Block("Answers against right values", [_sentence(given, len(targets)), about], figures, table)
    return Section("The numbers", "numbers", [block])


def _sentence(given: Given, targets: int) -> str:
    """What the pictures show."""
    rows = len(given.lines)
    drawn = (
        f"{DRAWN:,} of {rows:,} test rows, drawn with the run's seed" if rows > DRAWN else f"each of {rows:,} test rows"
    )
    more = f" Drawn are the first {PICTURED} of {targets} targets." if targets > PICTURED else ""
    return f"A point stands for {drawn}: the right value across, the answer up. On the line the two are the same.{more}"


def columns(values: Sequence[float | Sequence[float] | None], count: int) -> FloatArray:
    """float64 [rows, targets]; NaN where an answer is missing."""
    missing = [math.nan] * count
    rows = [missing if v is None else list(v) if isinstance(v, list | tuple) else [v] for v in values]
    return np.array([[math.nan if x is None else x for x in row] for row in rows], dtype=np.float64)


def _cells(right: FloatArray, ours: FloatArray, theirs: FloatArray) -> list[tuple[str, str]]:
    """RMSE, R², mean error and slope of one target, each with the rival's below."""
    pairs = zip(_values(right, ours), _values(right, theirs), strict=True)
    return [
        (difference(one, "rmse"), difference(other, "rmse"))
        if name == "bias"
        else (number(one, name), number(other, name))
        for name, (one, other) in zip(("rmse", "r2", "bias", "slope"), pairs, strict=True)
    ]


def _values(right: FloatArray, said: FloatArray) -> list[float | None]:
    """RMSE, R², mean error, slope; None for what is not finite, as where an answer is missing."""
    rmse, r2 = (METRICS[name](said.tolist(), right.tolist()) for name in ("rmse", "r2"))
    return [
        value if math.isfinite(value) else None
        for value in (rmse, r2, float((said - right).mean()), slope(said, right))
    ]


def slope(said: FloatArray, right: FloatArray) -> float:
    """Of the line that foretells the right values [n] from the answers [n]; NaN where all answers are the same."""
    away = said - said.mean()
    spread = float((away**2).sum())
    return float((away * (right - right.mean())).sum()) / spread if spread > 0 else math.nan
