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


Spans = tuple[tuple[int, int], ...]  # of characters: from the first up to the one behind the last


@dataclass(frozen=True)
class ToolCall:
    """A tool that the assistant calls. `arguments`: a JSON object as text; `id`: by it the tool's turn answers."""

    name: str
    arguments: str
    id: str | None = None


@dataclass(frozen=True)
class Message:
    """One turn. `weight` is the loss weight of an assistant's turn; the turns of others are never trained.

    `trained`: the characters of the content that are trained, in order (None: all of them).
    """

    role: str
    content: str
    weight: float = 0.0
    trained: Spans | None = None
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """What is said, for people: the content, and the calls of tools."""
        return "\n".join([self.content] * bool(self.content) + [f"{c.name}({c.arguments})" for c in self.tool_calls])


@dataclass(frozen=True)
class Conversation:
    """Turns in order. The last trained turn is the answer that evaluation asks for. `tools`: each as JSON text.

    `of_source`: the row told a source and its target, which are the two turns.
    """

    messages: tuple[Message, ...]
    tools: tuple[str, ...] = ()
    of_source: bool = False


@dataclass(frozen=True)
class PromptCompletion:
    """A text and how it goes on; the completion is trained, or these characters of it."""

    prompt: str
    completion: str
    trained: Spans | None = None


@dataclass(frozen=True)
class PlainText:
    """A text that is trained whole. `asked`: the characters that somebody asks for, from the first up to the one behind."""

    text: str
    asked: tuple[int, int] | None = None


@dataclass(frozen=True)
class LabelledText:
    """A text (or a pair of texts) and the name of its label."""

    text: str
    label: str
    text_pair: str | None = None


@dataclass(frozen=True)
class LabelSetText:
    """A text (or a pair of texts) and the names of its labels, sorted; there may be none."""

    text: str
    labels: tuple[str, ...]
    text_pair: str | None = None


@dataclass(frozen=True)
class ScoredText:
    """A text (or a pair of texts) and its score by the name of the target; there may be several targets."""

    text: str
    scores: Mapping[str, float]
    text_pair: str | None = None


@dataclass(frozen=True)
class TaggedWords:
    """The words of a sentence, and a tag for each."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True)
class SourceTarget:
    """A text and what is made of it: its translation, its summary."""

    source: str
    target: str


@dataclass(frozen=True)
class MatchedTexts:
    """A text and another: one that matches it, beside one that does not (`negative`); or `score`, how alike they are."""

    text: str
    text_pair: str
    negative: str | None = None
    score: float | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """Those that there are."""
        return (self.text, self.text_pair) if self.negative is None else (self.text, self.text_pair, self.negative)


@dataclass(frozen=True)
class Preference:
    """Two answers to the same, each with what stands before it; the first is the better one."""

    chosen: Conversation | PromptCompletion
    rejected: Conversation | PromptCompletion


WholeText = LabelledText | LabelSetText | ScoredText
Content = (
    Conversation | PromptCompletion | PlainText | WholeText | TaggedWords | SourceTarget | MatchedTexts | Preference
)


@dataclass(frozen=True)
class Record:
    """A row that has been understood: where it stood, what it holds, and what it belongs together with.

    `group`: rows of the same one stay on one side of a split. `sensitive`: whom the row is about, where fairness is asked.
    """

    where: str
    content: Content
    group: str | None = None
    sensitive: str | None = None


@dataclass(frozen=True)
class Example:
    """A record in tokens.

    `input_ids` int [T]; `loss_weights` float [T], the weight of each token *as a target* (empty for a task whose loss
    is over whole rows); `targets` float [K], what is learnt of the whole row; `token_labels` int [T], what is predicted
    *at* each token that has a weight. Without them a token with a weight is predicted from those before it.
    `lengths`: the tokens of each of several texts, one behind another, that the model takes one by one (of an
    encoder-decoder those of the source and of the target); none: it is one.
    """

    where: str
    input_ids: tuple[int, ...]
    loss_weights: tuple[float, ...] = ()
    targets: tuple[float, ...] = ()
    token_labels: tuple[int, ...] = ()
    token_type_ids: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def longest(self) -> int:
        """The most tokens that the model reads at once."""
        return max(self.lengths, default=len(self))

    @property
    def written(self) -> int:
        """The tokens of a target that is written by another part than reads the source; 0 where there is none."""
        return self.lengths[-1] if self.lengths and self.loss_weights else 0

    @property
    def room(self) -> int:
        """The tokens that it takes of a padded batch in which no text is longer."""
        return max(1, len(self.lengths)) * self.longest

    @property
    def weight(self) -> float:
        """The total weight of what is learnt here. Nothing comes before the first token, so it is never predicted."""
        if not self.loss_weights:
            return float(len(self) > 0)
        return sum(self.loss_weights if self.token_labels else self.loss_weights[1:])
