"""Which of the labels a causal language model would say of a text: the untouched model as a classifier, with and without shots.

    l_c(x)   = sum of the log-probabilities of the tokens of label c behind the prompt for the text x
    score    = mean over two ways to ask of  log p_c(x) - log mean over x0 of p_c(x0),  p = softmax of l
    told     : the label of the greatest score; the probability of each is the softmax of the scores

A rival has to be as strong as a person would make it who prompts with care; docs/log.md has the figures behind each choice.

What a model says whatever the text is taken off, by three texts x0 that say nothing: the contextual calibration of Zhao
et al. 2021 (arXiv 2102.09690, section 5), W = diag(1 / p(x0)) and b = 0, with their "N/A", "[MASK]" and empty text behind the
same shots; it is also the pointwise mutual information of Holtzman et al. 2021 (arXiv 2104.08315) with such a text as the
domain's premise. (Zhao takes a softmax of W p; here W p is divided by its sum, which is the same order.) It serves labels
of unlike length too, so log-probabilities are summed: a mean over tokens, the other remedy, forgives a label its long,
certain ending. Calibration by the test rows themselves (Zhou et al. 2023, arXiv 2309.17249) would let an answer hang on
the other rows.

A question may list the labels or not: a list tells a model what is asked for, and leads a small one astray. Neither is best
for all, so both are asked where labels are few, and the mean of their scores counts.

The end of a label is scored only where one label begins another: "yes" could not be less likely than "yes, please" else.
Labels of which none begins another exclude each other without it, and whether a model would stop there is noise.

A model with a chat template is asked in turns of that, any other in plain text. A text is cut at its end where the prompt
would be longer than the model's positions.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from transformers import PreTrainedModel

from pegbox.data.records import Conversation, LabelledText, Message, PromptCompletion, Record
from pegbox.data.render import Renderer, Tokens
from pegbox.errors import RecipeError
from pegbox.metrics import FloatArray
from pegbox.models.generation import CLOSE
from pegbox.models.likelihood import log_likelihoods
from pegbox.models.prefix_tree import shared_prefix
from pegbox.tasks.base import Advance
from pegbox.tasks.calibration import softmax
from pegbox.tasks.whole_text import whole_text

SAY_NOTHING = ("N/A", "[MASK]", "")
LISTED = 50  # the most labels whose names stand in a question
Shots = Sequence[tuple[str, str]]  # how a text is shown, and its label
Ids = tuple[int, ...]


class Turns:
    """Asks in the model's own chat template: the question opens the first turn of the user, a label is an answer."""

    def __init__(self, renderer: Renderer, labels: Sequence[str]) -> None:
        self.renderer = renderer
        names = "\n".join(sorted(labels))
        listed = f"Which label fits the text? Answer with nothing but one of these labels:\n{names}\n\n"
        bare = "Which label fits the text? Answer with nothing but the label\n\n"
        self.questions = (listed, bare) if len(labels) <= LISTED else (bare,)

    def prompt(self, question: str, shown: str, shots: Shots) -> list[int]:
        """The ids in front of a label. Raises ValueError or RecipeError where the template does not take the texts."""
        turns = [turn for text, label in shots for turn in (Message("user", text), Message("assistant", label))]
        first, *others = [*turns, Message("user", shown)]
        return self.renderer.prompt([Message("user", question + first.content), *others])

    def answer(self, label: str, *, ended: bool) -> Ids:
        """The ids of a label, and of the end of the turn. Raises likewise."""
        said = (Message("user", self.questions[0]), Message("assistant", label, 1.0))
        ids = _learnt(self.renderer.conversation(Conversation(said)))
        return ids if ended else ids[:-1]


class Lines:
    """Asks in plain text, where there is no chat template: a label stands behind its text and ends in a blank line."""

    def __init__(self, renderer: Renderer, labels: Sequence[str]) -> None:
        self.renderer = renderer
        listed = "Each text has one of these labels:\n" + "\n".join(sorted(labels)) + "\n\n"
        self.questions = (listed, "") if len(labels) <= LISTED else ("",)

    def prompt(self, question: str, shown: str, shots: Shots) -> list[int]:
        """The ids in front of a label."""
        told = "".join(f"{text}\nLabel: {label}\n\n" for text, label in shots)
        return self.renderer.completion_prompt(f"{question}{told}{shown}\nLabel:")

    def answer(self, label: str, *, ended: bool) -> Ids:
        """The ids of a label, and of the blank line. Raises ValueError or RecipeError where they cannot be written."""
        told = PromptCompletion("Label:", f" {label}\n\n" if ended else f" {label}")
        return _learnt(self.renderer.prompt_completion(told))[:-1]  # without the end of the whole text


def _learnt(tokens: Tokens) -> Ids:
    pairs = zip(tokens.input_ids, tokens.loss_weights, strict=True)
    return tuple(token for token, weight in pairs if weight > 0)


