"""`classification`: one label for a text (or a pair of texts), by a new head.

The class order is the sorted order of the label names and is saved with the model.
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
from transformers import PreTrainedModel

from pegbox.data.records import LabelledText, Record
from pegbox.errors import DataError
from pegbox.tasks.base import Advance, Predictions
from pegbox.tasks.whole_text import WholeTextTask


class Classification(WholeTextTask):
    """Learns the label of a text."""

    kind = "classification"
    metrics = ("f1_macro", "accuracy", "balanced_accuracy", "f1_weighted", "matthews_correlation")
    row_metric = "accuracy"
    trivial_name = "most frequent label"
    problem_type = "single_label_classification"
    _labels: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names, sorted."""
        return self._labels

    def observe(self, records: Sequence[Record]) -> None:
        """Collect the label names. Raises DataError where there is only one."""
        super().observe(records)
        self._labels = tuple(sorted({_label(record) for record in records}))
        if len(self._labels) < 2:
            raise DataError("all rows have the same label", where="data.train", cure="give rows of two labels or more")

    def label_counts(self, train: Sequence[Record]) -> Mapping[str, int]:
        """The number of rows with each label."""
        return Counter(map(_label, train))

    def state(self) -> dict[str, Any]:
        """The label names, and whether texts come in pairs."""
        return {"labels": list(self._labels), "text_pair": self._pairs}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The label names, in the order of the trained head."""
        self._labels, self._pairs = tuple(state["labels"]), state["text_pair"]

    def targets(self, record: Record) -> tuple[float, ...]:
        """The index of the label; -1 for one that is not known."""
        label = _label(record)
        return (float(self._labels.index(label) if label in self._labels else -1),)

    def learnt(self, labels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """int64 [B]: the index of each row's class."""
        return labels[:, 0].long()

    def primary(self, train: Sequence[Record]) -> str:
        """Macro F1: a collapse to the majority cannot hide in it."""
        return "f1_macro"

    def reference(self, record: Record) -> str:
        """The label's name."""
        return _label(record)

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
        return Predictions(tuple(self._labels[index] for index in self.outputs(model, records, advance).argmax(1)))

    def probabilities(self, model: PreTrainedModel, records: Sequence[Record]) -> np.ndarray:
        """float64 [rows, labels]: the softmax of the head's outputs."""
        logits = self.outputs(model, records)
        exponents = np.exp(logits - logits.max(1, keepdims=True))
        shares: np.ndarray = exponents / exponents.sum(1, keepdims=True)
        return shares

    def trivial(self, train: Sequence[Record], test: Sequence[Record]) -> Predictions:
        """The majority class of train; of equals the first in the alphabet."""
        counts = self.label_counts(train)
        return Predictions((min(counts, key=lambda label: (-counts[label], label)),) * len(test))

    def rivals(
        self,
        base: PreTrainedModel,
        train: Sequence[Record],
        validation: Sequence[Record],
        test: Sequence[Record],
        seed: int,
    ) -> Mapping[str, Predictions]:
        """Logistic regression on tf-idf of words and word pairs, and on the untouched model's mean features."""
        labels = [_label(record) for record in train]
        words = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            LogisticRegression(C=10.0, max_iter=1000, random_state=seed),
        ).fit([self.shown(record) for record in train], labels)
        probe = LogisticRegression(C=10.0, max_iter=1000, random_state=seed)
        probe.fit(self.features(base, train), labels)
        return {
            "bag_of_words": Predictions(tuple(map(str, words.predict([self.shown(record) for record in test])))),
            "linear_probe": Predictions(tuple(map(str, probe.predict(self.features(base, test))))),
        }


def _label(record: Record) -> str:
    assert isinstance(record.content, LabelledText)
    return record.content.label
