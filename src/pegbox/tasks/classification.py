"""`classification`: one label for a text (or a pair of texts), by a new head.

The class order is the sorted order of the label names and is saved with the model. A new head cannot answer zero-shot,
so the rivals are the majority class, a logistic regression on bags of words, and one on the untouched model's features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from pegbox.data.records import Example, LabelledText, Record
from pegbox.errors import DataError
from pegbox.models.batch import Batch, pad
from pegbox.tasks.base import Advance, Predictions, Task

ROWS_AT_ONCE = 64


class Classification(Task):
    """Learns the label of a text."""

    kind = "classification"
    head = "sequence_classification"
    zero_shot = False
    metrics = ("f1_macro", "accuracy", "balanced_accuracy", "f1_weighted", "matthews_correlation")

    _labels: tuple[str, ...] = ()
    _pairs: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names, sorted."""
        return self._labels

    def observe(self, records: Sequence[Record]) -> None:
        """Collect the label names, and whether texts come in pairs. Raises DataError where there is only one label."""
        self._labels = tuple(sorted({_content(record).label for record in records}))
        self._pairs = any(_content(record).text_pair is not None for record in records)
        if len(self._labels) < 2:
            raise DataError("all rows have the same label", where="data.train", cure="give rows of two labels or more")

    def state(self) -> dict[str, Any]:
        """The label names, and whether texts come in pairs."""
        return {"labels": list(self._labels), "text_pair": self._pairs}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The label names, in the order of the trained head."""
        self._labels, self._pairs = tuple(state["labels"]), state["text_pair"]

    def encode(self, record: Record) -> Example:
        """The text (and its pair) as the tokenizer serves it, and the index of the label."""
        content = _content(record)
        encoded = self.renderer.tokenizer(content.text, content.text_pair, truncation=False, verbose=False)
        label = self._labels.index(content.label) if content.label in self._labels else -1
        types = tuple(encoded.get("token_type_ids", ()))
        return Example(record.where, tuple(encoded["input_ids"]), label=label, token_type_ids=types)

    def collate(self, examples: Sequence[Example], *, packed: bool, share_prefix: bool) -> Batch:
        """Padded rows: every row is pooled by itself."""
        pad_id = self.renderer.tokenizer.pad_token_id
        return pad(examples, int(pad_id))

    def loss(self, model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, float]:
        """Cross-entropy summed over the rows; the weight is their number."""
        logits = model(**batch.inputs).logits
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return cross_entropy(logits, batch.labels, reduction="sum"), float(len(batch.labels))

    def primary(self, train: Sequence[Record]) -> str:
        """Macro F1: a collapse to the majority cannot hide in it."""
        return "f1_macro"

    def shown(self, record: Record) -> str:
        """The text, or both."""
        content = _content(record)
        return content.text if content.text_pair is None else f"{content.text}\n{content.text_pair}"

    def reference(self, record: Record) -> str:
        """The label's name."""
        return _content(record).label

    def predict(
        self,
        model: PreTrainedModel,
        records: Sequence[Record],
        *,
        shots: Sequence[Record] = (),
        max_new_tokens: int = 0,
        advance: Advance = lambda rows: None,
    ) -> Predictions:
        """The names of the likeliest labels."""
        return Predictions(tuple(self._labels[index] for index in self._logits(model, records, advance).argmax(1)))

    def probabilities(self, model: PreTrainedModel, records: Sequence[Record]) -> np.ndarray:
        """float64 [rows, labels]: the softmax of the head's outputs."""
        logits = self._logits(model, records)
        exponents = np.exp(logits - logits.max(1, keepdims=True))
        shares: np.ndarray = exponents / exponents.sum(1, keepdims=True)
        return shares

    def _logits(
        self, model: PreTrainedModel, records: Sequence[Record], advance: Advance = lambda rows: None
    ) -> np.ndarray:
        return self._rows(model, records, lambda batch: model(**batch.inputs).logits, advance)

    def _rows(self, model: PreTrainedModel, records: Sequence[Record], run: object, advance: Advance) -> np.ndarray:
        """float64 [rows, width] of `run` on padded batches of rows of like length, in the order of the records."""
        examples = [self.encode(record) for record in records]
        order = sorted(range(len(examples)), key=lambda index: len(examples[index]))
        out: list[np.ndarray] = [np.empty(0)] * len(examples)
        assert callable(run)
        with torch.inference_mode():
            for start in range(0, len(order), ROWS_AT_ONCE):
                chosen = order[start : start + ROWS_AT_ONCE]
                batch = self.collate([examples[i] for i in chosen], packed=False, share_prefix=False)
                values = run(batch.to(model.device)).double().cpu().numpy()
                for index, row in zip(chosen, values, strict=True):
                    out[index] = row
                advance(len(chosen))
        return np.stack(out)

    def trivial(self, train: Sequence[Record], test: Sequence[Record]) -> Predictions:
        """The majority class of train; of equals the first in the alphabet."""
        counts = Counter(_content(record).label for record in train)
        return Predictions((min(counts, key=lambda label: (-counts[label], label)),) * len(test))

    def rivals(
        self, base: PreTrainedModel, train: Sequence[Record], test: Sequence[Record], seed: int
    ) -> Mapping[str, Predictions]:
        """Logistic regression on tf-idf of words and word pairs, and on the untouched model's mean features."""
        labels = [_content(record).label for record in train]
        words = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            LogisticRegression(C=10.0, max_iter=1000, random_state=seed),
        ).fit([self.shown(record) for record in train], labels)
        probe = LogisticRegression(C=10.0, max_iter=1000, random_state=seed)
        probe.fit(self._features(base, train), labels)
        return {
            "bag_of_words": Predictions(tuple(map(str, words.predict([self.shown(record) for record in test])))),
            "linear_probe": Predictions(tuple(map(str, probe.predict(self._features(base, test))))),
        }

    def _features(self, base: PreTrainedModel, records: Sequence[Record]) -> np.ndarray:
        """float64 [rows, D]: the mean of the last hidden state over a row's real tokens."""

        def mean(batch: Batch) -> torch.Tensor:
            hidden = base.base_model(**batch.inputs).last_hidden_state
            assert batch.attention_mask is not None
            real = batch.attention_mask[..., None]
            pooled: torch.Tensor = (hidden * real).sum(1) / real.sum(1)
            return pooled

        return self._rows(base, records, mean, lambda rows: None)

    def longest_answer(self, train: Sequence[Example]) -> int:
        """Nothing is generated."""
        return 1


def _content(record: Record) -> LabelledText:
    assert isinstance(record.content, LabelledText)
    return record.content
