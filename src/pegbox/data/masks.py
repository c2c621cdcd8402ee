"""What of an answer is trained: nothing, all of it with a weight, or some of its characters.

`weight` (OpenAI) and `train`, `training` (axolotl) are of a whole turn. `train_detail` (axolotl) is a list of
`{begin_offset, end_offset, train}`: characters from the first to the last one, both included; what stands in no span is
not trained. Spans that overlap or reach behind the text are refused, where axolotl moves them: that is how a list whose
`end_offset` is one too far makes itself known.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from pegbox.data.records import Spans

MAX_WEIGHT = 1000.0
WHETHER = ("weight", "train", "training")
KEYS = (*WHETHER, "train_detail")


def weight_of(turn: Mapping[str, Any], what: str, answers: bool) -> float:
    """The loss weight of a turn: 1 for an answer unless it says otherwise; `answers`: whether the turn is one."""
    given = [key for key in WHETHER if key in turn]
    if len(given) > 1:
        raise ValueError(f"{what} says twice whether it is trained: {' and '.join(given)}")
    if not answers and (any(turn[key] for key in given) or "train_detail" in turn):
        raise ValueError(f"{what} has a weight, and only an assistant's turn is trained")
    if not given:
        return float(answers)
    value = turn[given[0]]
    if given[0] != "weight":
        if not isinstance(value, bool):
            raise ValueError(f"{what} has a '{given[0]}' that is neither true nor false")
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_WEIGHT:
        raise ValueError(f"{what} has a weight that is not a number from 0 to {MAX_WEIGHT:g}")
    return float(value) if answers else 0.0


def spans_of(details: Any, size: int, what: str) -> Spans:
    """The trained spans of a text of `size` characters, of its `train_detail`."""
    if not isinstance(details, list) or not details:
        raise ValueError(f"{what} has a 'train_detail' that is not a list of at least one span")
    spans = sorted(_span(detail, size, what) for detail in details)
    for (_, end, _), (begin, _, _) in pairwise(spans):
        if begin < end:
            raise ValueError(
                f"{what} has spans in 'train_detail' that overlap at character {begin}"
                " (end_offset is the last character of a span)"
            )
    return tuple((begin, end) for begin, end, train in spans if train)


def _span(detail: Any, size: int, what: str) -> tuple[int, int, bool]:
    if not isinstance(detail, dict) or set(detail) != {"begin_offset", "end_offset", "train"}:
        raise ValueError(f"{what} has a span in 'train_detail' without its begin_offset, end_offset and train")
    begin, end, train = detail["begin_offset"], detail["end_offset"], detail["train"]
    if type(begin) is not int or type(end) is not int or type(train) is not bool or not 0 <= begin <= end < size:
        raise ValueError(
            f"{what} has a span in 'train_detail' that does not lie within its {size} characters"
            " (they are counted from 0, end_offset is the last one)"
        )
    return begin, end + 1, train


def marks(spans: Spans, size: int, shift: int = 0) -> list[bool]:
    """Which of `size` characters are trained, where the spans count from `shift` characters before the first."""
    return [any(begin <= place < end for begin, end in spans) for place in range(shift, shift + size)]
