"""A metric of the user's own: `./my_metric.py:name`, a function in a file that the recipe or the command line names.

    def cost(answers, references):
        return [abs(given - right) for given, right in zip(answers, references)]

    cost.greater_is_better = False  # without this line, higher is better

It gives each row a score, and the metric is their mean. It is called once with the answers of all systems one after the
other, each with its reference, so the score of a row may hang on that row alone. An answer may be None: it is missing, and
what that is worth is the function's to say. What is no mean over rows is a `pegbox.metrics.Metric` under that name instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pegbox.errors import RecipeError
from pegbox.metrics.base import FloatArray, Metric, mean, with_count
from pegbox.recipe.own import failure, load_own, split


def own_metric(reference: str, where: str) -> Metric:
    """The metric that `PATH.py:NAME` names; its name is the function's. `where`: the recipe key or option that names it.

    Raises RecipeError where there is no such function, and later from its statistics where what it returns is not a score
    for each row.
    """
    found = load_own(reference, where)
    path, name = split(reference)
    if isinstance(found, Metric):
        return replace(found, statistics=_Guarded(found.statistics, found.name, path, where, dimensions=2))
    greater_is_better = getattr(found, "greater_is_better", True)
    if not isinstance(greater_is_better, bool):
        what = f"{name}.greater_is_better must be True or False (got {greater_is_better!r})"
        raise RecipeError(what, where=where, cure=f"write {name}.greater_is_better = False below the function")
    scores = _Guarded(found, name, path, where, dimensions=1)
    return Metric(name, lambda *rows: with_count(scores(*rows)), mean, greater_is_better=greater_is_better)


@dataclass(frozen=True)
class _Guarded:
    """The user's function, with what it returns checked: scores [n] or statistics [n, k] of n answers."""

    function: Callable[..., Any]
    name: str
    path: str
    where: str
    dimensions: int

    def __call__(self, answers: Sequence[Any], references: Sequence[Any]) -> FloatArray:
        try:
            given = self.function(list(answers), list(references))
        except Exception as error:
            raise self._refuse(f"failed: {failure(error, self.path)}", len(answers)) from error
        try:
            numbers = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError):
            raise self._refuse("returned what are no numbers", len(answers)) from None
        if numbers.ndim != self.dimensions or len(numbers) != len(answers):
            raise self._refuse(f"returned numbers of shape {list(numbers.shape)}", len(answers))
        wrong = np.isnan(numbers) if self.dimensions == 2 else ~np.isfinite(numbers)
        if wrong.any():
            row = int(np.argwhere(wrong)[0, 0])
            raise self._refuse(f"returned {numbers[wrong][0]} for answer {row + 1}", len(answers))
        return numbers

    def _refuse(self, what: str, rows: int) -> RecipeError:
        each = "one finite number" if self.dimensions == 1 else "a row of numbers, none of them NaN,"
        cure = f"{self.name}(answers, references) takes two lists of {rows:,} and returns {each} for each answer"
        return RecipeError(f"{self.name} of {self.path} {what}", where=self.where, cure=cure)
