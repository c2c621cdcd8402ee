"""Word by word, how an answer differs from the right one.

A longest-common-subsequence comparison (difflib's, after Ratcliff and Obershelp 1988) of words, signs and white space. White
space that alone is common between two changes is taken into both, so that a changed phrase reads as one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

MOST = 600  # words, signs and spaces of a text that is compared: the time grows with their square, to 30 ms here
SAME, MISSING, ADDED = "same", "del", "ins"  # the last two are the names of HTML's elements
_PIECES = re.compile(r"\w+|\s+|[^\w\s]")

Difference = Sequence[tuple[str, str]]  # (one of the three; text), in reading order


def difference(right: str, answer: str) -> Difference | None:
    """What `answer` leaves out of `right` and what it adds; None where a text is too long to compare."""
    ours, theirs = _PIECES.findall(right), _PIECES.findall(answer)
    if max(len(ours), len(theirs)) > MOST:
        return None
    steps = [
        ("".join(ours[a:b]), "".join(theirs[c:d]), kind == "equal")
        for kind, a, b, c, d in SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes()
    ]
    pieces: list[tuple[str, str]] = []
    missing = added = ""
    for place, (left, right_side, equal) in enumerate(steps):
        between = 0 < place < len(steps) - 1 and left.isspace()
        if not equal or between:
            missing, added = missing + left, added + right_side
            continue
        pieces += [*_changed(missing, added), (SAME, left)]
        missing = added = ""
    return pieces + _changed(missing, added)


def _changed(missing: str, added: str) -> list[tuple[str, str]]:
    return [(kind, text) for kind, text in ((MISSING, missing), (ADDED, added)) if text]
