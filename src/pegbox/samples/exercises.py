"""Draws exercises: `python -P exercises.py LEVEL COUNT` writes COUNT rows as JSON lines to stdout. `education.py` runs it.

A program of its own, which imports nothing of pegbox, for what the package `mathematics_dataset` needs and does:

- It draws from the generators that `random` and numpy have for a whole process. Here they are seeded, and nobody
  else's draws are touched. PYTHONHASHSEED, too, is given: the package goes through sets.
- It imports `base_solution_linear` from where SymPy kept it until 1.5; torch needs a SymPy in which it lies a level
  deeper. Here that is put back, in this process alone. The topics below do not use it.

Of its other topics those with polynomials do not run on numpy 2, and rounding not on Python 3.12.
"""

from __future__ import annotations

import importlib
import json
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

LEVELS = ("easy", "medium", "hard")  # as the package's own `train-easy`, `train-medium`, `train-hard`
TOPICS = {
    "arithmetic": ("add_or_sub", "mul", "div"),
    "numbers": ("place_value",),
    "comparison": ("pair", "kth_biggest", "closest", "sort"),
}
LONGEST_QUESTION, LONGEST_ANSWER = 160, 30  # characters, as the package's own programs have them
SEED = 42
_MOVED = "base_solution_linear"

Range = tuple[float, float]


def exercises(level: str, count: int) -> Iterator[dict[str, str]]:
    """The exercises and their answers, the topics by turns; none comes twice."""
    import numpy as np

    random.seed(SEED)
    np.random.seed(SEED)
    topics, seen = _topics(level), set[str]()
    while len(seen) < count:
        for draw in topics[: count - len(seen)]:
            question, answer = _new(draw, seen)
            seen.add(question)
            yield {"prompt": question, "completion": answer}


def _new(draw: Callable[[], Any], seen: set[str]) -> tuple[str, str]:
    """An exercise of a topic that is short enough and was not drawn before."""
    while True:
        problem = draw()
        question, answer = str(problem.question), str(problem.answer)
        if len(question) <= LONGEST_QUESTION and len(answer) <= LONGEST_ANSWER and question not in seen:
            return question, answer


def _topics(level: str) -> list[Callable[[], Any]]:
    """One function a topic, which draws an exercise of the level."""
    moved = importlib.import_module("sympy.solvers.diophantine.diophantine")
    setattr(importlib.import_module("sympy.solvers.diophantine"), _MOVED, getattr(moved, _MOVED))
    areas = importlib.import_module("mathematics_dataset.modules.modules").train(within(level))
    return [areas[area][topic] for area, topics in TOPICS.items() for topic in topics]


def within(level: str) -> Callable[[Range], Range]:
    """The level's third of a range. The package measures how hard an exercise is in digits: its `entropy`."""
    third = LEVELS.index(level)

    def part(whole: Range) -> Range:
        low, high = whole
        return low + (high - low) * third / len(LEVELS), low + (high - low) * (third + 1) / len(LEVELS)

    return part


if __name__ == "__main__":
    for row in exercises(sys.argv[1], int(sys.argv[2])):
        print(json.dumps(row))
