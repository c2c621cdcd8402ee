"""What a row becomes on its way: a row as it stands in a file, then a typed record, then an example in tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One row of a user's file: its values, and where it stands (`file:line`)."""

    where: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Message:
    """One turn. `weight` is the loss weight of an assistant's turn; the turns of others are never trained."""

    role: str
    content: str
    weight: float = 0.0


@dataclass(frozen=True)
class Conversation:
    """Turns in order. The last trained turn is the answer that evaluation asks for."""

    messages: tuple[Message, ...]


@dataclass(frozen=True)
class PromptCompletion:
    """A text and how it goes on; the completion is trained."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class PlainText:
    """A text that is trained whole."""

    text: str


@dataclass(frozen=True)
class LabelledText:
    """A text (or a pair of texts) and the name of its label."""

    text: str
    label: str
    text_pair: str | None = None


Content = Conversation | PromptCompletion | PlainText | LabelledText


@dataclass(frozen=True)
class Record:
    """A row that has been understood: where it stood, what it holds, and what it belongs together with."""

    where: str
    content: Content
    group: str | None = None


@dataclass(frozen=True)
class Example:
    """A record in tokens.

    `input_ids` int [T]; `loss_weights` float [T], the weight of each token *as a target* (empty for a task whose loss
    is not over tokens); `label` is the class index of a task that has one.
    """

    where: str
    input_ids: tuple[int, ...]
    loss_weights: tuple[float, ...] = ()
    label: int = -1
    token_type_ids: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def weight(self) -> float:
        """The total weight of what is learnt here. Nothing comes before the first token, so it is never a target."""
        return sum(self.loss_weights[1:]) if self.loss_weights else float(len(self) > 0)
