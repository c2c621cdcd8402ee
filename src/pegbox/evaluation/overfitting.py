"""Where training and validation part ways: from which validation on a model learns its training rows and nothing else.

Read off a run's log, with v the validation losses in order and t the training loss over as many updates before each
validation as its longest stretch has (rows weighed alike, so that a short last stretch says as much as the others):

    best    = the lowest v, of equals the first, as the loop keeps it
    limit   = v[best] + max(3 moves, 2 % of |v[best]|, 1 % of v[0] - v[best])
    start   = the first validation from which on every v lies above the limit, up to the end
    parting = such a start exists, t[end] < t[best], and three validations lie above or v[end] is over 10 % worse

A move is the greatest step between neighbouring validations against the trend: a rise before the best, a fall after it.
Steps with the trend say how steep a curve is, not how far noise carries it; their spread, early in a run, would hide any
rise. A rise that comes back is noise; one within 2 %, or within a hundredth of what was gained (a loss near zero), is
nothing that other weights would be chosen for. One or two values may be chance whatever the moves, and few moves say
little: hence three values, or a rise that is plain. Where the training loss rose too, something else is wrong.

Counted on flat noise under a falling training loss: at ten validations, which is the loop's default, a parting is seen in
under 5 of 100 series however large the noise, with noise of 1 % of the loss in under 2 of 100 at any number. Where there
are three or four and the noise is a tenth of the loss, one in three is: so short a log cannot tell. Prechelt (1998, "Early
stopping - but when?") stops on the rise over the lowest as well, in per cent, but has no measure of noise and looks
forwards; this looks back at the whole of the run.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Any

Line = Mapping[str, Any]

LEAST = 3  # validations, below which nothing is said
MOVES = 3.0  # how many times the greatest move against the trend a rise must be
IMMATERIAL = 0.02  # of the best loss: a rise that is nothing
OF_GAIN = 0.01  # of what validation gained from the first to the best: likewise
CONFIRMED = 3  # validations above the limit that are no chance
PLAIN = 0.10  # of the best loss: a rise that needs no more validations than one


@dataclass(frozen=True)
class Point:
    """A validation: after which update, at which epoch, its loss, and the mean training loss before it."""

    step: int
    epoch: float
    validation: float
    training: float


@dataclass(frozen=True)
class Parting:
    """The best validation, the first of those that are worse up to the end, and the last one."""

    best: Point
    start: Point
    end: Point

    @property
    def worse(self) -> float | None:
        """How much higher the validation loss is at the end, as a share of the best; None where that is not above 0."""
        return risen(self.best, self.end)


def parting(lines: Iterable[Line]) -> Parting | None:
    """Where the curves of a `metrics.jsonl` part; None where they do not, or where validations are under `LEAST`."""
    found = points(lines)
    if len(found) < LEAST:
        return None
    best, end = lowest(found), found[-1]
    limit = best.validation + _noise(found, best)
    above = list(takewhile(lambda point: point.validation > limit, reversed(found)))
    sure = len(above) >= CONFIRMED or end.validation - best.validation > PLAIN * abs(best.validation)
    if above and sure and end.training < best.training:
        return Parting(best, above[-1], end)
    return None


def points(lines: Iterable[Line]) -> list[Point]:
    """The validations of a log in order; one whose loss is not finite is left out. Of two lines of a step the last counts."""
    by_split: dict[bool, dict[int, Line]] = {True: {}, False: {}}
    for line in lines:
        by_split[line.get("split") == "validation"][line["step"]] = line
    validation, training = by_split[True], by_split[False]
    steps = sorted(training)
    longest = max((after - before for before, after in pairwise([0, *sorted(validation)])), default=0)
    found = []
    for step in sorted(step for step, line in validation.items() if _is_finite(line["loss"])):
        upto = bisect_right(steps, step)
        before = [training[at] for at in steps[bisect_right(steps, step - longest) : upto]]
        epoch = training[steps[upto - 1]]["epoch"] if upto else 0.0
        found.append(Point(step, epoch, validation[step]["loss"], _mean_loss(before)))
    return found


def lowest(found: Sequence[Point]) -> Point:
    """The validation with the lowest loss, of equals the first."""
    return min(found, key=lambda point: point.validation)


def risen(best: Point, end: Point) -> float | None:
    """The rise of the validation loss as a share of the best; None where that is not above 0."""
    return (end.validation - best.validation) / best.validation if best.validation > 0 else None


def _noise(found: Sequence[Point], best: Point) -> float:
    """The rise over the best that may be chance or is none to speak of."""
    moves = [
        before.validation - after.validation if before.step > best.step else after.validation - before.validation
        for before, after in pairwise(found)
        if best not in (before, after)  # the move into the best and the one out of it are what is asked about
    ]
    gained = found[0].validation - best.validation
    return max(MOVES * max(moves, default=0.0), IMMATERIAL * abs(best.validation), OF_GAIN * gained)


def _mean_loss(lines: Sequence[Line]) -> float:
    """The mean loss of some updates, each by its rows; NaN, which is below nothing, where there are none."""
    known = [line for line in lines if _is_finite(line["loss"])]
    rows = sum(line["rows"] for line in known)
    return sum(line["loss"] * line["rows"] for line in known) / rows if rows else math.nan


def _is_finite(loss: float | None) -> bool:
    return loss is not None and math.isfinite(loss)
