"""A conversation with the model of a run, as a person has it: questions, streamed answers, what is remembered.

Answers go to one console (stdout), what pegbox itself has to say to another (stderr). A model's words are shown without
control characters, so that no answer can operate the terminal.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.console import Console
from rich.text import Text

from pegbox.data.records import Row
from pegbox.finished import Run
from pegbox.models.generation import Kept
from pegbox.report.written import written
from pegbox.tasks.language import LanguageTask

BEST = 3  # labels shown

Message = dict[str, str]


@dataclass
class Conversation:
    """What was said so far: user and assistant by turns; of a completion run only the last text and how it went on."""

    run: Run
    console: Console
    told: Console
    max_new_tokens: int
    do_sample: bool
    turns: list[Message] = field(default_factory=list)
    forgotten: int = 0  # turns at the beginning that are no longer shown to the model
    kept: dict[bool, Kept] = field(default_factory=lambda: {False: Kept(), True: Kept()})  # of the base: True
    left: bool = False

    def __post_init__(self) -> None:
        self.kind = self.run.task.kind
        self.system = self.run.recipe.data.instruction

    def say(self, text: str) -> None:
        """Words of pegbox's own."""
        self.told.print(text, style="dim", markup=False)

    def hear(self, text: str) -> None:
        """Answer what was typed; for a completion every space of it counts."""
        if not text.strip():
            return
        if isinstance(self.run.task, LanguageTask):
            self._question(text if self.kind == "completion" else text.strip())
        else:
            self._judge(text.strip())

    def messages(self) -> list[Message]:
        """The whole conversation, behind the system message."""
        return [*self._opening(), *self.turns]

    def _opening(self) -> list[Message]:
        return [] if self.system is None else [{"role": "system", "content": self.system}]

    def _asked(self) -> str | list[Message]:
        """What the model is given: all turns up to the last question; of a completion run the last text."""
        last = max(index for index, turn in enumerate(self.turns) if turn["role"] == "user")
        if self.kind == "completion":
            return self.turns[last]["content"]
        return [*self._opening(), *self.turns[self.forgotten : last + 1]]

    def pieces(self, *, base: bool) -> Iterator[str]:
        """The answer to what was asked last."""
        return self.run.stream(
            self._asked(),
            max_new_tokens=self.max_new_tokens,
            do_sample=self.do_sample,
            base=base,
            kept=self.kept[base],
        )

    def _question(self, text: str) -> None:
        """Answer, and note what was said, also where the answer was stopped."""
        before, forgotten, said = list(self.turns), self.forgotten, None
        self.turns = [*(before if self.kind == "chat" else []), {"role": "user", "content": text}]
        try:
            self._make_room()
            said = self.show(self.pieces(base=False))
        finally:
            if said is None:  # refused, or stopped before a word was said
                self.turns, self.forgotten = before, forgotten
            else:
                self.turns.append({"role": "assistant", "content": said})

    def show(self, pieces: Iterator[str]) -> str | None:
        """Write an answer as it comes, up to its end or Ctrl-C. None where it was stopped before a word was said."""
        said, stopped = "", False
        try:
            for piece in pieces:
                said += piece
                self.console.file.write(printable(piece))  # not through rich, which would expand tabs
                self.console.file.flush()
        except KeyboardInterrupt:
            stopped = True
        self.console.print()
        if stopped:
            self.say("(stopped)" if said else "(stopped; the question is taken back)")
        return None if stopped and not said else said

    def _make_room(self) -> None:
        """Leave away the oldest turns until the rest and an answer fit into the model, and say so."""
        before = self.forgotten
        while self.forgotten + 2 < len(self.turns):
            if len(self.run.prompt(self._asked())) + self.max_new_tokens <= self.run.limit:
                break
            self.forgotten += 2
        if dropped := self.forgotten - before:
            self.say(
                f"the conversation and an answer of up to {self.max_new_tokens} tokens are more than the {self.run.limit}"
                f" that the model takes: it no longer sees the {dropped} oldest messages ({self.forgotten} in all)"
            )

    def _judge(self, text: str) -> None:
        """Write what the model says of a text, and the likeliest labels with their probabilities, where it gives them."""
        task = self.run.task
        values = {self.run.recipe.data.column(role): value for role, value in task.typed(text).items()}
        record = self.run.task_record(Row("the text", values))
        given = self.run.answers([record], lambda rows: None)
        answer, shares = given.answers[0], given.probabilities[0] if given.probabilities else {}
        told = (
            []
            if isinstance(answer, str)
            else [Text(printable(written(answer, task.shown(record), task.labels)), "bold")]
        )
        best = sorted(shares.items(), key=lambda label: -label[1])[:BEST]
        told += [Text(f"{printable(name)} {share:.3f}", "bold" if name == answer else "dim") for name, share in best]
        self.console.print(Text("  ").join(told))


def printable(text: str) -> str:
    """A text without the control characters that would operate a terminal; line breaks and tabs stay."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(char) == "Cc" and char not in "\n\t" else char
        for char in text
    )
