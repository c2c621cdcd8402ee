"""`completion`: a prompt and how it goes on, or plain text learnt whole. No chat template.

Plain text is judged by perplexity: the text itself is the target. Its trivial rival is a unigram model of the training
tokens (add-one smoothed); few-shot means other texts before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel

from pegbox.data.records import Example, PlainText, PromptCompletion, Record
from pegbox.errors import DataError
from pegbox.models.likelihood import text_log_likelihoods
from pegbox.tasks.base import Advance, Predictions
from pegbox.tasks.language import LanguageTask
from pegbox.tasks.likelihoods import unigram

SEPARATOR = "\n\n"


class Completion(LanguageTask):
    """Learns completions of prompts, or texts; all rows of a data set have the same form."""

    kind = "completion"
    plain = False

    def observe(self, records: Sequence[Record]) -> None:
        """Find out which of the two forms the rows have."""
        forms = {type(record.content) for record in records}
        if len(forms) > 1:
            odd = next(r for r in records if type(r.content) is not type(records[0].content))
            raise DataError("rows of plain text and rows of prompt/completion are mixed", where=odd.where)
        self.restore({"plain": forms == {PlainText}})

    @property
    def writes(self) -> bool:
        """Plain text is read."""
        return not self.plain

    def state(self) -> dict[str, Any]:
        """Which form the rows have."""
        return {"plain": self.plain}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Plain text is judged by perplexity alone."""
        self.plain = bool(state["plain"])
        if self.plain:
            self.permutes, self.metrics = False, ("perplexity",)

    def encode(self, record: Record) -> Example:
        """The completion trained, or the whole text."""
        content = record.content
        if isinstance(content, PlainText):
            tokens = self.renderer.plain_text(content.text)
        else:
            assert isinstance(content, PromptCompletion)
            tokens = self.renderer.prompt_completion(content)
        return Example(record.where, tuple(tokens.input_ids), tuple(tokens.loss_weights))

    def primary(self, train: Sequence[Record]) -> str:
        """`perplexity` for plain text, else as for chat."""
        return "perplexity" if self.plain else super().primary(train)

    def prompt(self, record: Record, shots: Sequence[Record]) -> list[int]:
        """The prompt behind the shots, each with its completion."""
        shown = "".join(f"{c.prompt}{c.completion}{SEPARATOR}" for c in map(_prompted, shots))
        return self.renderer.completion_prompt(shown + _prompted(record).prompt)

    def prompt_length(self, record: Record, shots: Sequence[Record]) -> int:
        """The length of the prompt, or of the text behind the other texts."""
        if self.plain:
            return len(self._behind(self.encode(record), shots))
        return super().prompt_length(record, shots)

    def shown(self, record: Record) -> str:
        """The prompt, or the text."""
        return record.content.text if isinstance(record.content, PlainText) else _prompted(record).prompt

    def reference(self, record: Record) -> str:
        """The completion, or the text."""
        return record.content.text if isinstance(record.content, PlainText) else _prompted(record).completion

    def predict(
        self,
        model: PreTrainedModel,
        records: Sequence[Record],
        *,
        shots: Sequence[Record] = (),
        max_new_tokens: int,
        advance: Advance = lambda rows: None,
    ) -> Predictions:
        """Greedy completions; for plain text `{"nll": nats, "tokens": n}` of each text."""
        if not self.plain:
            return super().predict(model, records, shots=shots, max_new_tokens=max_new_tokens, advance=advance)
        examples = [self._behind(self.encode(record), shots) for record in records]
        parted = [_parted(example) for example in examples]
        prompts, texts = [prompt for prompt, _ in parted], [text for _, text in parted]
        found = text_log_likelihoods(model, prompts, texts, advance)
        answers = ({"nll": -float(one), "tokens": len(text)} for one, text in zip(found, texts, strict=True))
        return Predictions(tuple(answers))

    def _behind(self, example: Example, shots: Sequence[Record]) -> Example:
        """The text's example with other texts before it; the same tokens are scored as without them."""
        if not shots:
            return example
        opening = next(index for index, weight in enumerate(example.loss_weights) if weight > 0)
        shown = self.renderer.encode("".join(self.reference(shot) + SEPARATOR for shot in shots))
        ids = (*example.input_ids[:opening], *shown, *example.input_ids[opening:])
        scored = example.loss_weights[opening:] if opening else (0.0, *example.loss_weights[1:])
        return Example(example.where, ids, (*[0.0] * (opening + len(shown)), *scored))

    def trivial(self, train: Sequence[Record], test: Sequence[Record]) -> Predictions:
        """The most frequent completion; for plain text the unigram model of the training tokens."""
        if not self.plain:
            return super().trivial(train, test)
        learnt = []
        for example in map(self.encode, test):
            weighed = zip(example.input_ids[1:], example.loss_weights[1:], strict=True)
            learnt.append([token for token, weight in weighed if weight > 0])
        seen = (self.encode(record).input_ids for record in train)
        return Predictions(unigram(seen, learnt, len(self.renderer.tokenizer)))


def _parted(example: Example) -> tuple[Sequence[int], Sequence[int]]:
    """What stands before the scored tokens, and these; nothing predicts a first token."""
    opening = next(place for place, weight in enumerate(example.loss_weights[1:], start=1) if weight > 0)
    return example.input_ids[:opening], example.input_ids[opening:]


def _prompted(record: Record) -> PromptCompletion:
    assert isinstance(record.content, PromptCompletion)
    return record.content
