"""What the tasks have in common that learn something of a whole text (or a pair of texts) by a new head: K outputs a row.

A new head cannot answer zero-shot, so the rivals learn as well: on bags of words, and on the untouched model's features.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from pegbox.data.records import Example, LabelledText, LabelSetText, Record, ScoredText, WholeText
from pegbox.metrics import FloatArray
from pegbox.models.batch import Batch, at_least_float32, on_rows_of_like_length
from pegbox.models.outputs import hidden_states, whole_text_logits
from pegbox.tasks import rivals
from pegbox.tasks.base import Advance, Predictions, Task

Learner = Callable[[rivals.Inputs], Predictions]
ROWS_AT_ONCE = 64
BETWEEN = "\n\n"  # the texts of a pair, where the tokenizer has no token of its own to put between them


class WholeTextTask(Task):
    """A task of which a row is a text, or a pair, and what is to be said of it."""

    head = "sequence_classification"
    loss_unit = "row"
    pipeline_tag = "text-classification"
    _pairs = False

    @property
    def zero_shot(self) -> bool:
        """A new head knows nothing yet."""
        return False

    def observe(self, records: Sequence[Record]) -> None:
        """Find out whether texts come in pairs."""
        self._pairs = any(whole_text(record).text_pair is not None for record in records)

    @abstractmethod
    def targets(self, record: Record) -> tuple[float, ...]:
        """What is learnt of a row: one number an output, or the index of a class."""

    def encode(self, record: Record) -> Example:
        """The text (and its pair) as the tokenizer serves it. Raises ValueError for a text that ends in its midst."""
        content, tokenizer = whole_text(record), self.renderer.tokenizer
        texts = (content.text,) if content.text_pair is None else (content.text, content.text_pair)
        if tokenizer.num_special_tokens_to_add(pair=True) == tokenizer.num_special_tokens_to_add(pair=False):
            texts = (BETWEEN.join(texts),)
        elif "seq2seq" in self.heads and self._pairs:
            # so that all rows have as many ends; Transformers takes an empty second text for none
            texts = (content.text, content.text_pair or " ")
        encoded = tokenizer(*texts, truncation=False, verbose=False)
        ids, types = tuple(encoded["input_ids"]), tuple(encoded.get("token_type_ids", ()))
        if "seq2seq" in self.heads:
            self._refuse_ends(ids, len(texts))
        return Example(record.where, ids, targets=self.targets(record), token_type_ids=types)

    def _refuse_ends(self, ids: Sequence[int], texts: int) -> None:
        """Raise ValueError where a row has other end-of-text tokens than those that the head of an encoder-decoder looks for."""
        tokenizer = self.renderer.tokenizer
        ends = tokenizer(*["."] * texts)["input_ids"].count(tokenizer.eos_token_id)
        if not ends:
            raise ValueError(f"the tokenizer puts no end-of-text token {tokenizer.eos_token!r} behind a text")
        if ids.count(tokenizer.eos_token_id) != ends:
            raise ValueError(f"the text holds the model's end-of-text token {tokenizer.eos_token!r}")
        if texts > 1 and not self._pairs:
            raise ValueError("has a second text, and the model was trained on single ones")

    def scored(self, model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The head's outputs [B, K], the rows' targets, and a weight of one for each row."""
        outputs = at_least_float32(whole_text_logits(model, batch))
        return outputs, self.learnt(batch.labels, outputs.dtype), outputs.new_ones(len(outputs))

    def learnt(self, labels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The targets as the loss takes them, from `Batch.labels` float64 [B, K]."""
        return labels.to(dtype)

    def shown(self, record: Record) -> str:
        """The text, or both."""
        content = whole_text(record)
        return content.text if content.text_pair is None else f"{content.text}\n{content.text_pair}"

    @abstractmethod
    def answered(self, outputs: FloatArray) -> Predictions:
        """What the head's outputs [rows, K] say."""

    def predict(
        self,
        model: PreTrainedModel,
        records: Sequence[Record],
        *,
        shots: Sequence[Record] = (),
        max_new_tokens: int = 0,
        advance: Advance = lambda rows: None,
    ) -> Predictions:
        """What the head's outputs say."""
        return self.answered(self.outputs(model, records, advance))

    @abstractmethod
    def learner(self, train: Sequence[Record], validation: Sequence[Record]) -> Learner:
        """What learns from numbers of the training rows, chooses on those of validation, and answers the test rows."""

    def rivals(
        self, base: PreTrainedModel, train: Sequence[Record], validation: Sequence[Record], test: Sequence[Record]
    ) -> Mapping[str, Predictions]:
        """The learner on words, and on the untouched model's features."""
        learn = self.learner(train, validation)
        return {name: learn(given) for name, given in rivals.inputs(self, base, train, validation, test)}

    def outputs(
        self, model: PreTrainedModel, records: Sequence[Record], advance: Advance = lambda rows: None
    ) -> np.ndarray:
        """float64 [rows, K]: the head's outputs."""
        return self._rows(records, lambda batch: whole_text_logits(model, batch), model.device, advance)

    def features(self, base: PreTrainedModel, records: Sequence[Record]) -> np.ndarray:
        """float64 [rows, D]: the mean of the untouched model's last hidden states over a row's real tokens."""

        def mean(batch: Batch) -> torch.Tensor:
            assert batch.attention_mask is not None
            real = batch.attention_mask[..., None]
            hidden = hidden_states(base, batch).unflatten(0, batch.input_ids.shape)
            pooled: torch.Tensor = (hidden * real).sum(1) / real.sum(1)
            return pooled

        return self._rows(records, mean, base.device, lambda rows: None)

    def _rows(
        self,
        records: Sequence[Record],
        run: Callable[[Batch], torch.Tensor],
        device: torch.device,
        advance: Advance,
    ) -> np.ndarray:
        """float64 [rows, width] of `run` on padded batches of rows of like length, in the order of the records."""
        examples = [self.encode(record) for record in records]
        out: list[np.ndarray] = [np.empty(0)] * len(examples)

        def compute(chosen: list[int]) -> None:
            batch = self.collate([examples[i] for i in chosen], packed=False, share_prefix=False)
            values = run(batch.to(device)).double().cpu().numpy()
            for index, row in zip(chosen, values, strict=True):
                out[index] = row
            advance(len(chosen))

        with torch.inference_mode():
            on_rows_of_like_length(examples, ROWS_AT_ONCE, compute)
        return np.stack(out)


def whole_text(record: Record) -> WholeText:
    """The record's content."""
    assert isinstance(record.content, LabelledText | LabelSetText | ScoredText)
    return record.content
