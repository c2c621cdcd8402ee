"""What the temperature did to the tuned model's calibration, from the lines of `predictions.jsonl`.

The probabilities there are softmax(z / T) of the outputs z. As p is proportional to exp(z / T), p^T is to exp(z): what the
model said before the temperature needs no second look at the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pegbox.evaluation.verdict import TUNED, interval_of, to_json
from pegbox.metrics import line_statistics, lookup
from pegbox.tasks.calibration import by_label, tempered

ERROR = "calibration_error"


def calibration(lines: Sequence[Mapping[str, Any]], temperature: float, seed: int) -> dict[str, Any]:
    """The temperature, and the calibration error with its 95 % interval `before` and `after` it.

    Each line must hold the tuned model's probabilities at that temperature.
    """
    labels = list(lines[0]["probabilities"][TUNED])
    after = np.array([[line["probabilities"][TUNED][label] for label in labels] for line in lines])
    sides = {"before": by_label(labels, tempered(after, 1 / temperature)), "after": by_label(labels, after)}
    metric, units = lookup(ERROR), np.array([line["unit"] for line in lines])
    found: dict[str, Any] = {"temperature": temperature}
    for side, given in sides.items():
        told = [
            {"reference": line["reference"], metric.reads: {TUNED: row}} for line, row in zip(lines, given, strict=True)
        ]
        found[side] = to_json(interval_of(metric, line_statistics(metric, told)[TUNED], units, seed=seed))
    return found
