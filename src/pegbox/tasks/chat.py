"""`chat`: a conversation through the model's own template. The last trained turn is the answer, given the true history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import PreTrainedModel

from pegbox.data.records import Conversation, Example, Message, Record
from pegbox.tasks.base import Predictions
from pegbox.tasks.language import LanguageTask
from pegbox.tasks.translation_memory import remembered


class Chat(LanguageTask):
    """Learns the assistant's turns of conversations."""

    kind = "chat"

    def encode(self, record: Record) -> Example:
        """All turns, those of the assistant trained by their weight."""
        tokens = self.renderer.conversation(_conversation(record))
        return Example(record.where, tuple(tokens.input_ids), tuple(tokens.loss_weights))

    def prompt(self, record: Record, shots: Sequence[Record]) -> list[int]:
        """The true history up to the answer, the shots between its system message and the rest."""
        history, _ = _asked(record)
        tools = _conversation(record).tools
        opening = [message for message in history[:1] if message.role == "system"]
        shown = [m for shot in shots for m in _conversation(shot).messages if m.role != "system"]
        return self.renderer.prompt([*opening, *shown, *history[len(opening) :]], tools)

    def said(self, ids: Sequence[int], *, whole: bool = True) -> str:
        """The answer without what the template puts around it."""
        return self.renderer.reply(ids, whole=whole)

    def shown(self, record: Record) -> str:
        """The turns before the answer; the system's message is the same for all and left away."""
        history, _ = _asked(record)
        turns = [message for message in history if message.role != "system"]
        if len(turns) == 1:
            return turns[0].text
        return "\n".join(f"{message.role}: {message.text}" for message in turns)

    def reference(self, record: Record) -> str:
        """The content of the last trained turn, or how the template writes its calls of tools."""
        return self.renderer.turn(_conversation(record), len(_asked(record)[0]))

    def rivals(
        self,
        base: PreTrainedModel,
        train: Sequence[Record],
        validation: Sequence[Record],
        test: Sequence[Record],
    ) -> Mapping[str, Predictions]:
        """Where all rows tell a source and its target: what a memory of the training rows makes of each source."""
        told = all(_conversation(record).of_source for records in (train, test) for record in records)
        return remembered(self, train, test) if told else {}


def _conversation(record: Record) -> Conversation:
    assert isinstance(record.content, Conversation)
    return record.content


def _asked(record: Record) -> tuple[tuple[Message, ...], Message]:
    """The history and the answer: the last turn with a weight."""
    messages = _conversation(record).messages
    last = max(index for index, message in enumerate(messages) if message.weight > 0)
    return messages[:last], messages[last]
