"""The same test rows in several runs: matched by what they say, for their names `file:line` differ between machines.

A row is its input and its reference. Rows that say the same are twins: they are matched in order, as many as every run
has. What belongs together in any run is resampled together here: the units are the connected components of all runs'
units over all their rows, twins being one.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pegbox.data.twins import joined
from pegbox.errors import RecipeError

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Matched:
    """The rows that all runs have, in an order that only their content decides.

    `rows`: `{"ids": {run: id}, "input": , "reference": , "answers": {run: the tuned model's answer}}`, and likewise
    `"probabilities"` of the runs that have them; `units` int [n].
    """

    rows: Sequence[dict[str, Any]]
    units: NDArray[np.int64]

    def answers(self, run: str) -> list[Any]:
        """One run's answers [n]."""
        return [row["answers"][run] for row in self.rows]


def match(predictions: Mapping[str, Sequence[Line]]) -> Matched:
    """Match the lines of each run's `predictions.jsonl`. Raises RecipeError where no row is in all of them."""
    by_content = {run: _by_content(lines) for run, lines in predictions.items()}
    contents = sorted(set.intersection(*(set(found) for found in by_content.values())))
    if not contents:
        raise RecipeError(
            "the runs have no test row in common",
            where=", ".join(predictions),
            cure="compare runs whose data.test is the same file",
        )
    unit_of = _units(by_content)
    rows, units = [], []
    for content in contents:
        twins = [found[content] for found in by_content.values()]
        for same in zip(*twins, strict=False):  # as many as every run has
            rows.append(_row(dict(zip(by_content, same, strict=True))))
            units.append(unit_of[content])
    return Matched(rows, np.array(units))


def _by_content(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """Lines by what they say."""
    found = defaultdict(list)
    for line in lines:
        found[json.dumps([line["input"], line["reference"]], sort_keys=True)].append(line)
    return dict(found)


def _row(lines: Mapping[str, Line]) -> dict[str, Any]:
    """One row from the lines of all runs."""
    first = next(iter(lines.values()))
    return {
        "ids": {run: line["id"] for run, line in lines.items()},
        **{key: first[key] for key in ("input", "reference", "around") if key in first},
        "answers": {run: line["answers"]["tuned"] for run, line in lines.items()},
        "probabilities": {
            run: line["probabilities"]["tuned"]
            for run, line in lines.items()
            if "tuned" in line.get("probabilities", ())
        },
    }


def _units(by_content: Mapping[str, Mapping[str, Sequence[Line]]]) -> dict[str, int]:
    """The component of each content, by union of what any run's units hold together; numbered in the contents' order."""
    contents = sorted({content for found in by_content.values() for content in found})
    pairs: list[tuple[str, str]] = []
    for found in by_content.values():
        first_of: dict[Any, str] = {}
        for content, lines in found.items():
            pairs += [(first_of.setdefault(line["unit"], content), content) for line in lines]
    numbers = {content: number for number, content in enumerate(contents)}
    return {content: numbers[least] for content, least in joined(contents, pairs).items()}
