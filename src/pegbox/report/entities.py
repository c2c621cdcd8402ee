"""Entity spans against the right ones: marked in their text, and counted by what became of each.

Spans are those of `predictions.jsonl`, `{"label", "start", "end", "first_word", "last_word"}`; one is right where its label
and its words are. Of the others, each right span is paired with one answer at most: one of the same words, else one that
overlaps it. What is left over was missed, or invented.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

Spans = Sequence[Mapping[str, Any]]
Piece = tuple[str, ...]  # ("same", text), or (kind, text, what is said of it)
RIGHT, MISSED, INVENTED, MIXED = "right", "missed", "invented", "mixed"
OUTCOMES = {
    RIGHT: "found, with the right words and label",
    "label": "found, with another label",
    "words": "found in part: other words",
    MISSED: "missed",
    INVENTED: "invented: where there is none",
}
Key = tuple[str, int, int]  # label, first word, last word


def _keys(spans: Spans) -> dict[Key, tuple[int, int]]:
    """Where each span stands in the text, in characters."""
    return {(span["label"], span["first_word"], span["last_word"]): (span["start"], span["end"]) for span in spans}


def marked(text: str, reference: Spans, answer: Spans) -> list[Piece]:
    """The text in pieces, those with a span marked as right, missed or invented; overlapping spans are one piece."""
    true, told = _keys(reference), _keys(answer)
    found = [
        (*place, RIGHT if key in true and key in told else MISSED if key in true else INVENTED, key[0])
        for key, place in (true | told).items()
    ]
    pieces: list[Piece] = []
    done = 0
    for start, end, spans in _together(sorted(found)):
        pieces += [("same", text[done:start])] if start > done else []
        kinds = {kind for _, _, kind, _ in spans}
        said = [
            f"{label} {kind}" + ("" if (a, b) == (start, end) else f" ({text[a:b]})") for a, b, kind, label in spans
        ]
        pieces.append((kinds.pop() if len(kinds) == 1 else MIXED, text[start:end], ", ".join(said)))
        done = end
    return pieces + ([("same", text[done:])] if done < len(text) else [])


def _together(found: Sequence[tuple[int, int, str, str]]) -> list[tuple[int, int, list[tuple[int, int, str, str]]]]:
    """Spans in order of place, those that overlap put together: (start, end, spans)."""
    groups: list[tuple[int, int, list[tuple[int, int, str, str]]]] = []
    for span in found:
        if groups and span[0] < groups[-1][1]:
            start, end, spans = groups[-1]
            groups[-1] = (start, max(end, span[1]), [*spans, span])
        else:
            groups.append((span[0], span[1], [span]))
    return groups


def outcomes(lines: Sequence[Mapping[str, Any]], system: str) -> Counter[str]:
    """How many spans of all rows came to each of `OUTCOMES`."""
    counts: Counter[str] = Counter()
    for line in lines:
        counts += _of_row(line["reference"], line["answers"][system] or ())
    return counts


def _of_row(reference: Spans, answer: Spans) -> Counter[str]:
    true, told = set(_keys(reference)), set(_keys(answer))
    counts = Counter({RIGHT: len(true & told)})
    left = sorted(told - true, key=lambda key: key[1:])
    for fits, outcome in ((_same_words, "label"), (_overlap, "words")):
        for key in sorted(true - told, key=lambda key: key[1:]):
            if other := next((span for span in left if fits(key, span)), None):
                counts[outcome] += 1
                left.remove(other)
                true.remove(key)
    return counts + Counter({MISSED: len(true - told), INVENTED: len(left)})


def _same_words(one: Key, other: Key) -> bool:
    return one[1:] == other[1:]


def _overlap(one: Key, other: Key) -> bool:
    return one[1] <= other[2] and other[1] <= one[2]
