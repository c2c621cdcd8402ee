"""syntax_validity: the share of rows whose text, with the answer in its place, is Python that parses.

    row = 1 if ast.parse(before + answer + behind) succeeds, else 0

The text is read by the parser of the Python that runs, and never executed. What the parser refuses for its size (nesting,
memory) is not valid here. It says nothing of what the code does: an empty answer is often valid. A missing one is not.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence
from typing import Any

from pegbox.metrics.base import FloatArray, Kind, Metric, mean, with_count


def is_python(text: str) -> bool:
    """Whether Python's parser reads the text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of doubtful escapes and comparisons, which parse
        try:
            ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
            return False
    return True


def _statistics(answers: Sequence[Any], around: Sequence[Any]) -> FloatArray:
    """Statistics [n, 2] of the mean over rows; `around`: what stands before and behind each answer."""
    rows = zip(answers, around, strict=True)
    return with_count([answer is not None and is_python(f"{told[0]}{answer}{told[1]}") for answer, told in rows])


def _fits(answer: Any, around: Any) -> bool:
    is_pair = isinstance(around, list | tuple) and len(around) == 2 and all(isinstance(part, str) for part in around)
    return is_pair and isinstance(answer, str)


SYNTAX_VALIDITY = Metric(
    "syntax_validity",
    _statistics,
    mean,
    greater_is_better=True,
    kind=Kind("middles of a text, by what stands around them", _fits),
    against="around",
)
