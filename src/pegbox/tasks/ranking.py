"""Which of the labels a causal language model would say of a text: the untouched model as a classifier, with and without shots.

    l_c(x)   = sum of the log-probabilities of the tokens of label c behind the prompt for the text x
    p_c(x)   = softmax of l(x)
    score    = log p_c(x) - log mean over x0 of p_c(x0)         x0: texts that say nothing
    told     : the label of the greatest score; the probability of each is the softmax of the scores

The rival has to be as strong as a person would make it who prompts with care, so what a model says whatever the text is
taken off. That is the contextual calibration of Zhao et al. 2021 (arXiv 2102.09690, section 5): W = diag(1 / p(x0)), b = 0,
with their three texts, "N/A", "[MASK]" and the empty one, behind the same shots; it is also the pointwise mutual information
of Holtzman et al. 2021 (arXiv 2104.08315) with such a text as the domain's premise. (Zhao takes a softmax of W p, here W p is
divided by its sum: the same order.) It serves labels of unlike length, too, so log-probabilities are summed: a mean over
tokens, the other remedy, has no probability that it is the logarithm of, and forgives a label its long, certain ending.
The end of a label is scored only where one label begins another: "yes" could not be less likely than "yes, please" else.
Labels of which none begins another exclude each other without it, and whether a model would stop there is noise.
Calibration by the
test rows themselves (Zhou et al. 2023, arXiv 2309.17249) is no choice: an answer would hang on the other rows.

A model with a chat template is asked in turns of that, any other in plain text. The names of the labels stand in the
prompt where they are few. A text is cut at its end where the prompt would be longer than the model's positions.

The prompt is computed once for all labels where the model can be packed; else once for each.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from transformers import PreTrainedModel

from pegbox.data.records import Conversation, Example, LabelledText, Message, PromptCompletion, Record
from pegbox.data.render import Renderer, Tokens
from pegbox.errors import RecipeError
from pegbox.metrics import FloatArray
from pegbox.models.batch import Batch, at_least_float32, learnt_logits, pack, pad
from pegbox.models.generation import CLOSE
from pegbox.models.load import enable_packing, kernels_of
from pegbox.tasks.base import Advance
from pegbox.tasks.calibration import softmax
from pegbox.tasks.whole_text import whole_text

SAY_NOTHING = ("N/A", "[MASK]", "")
LISTED = 50  # the most labels whose names stand in the prompt
LABELS_AT_ONCE = 64
KEYS_AT_ONCE = {
    True: 2**15,
    False: 2**11,
}  # packed or not: the most tokens of a batch, those of the prompt once a label
Shots = Sequence[tuple[str, str]]  # how a text is shown, and its label


class Turns:
    """The prompt in the model's own chat template: what is asked in the first turn of the user, a label as an answer."""

    def __init__(self, renderer: Renderer, labels: Sequence[str]) -> None:
        self.renderer = renderer
        one_of = " one of these labels:\n" + "\n".join(sorted(labels)) if len(labels) <= LISTED else " the label"
        self.asked = f"Which label fits the text? Answer with nothing but{one_of}\n\n"

    def prompt(self, shown: str, shots: Shots) -> list[int]:
        """The ids in front of a label. Raises ValueError or RecipeError where the template does not take the texts."""
        turns = [turn for text, label in shots for turn in (Message("user", text), Message("assistant", label))]
        first, *others = [*turns, Message("user", shown)]
        return self.renderer.prompt([Message("user", self.asked + first.content), *others])

    def answer(self, label: str, *, ended: bool) -> tuple[int, ...]:
        """The ids of a label, and of the end of the turn. Raises likewise."""
        said = (Message("user", self.asked), Message("assistant", label, 1.0))
        ids = _learnt(self.renderer.conversation(Conversation(said)))
        return ids if ended else ids[:-1]


class Lines:
    """The prompt as plain text, for a model without a chat template: a label stands behind its text and ends in a blank line."""

    def __init__(self, renderer: Renderer, labels: Sequence[str]) -> None:
        self.renderer = renderer
        names = "Each text has one of these labels:\n" + "\n".join(sorted(labels)) + "\n\n"
        self.asked = names if len(labels) <= LISTED else ""

    def prompt(self, shown: str, shots: Shots) -> list[int]:
        """The ids in front of a label."""
        told = "".join(f"{text}\nLabel: {label}\n\n" for text, label in shots)
        return self.renderer.completion_prompt(f"{self.asked}{told}{shown}\nLabel:")

    def answer(self, label: str, *, ended: bool) -> tuple[int, ...]:
        """The ids of a label, and of the blank line. Raises ValueError or RecipeError where they cannot be written."""
        told = PromptCompletion("Label:", f" {label}\n\n" if ended else f" {label}")
        return _learnt(self.renderer.prompt_completion(told))[:-1]  # without the end of the whole text


def _learnt(tokens: Tokens) -> tuple[int, ...]:
    pairs = zip(tokens.input_ids, tokens.loss_weights, strict=True)
    return tuple(token for token, weight in pairs if weight > 0)


