"""An answer of any task as text: a label, a set of labels, a number, numbers, entities with their words, a likelihood.

What an answer is, is seen by its form, so that lines of `predictions.jsonl` can be read without their recipe.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

LONG = 280  # characters of a text that are shown without being asked for
NONE = "(none)"


def written(answer: Any, text: str = "", targets: Sequence[str] = ()) -> str:
    """An answer to the row that is shown as `text`; `targets`: the names of the numbers where there are several."""
    if answer is None:
        return "(no answer)"
    if isinstance(answer, str):
        return answer or "(empty)"
    form = next((write for fits, write in FORMS if fits(answer)), None)
    return json.dumps(answer, ensure_ascii=False) if form is None else form(answer, text, targets)


def _is_number(answer: Any) -> bool:
    return isinstance(answer, int | float) and not isinstance(answer, bool)


def _all(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda answer: isinstance(answer, list | tuple) and all(map(fits, answer))


def _number(answer: float, text: str = "", targets: Sequence[str] = ()) -> str:
    """Six digits of a number that has a fraction, all of one that has none."""
    return f"{answer:,.0f}" if abs(answer) < 1e15 and answer == int(answer) else f"{answer:,.6g}"


def _numbers(answer: Sequence[float], text: str, targets: Sequence[str]) -> str:
    if len(targets) != len(answer):
        return ", ".join(map(_number, answer))
    return ", ".join(f"{name} {_number(value)}" for name, value in zip(targets, answer, strict=True))


def _labels(answer: Sequence[str], text: str, targets: Sequence[str]) -> str:
    """The names; one that holds a comma is put in quotes."""
    return ", ".join(json.dumps(name, ensure_ascii=False) if "," in name else name for name in answer) or NONE


def _entities(answer: Sequence[Mapping[str, Any]], text: str, targets: Sequence[str]) -> str:
    return "; ".join(f"{span['label']}: {_spanned(span, text)}" for span in answer)


def _spanned(span: Mapping[str, Any], text: str) -> str:
    """A span's words; their numbers where it was made of another text, so that its letters are no words of this one."""
    start, end = span["start"], span["end"]
    if start < end <= len(text) and not (text[start - 1 : start].strip() or text[end : end + 1].strip()):
        return text[start:end]
    first, last = span["first_word"] + 1, span["last_word"] + 1
    return f"word {first}" if first == last else f"words {first} to {last}"


def _likelihood(answer: Mapping[str, Any], text: str, targets: Sequence[str]) -> str:
    return f"{answer['nll']:,.1f} nats over {answer['tokens']:,} tokens"


def _ranking(answer: Mapping[str, Any], text: str, targets: Sequence[str]) -> str:
    found = answer["ranks"]
    return f"{answer['first']} (right: rank {', '.join(f'{rank:,}' for rank in found)})"


def _is_span(answer: Any) -> bool:
    return isinstance(answer, Mapping) and "first_word" in answer


def _is_likelihood(answer: Any) -> bool:
    return isinstance(answer, Mapping) and answer.keys() == {"nll", "tokens"}


def _is_ranking(answer: Any) -> bool:
    return isinstance(answer, Mapping) and answer.keys() == {"first", "ranks"}


# how the forms of answers are told apart, and how each is written; an empty list is an empty set of labels or of entities
FORMS: Sequence[tuple[Callable[[Any], bool], Callable[[Any, str, Sequence[str]], str]]] = (
    (_is_number, _number),
    (_is_likelihood, _likelihood),
    (_is_ranking, _ranking),
    (_all(lambda part: isinstance(part, str)), _labels),
    (_all(_is_number), _numbers),
    (_all(_is_span), _entities),
)


def shortened(whole: str) -> dict[str, str]:
    """A text; `short` is its beginning where it is long, and empty where it is not."""
    return {"short": whole[:LONG].rstrip() + " …" if len(whole) > LONG else "", "whole": whole or "(empty)"}
