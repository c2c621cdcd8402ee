"""Rows that hold nothing where something is asked or answered, and rows that hold far too much."""

from __future__ import annotations

from collections.abc import Iterator

from pegbox.data.doctor.findings import Finding, count_of
from pegbox.data.doctor.texts import texts
from pegbox.data.records import Content, Conversation, Preference, PromptCompletion, Record, SourceTarget
from pegbox.recipe import Recipe

OVERSIZE = 1_000_000  # characters


class Empty:
    """The check `empty`: rows of which the question or the answer is nothing, or white space."""

    def __init__(self, recipe: Recipe) -> None:
        self.asked: list[str] = []
        self.answered: list[str] = []

    def see(self, record: Record) -> None:
        """Look at the question and the answer."""
        asked, answered = _sides(record.content)
        if not asked:
            self.asked.append(record.where)
        if not answered:
            self.answered.append(record.where)

    def findings(self) -> Iterator[Finding]:
        """One note; a row that has neither is named once."""
        rows = tuple(dict.fromkeys((*self.asked, *self.answered)))
        if rows:
            has = count_of(len(rows), "is empty", "are empty")
            message = (
                f"{has} in part: {len(self.asked)} without a text or question, {len(self.answered)} without an answer"
            )
            yield Finding("empty", "note", rows, message, "fill them in or take them out, unless this is meant")


class Oversize:
    """The check `oversize`: rows of more text than a row should have."""

    def __init__(self, recipe: Recipe) -> None:
        self.rows: list[str] = []
        self.longest = 0

    def see(self, record: Record) -> None:
        """Count the characters."""
        length = sum(map(len, texts(record.content)))
        if length > OVERSIZE:
            self.rows.append(record.where)
            self.longest = max(self.longest, length)

    def findings(self) -> Iterator[Finding]:
        """One note with the longest."""
        if self.rows:
            has = count_of(len(self.rows), "has", "have")
            message = f"{has} more than {OVERSIZE:,} characters (the longest {self.longest:,})"
            cure = "cut them into rows of their own, by chapter or page"
            yield Finding("oversize", "note", tuple(self.rows), message, cure)


def _sides(content: Content) -> tuple[bool, bool]:
    """Whether something is asked (or there is a text), and whether something answers; a turn that is not there does."""
    match content:
        case Conversation(messages):
            last = max((i for i, message in enumerate(messages) if message.weight > 0), default=len(messages))
            asked = any(message.text.strip() for message in messages[:last])
            return asked, all(message.text.strip() for message in messages[last : last + 1])
        case PromptCompletion(asked, answer) | SourceTarget(asked, answer):
            return bool(asked.strip()), bool(answer.strip())
        case Preference():
            sides = _sides(content.chosen), _sides(content.rejected)
            return all(asked for asked, _ in sides), all(answered for _, answered in sides)
        case _:
            return all(text.strip() for text in texts(content)), True
