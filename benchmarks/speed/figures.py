"""From the runs of a workload to its figures: one number for each peer and quantity, and how far the repetitions spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

FLOOR = "floor"
Runs = Mapping[str, Sequence[Mapping[str, Any]]]


def of(runs: Runs) -> dict[str, Any]:
    """The figures of each peer that ran, and of the floor."""
    floor = [run["tokens_per_second"] for run in runs[FLOOR]]
    found = {name: _peer(made, median(floor)) for name, made in runs.items() if name != FLOOR and made}
    return {
        "floor": spread(floor) | {"flops_per_second": median(run["flops_per_second"] for run in runs[FLOOR])}
    } | found


def _peer(runs: Sequence[Mapping[str, Any]], floor: float) -> dict[str, Any]:
    rates = spread([rate(run) for run in runs])
    return {
        "tokens_per_second": rates,
        "share_of_floor": rates["value"] / floor,
        "peak_memory": max(run["peak_memory"] for run in runs),
        "first_step": median(run["first_step"] for run in runs),
        "evaluation_loss": [run["evaluation_loss"] for run in runs],
    }


def rate(run: Mapping[str, Any]) -> float:
    """Tokens a second of a run: the median over its updates."""
    return median(tokens / took for tokens, took in zip(run["tokens"], run["seconds"], strict=True))


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median over repetitions, the least and the most."""
    return {"value": median(values), "low": min(values), "high": max(values)}


def apart(ours: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """How far two peers' losses of held-out rows are apart, seed by seed, at most."""
    pairs = zip(ours["evaluation_loss"], other["evaluation_loss"], strict=True)
    return max(abs(one - two) for one, two in pairs)