def _answers(form: Turns | Lines, labels: Sequence[str]) -> tuple[Ids, ...]:
    """The ids of the labels, with their ends where one begins another. Raises ValueError or RecipeError."""
    bare = [form.answer(label, ended=False) for label in labels]
    ordered = sorted(bare)  # in which the first that begins with another stands behind it
    begins = any(other[: len(one)] == one for one, other in pairwise(ordered))
    return tuple(form.answer(label, ended=True) for label in labels) if begins else tuple(bare)


@dataclass(frozen=True)
class Way:
    """A form of prompt, and the ids of each label in it."""

    form: Turns | Lines
    answers: tuple[Ids, ...]

    @property
    def longest(self) -> int:
        """The tokens of the longest label."""
        return max(map(len, self.answers))

    def likelihoods(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], advance: Advance) -> FloatArray:
        """float64 [prompts, labels]: log-likelihoods, less that of what all labels begin with: it tells nothing apart."""
        common = shared_prefix(self.answers)
        asked = [[*prompt, *self.answers[0][:common]] for prompt in prompts]
        return log_likelihoods(model, asked, [answer[common:] for answer in self.answers], advance)

    def prompt(self, question: str, shown: str, shots: Shots, room: int) -> list[int]:
        """The prompt within `room` tokens, the text cut at its end where it must be."""
        renderer = self.form.renderer
        while (beyond := len(ids := self.form.prompt(question, shown, shots)) - room) > 0 and shown:
            shown = renderer.decode(renderer.encode(shown)[:-beyond])[: len(shown) - 1]
        return ids[-room:]


class Ranking:
    """The labels of a task, and the ways in which they can be asked for."""

    def __init__(self, renderer: Renderer, labels: Sequence[str]) -> None:
        assert labels
        self._ways: list[Way] = []
        for form in (Turns, Lines):
            with suppress(ValueError, RecipeError):  # no chat template, or none of use; a label that cannot be written
                made = form(renderer, labels)
                self._ways.append(Way(made, _answers(made, labels)))

    @property
    def can_be_asked(self) -> bool:
        """Whether the model's tokenizer can write every label."""
        return bool(self._ways)

    def prompt_length(self, record: Record, shots: Sequence[Record]) -> int:
        """The tokens of a row's longest prompt and of the longest label behind it."""
        way = self._way([record], shots)
        return len(way.form.prompt(way.form.questions[0], _shown(record), _labelled(shots))) + way.longest

    def probabilities(
        self, model: PreTrainedModel, records: Sequence[Record], shots: Sequence[Record], advance: Advance
    ) -> FloatArray:
        """float64 [rows, labels]: how likely each label is, in the order of the labels."""
        way, told = self._way(records, shots), _labelled(shots)
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize

        def likelihoods(question: str, texts: Sequence[str], advance: Advance) -> FloatArray:
            prompts = [way.prompt(question, text, told, limit - way.longest) for text in texts]
            return way.likelihoods(model, prompts, advance)

        pairs = any(whole_text(record).text_pair is not None for record in records)
        nothing = [_framed(text, text if pairs else None) for text in SAY_NOTHING]
        texts, counted = [_shown(record) for record in records], _rows_told(advance, len(way.form.questions))
        scores = [
            likelihoods(question, texts, counted) - _log_mean(likelihoods(question, nothing, lambda rows: None))
            for question in way.form.questions
        ]
        return softmax(np.mean(scores, axis=0))

    def _way(self, records: Sequence[Record], shots: Sequence[Record]) -> Way:
        """The first way that takes all the texts; the last takes any."""
        for way in self._ways[:-1]:
            with suppress(ValueError, RecipeError):
                for record in records:
                    way.form.prompt(way.form.questions[0], _shown(record), _labelled(shots))
                return way
        return self._ways[-1]


def _rows_told(advance: Advance, times: int) -> Advance:
    """Tells of a row when it has been counted so many times."""
    counted = 0

    def count(rows: int) -> None:
        nonlocal counted
        before, counted = counted // times, counted + rows
        advance(counted // times - before)

    return count


def _log_mean(likelihoods: FloatArray) -> FloatArray:
    """The logarithm [labels] of the mean of the rows' probabilities, up to a constant."""
    shares = likelihoods - np.logaddexp.reduce(likelihoods, axis=1, keepdims=True)
    mean: FloatArray = np.logaddexp.reduce(shares, axis=0)
    return mean


def count_close(probabilities: FloatArray) -> int:
    """How many rows [n, labels] hang on less than rounding: the two best labels are nearly as likely."""
    best = np.sort(probabilities, axis=1)[:, -2:]
    return int((best[:, 0] >= best[:, 1] * np.exp(-CLOSE)).sum())


def _shown(record: Record) -> str:
    content = whole_text(record)
    return _framed(content.text, content.text_pair)


def _framed(text: str, text_pair: str | None) -> str:
    return f"Text: {text}" if text_pair is None else f"Text 1: {text}\nText 2: {text_pair}"


def _labelled(shots: Sequence[Record]) -> Shots:
    return [(_shown(shot), _label(shot)) for shot in shots]


def _label(record: Record) -> str:
    content = whole_text(record)
    assert isinstance(content, LabelledText)
    return content.label
