"""Metrics that score one answer at a time and are means over rows: exact_match, token_f1, edit_similarity.

    exact_match     = 1 if the answer is the reference: as a JSON value where the reference is a JSON object or array,
                      else as text without outer white space
    token_f1        = 2 common / (words of the answer + words of the reference), words as bags, normalised as SQuAD does
                      (Rajpurkar et al. 2016: lower case, no ASCII punctuation, no English articles); two empty bags: 1
    edit_similarity = 1 - Levenshtein distance / length of the longer, in code points, unstripped; two empty texts: 1

A missing answer (None) scores 0, also where the reference is empty.
"""

from __future__ import annotations

import json
import math
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from pegbox.metrics.base import TEXTS, FloatArray, Metric, mean, with_count

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _by_row(score: Callable[[str, str], float]) -> Callable[[Sequence[Any], Sequence[Any]], FloatArray]:
    """Statistics [n, 2] of the mean over rows of `score(answer, reference)`."""

    def statistics(answers: Sequence[Any], references: Sequence[Any]) -> FloatArray:
        pairs = zip(answers, references, strict=True)
        return with_count([0.0 if answer is None else score(answer, reference) for answer, reference in pairs])

    return statistics


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("overflows a float")
    return number


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key occurs twice")
    return value


def json_container(text: str) -> dict[str, Any] | list[Any] | None:
    """The JSON object or array that `text` is; None for anything else.

    What Python's parser lets through but has no certain value is no JSON here: NaN and Infinity, numbers beyond a float,
    keys that occur twice. Nesting and digits beyond Python's limits neither.
    """
    if not text.startswith(("{", "[")):
        return None
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def same_json(left: object, right: object) -> bool:
    """Equality of JSON values: 46 is 46.0, but true is not 1. Without recursion, for nesting as deep as the parser's."""
    pending = [(left, right)]
    while pending:
        one, other = pending.pop()
        if isinstance(one, dict) and isinstance(other, dict):
            if one.keys() != other.keys():
                return False
            pending.extend((one[key], other[key]) for key in one)
        elif isinstance(one, list) and isinstance(other, list):
            if len(one) != len(other):
                return False
            pending.extend(zip(one, other, strict=True))
        elif isinstance(one, bool) != isinstance(other, bool) or one != other:
            return False
    return True


def _exact_match(answer: str, reference: str) -> float:
    answer, reference = answer.strip(), reference.strip()
    if answer == reference:
        return 1.0
    wanted = json_container(reference)
    given = json_container(answer) if wanted is not None else None
    return float(wanted is not None and given is not None and same_json(given, wanted))


def _squad_words(text: str) -> Counter[str]:
    return Counter(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def _token_f1(answer: str, reference: str) -> float:
    given, wanted = _squad_words(answer), _squad_words(reference)
    words = given.total() + wanted.total()
    return 2 * (given & wanted).total() / words if words else 1.0


def levenshtein(left: str, right: str) -> int:
    """The least number of insertions, deletions and substitutions of code points that turn `left` into `right`.

    The bits of two integers hold where neighbours in a column of the table differ by +1 and by -1, so that a column is a
    dozen operations (Myers 1999, in the form of Hyyrö 2003): milliseconds for texts of some thousand characters.
    """
    if not left:
        return len(right)
    places: dict[str, int] = {}
    for place, point in enumerate(left):
        places[point] = places.get(point, 0) | 1 << place
    every, last = (1 << len(left)) - 1, 1 << len(left) - 1
    up, down, distance = every, 0, len(left)
    for point in right:
        same = places.get(point, 0)
        across = (((same & up) + up) ^ up) | same | down
        rises, falls = down | ~(across | up) & every, up & across
        distance += bool(rises & last) - bool(falls & last)
        rises, falls = rises << 1 | 1, falls << 1
        up, down = (falls | ~(same | down | rises)) & every, rises & (same | down) & every
    return distance


def _edit_similarity(answer: str, reference: str) -> float:
    longer = max(len(answer), len(reference))
    return 1.0 - levenshtein(answer, reference) / longer if longer else 1.0


EXACT_MATCH = Metric("exact_match", _by_row(_exact_match), mean, greater_is_better=True, kind=TEXTS)
TOKEN_F1 = Metric("token_f1", _by_row(_token_f1), mean, greater_is_better=True, kind=TEXTS)
EDIT_SIMILARITY = Metric("edit_similarity", _by_row(_edit_similarity), mean, greater_is_better=True, kind=TEXTS)
