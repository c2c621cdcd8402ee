"""Stretches of a text that should not be there: told without being shown, and taken out.

What stands in a stretch never leaves this file whole: a message shows at most its first and last two characters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from pegbox.data.doctor.findings import Finding, count_of
from pegbox.data.doctor.texts import whole
from pegbox.data.records import Record

PREVIEWS = 3
VISIBLE = 2  # characters at either end of a preview


class Span(NamedTuple):
    """A stretch `text[start:end]` and what it is: EMAIL, IBAN, GITHUB_TOKEN, ..."""

    kind: str
    start: int
    end: int


def merged(spans: Iterable[Span]) -> list[Span]:
    """In order, those that overlap made one; it is of the kind that begins first, of the first named among equals."""
    found: list[Span] = []
    for span in sorted(spans, key=lambda span: span.start):
        if found and span.start < found[-1].end:
            found[-1] = found[-1]._replace(end=max(found[-1].end, span.end))
        else:
            found.append(span)
    return found


def masked(text: str, span: Span) -> str:
    """A preview: the first and last two characters at most, and of a short stretch fewer."""
    shown = min(VISIBLE, (span.end - span.start) // 6)
    ends = text[span.start : span.start + shown], text[span.end - shown : span.end]
    return "…".join("".join(letter if letter.isprintable() else "?" for letter in end) for end in ends)


def redacted(text: str, find: Callable[[str], list[Span]]) -> str:
    """The text with `[KIND]` in place of each stretch, until none is found: what is taken out may bare another."""
    while spans := find(text):
        for span in reversed(spans):
            text = f"{text[: span.start]}[{span.kind}]{text[span.end :]}"
    return text


class SpanCheck:
    """Counts the stretches that `find` finds by kind, and lists their rows."""

    def __init__(self, check: str, find: Callable[[str], list[Span]], what: str, cure: str) -> None:
        self.check, self.find, self.what, self.cure = check, find, what, cure
        self.rows: list[str] = []
        self.kinds: Counter[str] = Counter()
        self.previews: list[str] = []

    def see(self, record: Record) -> None:
        """Look at everything that a person wrote in the row."""
        text = whole(record.content)
        if spans := self.find(text):
            self.rows.append(record.where)
            self.kinds.update(span.kind for span in spans)
            if len(self.previews) < PREVIEWS:
                self.previews.append(masked(text, spans[0]))

    def findings(self) -> Iterator[Finding]:
        """One warning, with the kinds counted."""
        if self.rows:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.most_common())
            has = count_of(len(self.rows), "holds", "hold")
            message = f"{has} {self.what}: {kinds} (such as {', '.join(self.previews)})"
            yield Finding(self.check, "warning", tuple(self.rows), message, self.cure)