def _answers(form: Turns | Lines, labels: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """The ids of the labels, with their ends where one begins another. Raises ValueError or RecipeError."""
    bare = [form.answer(label, ended=False) for label in labels]
    ordered = sorted(bare)  # in which the first that begins with another stands behind it
    begins = any(other[: len(one)] == one for one, other in pairwise(ordered))
    return tuple(form.answer(label, ended=True) for label in labels) if begins else tuple(bare)


@dataclass(frozen=True)
class _Way:
    """One form of the prompt, and the ids of each label in it."""

    form: Turns | Lines
    answers: tuple[tuple[int, ...], ...]

    @property
    def longest(self) -> int:
        return max(map(len, self.answers))


class Ranking:
    """The labels of a task, and the forms in which they can be asked for."""

    def __init__(self, renderer: Renderer, labels: Sequence[str]) -> None:
        assert labels
        self.renderer, self._ways = renderer, list[_Way]()
        for form in (Turns, Lines):
            with suppress(ValueError, RecipeError):  # no chat template, or none of use; a label that cannot be written
                made = form(renderer, labels)
                self._ways.append(_Way(made, _answers(made, labels)))

    @property
    def can_be_asked(self) -> bool:
        """Whether the model's tokenizer can write every label."""
        return bool(self._ways)

    def prompt_length(self, record: Record, shots: Sequence[Record]) -> int:
        """The tokens of a row's prompt and of the longest label behind it."""
        way = self._way([record], shots)
        return len(way.form.prompt(_shown(record), _labelled(shots))) + way.longest

    def probabilities(
        self, model: PreTrainedModel, records: Sequence[Record], shots: Sequence[Record], advance: Advance
    ) -> FloatArray:
        """float64 [rows, labels]: how likely each label is, in the order of the labels."""
        way = self._way(records, shots)
        limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize
        prompts = [self._prompt(way, _shown(record), shots, limit - way.longest) for record in records]
        pairs = any(whole_text(record).text_pair is not None for record in records)
        empty = [_framed(text, text if pairs else None) for text in SAY_NOTHING]
        empty_prompts = [self._prompt(way, text, shots, limit - way.longest) for text in empty]
        probe = [Example("probe", tuple(prompt), (1.0,) * len(prompt)) for prompt in prompts]
        packed = kernels_of(model)["attention"] == "packed" or enable_packing(model, probe)
        pad_id = int(self.renderer.tokenizer.pad_token_id)

        def likelihoods(prompt: Sequence[int]) -> FloatArray:
            return log_likelihoods(model, prompt, way.answers, packed=packed, pad_id=pad_id)

        nothing = np.stack([likelihoods(prompt) for prompt in empty_prompts])
        prior = np.logaddexp.reduce(nothing - np.logaddexp.reduce(nothing, axis=1, keepdims=True), axis=0)
        found = []
        for prompt in prompts:
            found.append(likelihoods(prompt) - prior)
            advance(1)
        return softmax(np.stack(found))

    def _way(self, records: Sequence[Record], shots: Sequence[Record]) -> _Way:
        """The first form that takes all the texts; the last takes any."""
        for way in self._ways[:-1]:
            with suppress(ValueError, RecipeError):
                for record in records:
                    way.form.prompt(_shown(record), _labelled(shots))
                return way
        return self._ways[-1]

    def _prompt(self, way: _Way, shown: str, shots: Sequence[Record], room: int) -> list[int]:
        """The prompt within `room` tokens, the text cut at its end where it must be."""
        while (beyond := len(ids := way.form.prompt(shown, _labelled(shots))) - room) > 0 and shown:
            text = self.renderer.encode(shown)
            shown = self.renderer.decode(text[:-beyond])[: len(shown) - 1]
        return ids[-room:]


@torch.inference_mode()
def log_likelihoods(
    model: PreTrainedModel, prompt: Sequence[int], answers: Sequence[Sequence[int]], *, packed: bool, pad_id: int
) -> FloatArray:
    """float64 [answers]: the sum of the log-probabilities of each answer's tokens behind the prompt."""
    found = []
    for some in _parts(prompt, answers, packed=packed):
        examples = [_scored(prompt, answer) for answer in some]
        batch: Batch = pack(examples, share_prefix=True) if packed else pad(examples, pad_id)
        batch = batch.to(model.device)
        log_p = at_least_float32(learnt_logits(model, batch)).log_softmax(-1)
        tokens = log_p.gather(1, batch.targets[:, None])[:, 0].double().cpu()
        found += [part.sum().item() for part in tokens.split([len(answer) for answer in some])]
    return np.array(found)


def _scored(prompt: Sequence[int], answer: Sequence[int]) -> Example:
    """The answer's tokens as labels of the places before them; so its last one need not be computed on."""
    ids, weights = (*prompt, *answer), (*[0.0] * (len(prompt) - 1), *[1.0] * len(answer))
    return Example("ranking", ids[:-1], weights, token_labels=ids[1:])


def _parts(
    prompt: Sequence[int], answers: Sequence[Sequence[int]], *, packed: bool
) -> Iterator[Sequence[Sequence[int]]]:
    """The answers in as many batches as memory asks for."""
    longest = len(prompt) + max(map(len, answers))
    count = max(1, min(LABELS_AT_ONCE, KEYS_AT_ONCE[packed] // longest))
    return (answers[start : start + count] for start in range(0, len(answers), count))


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
