"""What `evaluation.json` holds beside the verdict and the metrics: each label, the calibration, the groups of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pegbox.evaluation.calibration import calibration
from pegbox.evaluation.groups import by_group
from pegbox.evaluation.per_class import per_class, per_entity
from pegbox.evaluation.verdict import TUNED

Lines = Sequence[Mapping[str, Any]]

# tasks whose answers fall into labels, and how each label did
BY_LABEL: Mapping[str, Callable[[Lines, str], dict[str, dict[str, float]]]] = {
    "classification": per_class,
    "multilabel": per_class,
    "token_classification": per_entity,
}


def details(
    lines: Lines, *, task: str, primary: str, metrics: Sequence[str], state: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """`per_class` of every system where answers are labels, `calibration` of tuned where there is a temperature, `groups`
    where rows name one. `state`: what the task found out in the run.
    """
    found: dict[str, Any] = {}
    if task in BY_LABEL:
        found["per_class"] = {system: BY_LABEL[task](lines, system) for system in lines[0]["answers"]}
    if "temperature" in state and TUNED in lines[0].get("probabilities", {}):
        found["calibration"] = calibration(lines, state["temperature"], seed)
    if any(line.get("group") is not None for line in lines):
        found["groups"] = by_group(lines, task=task, primary=primary, metrics=metrics, seed=seed)
    return found
