"""Spikes: a loss or a gradient far above those before it, told with its rows, for they are often the reason.

    value > mean + 6 standard deviations of the 128 updates before

Nothing is done about one: an update that is finite is taken, and a long gradient is clipped. Below 32 updates, and where
the values do not vary, nothing can be said.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from pegbox.training.diagnosis import named
from pegbox.training.job import Job

log = logging.getLogger("pegbox")

WINDOW, LEAST, SIGMAS = 128, 32, 6.0
WATCHED = ("loss", "grad_norm")


class Spikes:
    """The last values of what is watched; a run that goes on reads them from its log."""

    def __init__(self, lines: Iterable[Mapping[str, Any]]) -> None:
        self.last: dict[str, deque[float]] = {name: deque(maxlen=WINDOW) for name in WATCHED}
        for line in lines:
            if "split" not in line:
                self._add(line)

    def _add(self, line: Mapping[str, Any]) -> None:
        for name, values in self.last.items():
            values.append(line[name])

    def look(self, job: Job, line: Mapping[str, Any]) -> None:
        """Tell whether an update, by its line of the log, is a spike; and remember it."""
        for name, values in self.last.items():
            limit = limit_of(values)
            if line[name] > limit:
                rows = [example.where for example in job.examples_of(line["step"] - 1)]
                log.warning(
                    "update %d: %s %.4g is a spike (over %.4g); rows: %s",
                    *(line["step"], name, line[name], limit, named(rows)),
                )
                job.tell(line["step"], "spike", of=name, value=line[name], limit=limit, rows=rows)
        self._add(line)


def limit_of(values: Iterable[float]) -> float:
    """The largest value that is no spike after these; infinite where they are too few or all the same."""
    known = list(values)
    deviation = statistics.pstdev(known) if len(known) >= LEAST else 0.0
    return statistics.fmean(known) + SIGMAS * deviation if deviation > 0 else math.inf
