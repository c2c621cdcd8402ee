"""`classification`: one label for a text (or a pair of texts), by a new head.

    p = softmax(z / T)

The class order is the sorted order of the label names and is saved with the model. The answer is the likeliest label;
T comes from validation (see `calibration`) and changes how sure it is, not which it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from pegbox.data.records import LabelledText, Record
from pegbox.errors import DataError
from pegbox.metrics import FloatArray
from pegbox.tasks import rivals
from pegbox.tasks.base import Advance, Predictions
from pegbox.tasks.calibration import by_label, find_temperature, logarithm, softmax, tempered
from pegbox.tasks.ranking import Ranking, count_close
from pegbox.tasks.whole_text import Learner, WholeTextTask


class Classification(WholeTextTask):
    """Learns the label of a text."""

    kind = "classification"
    metrics = (
        *("f1_macro", "accuracy", "balanced_accuracy", "f1_weighted", "matthews_correlation"),
        *("auroc", "calibration_error"),
    )
    row_metric = "accuracy"
    trivial_name = "most frequent label"
    problem_type = "single_label_classification"
    _labels: tuple[str, ...] = ()
    _temperature = 1.0

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

    def calibrate(self, model: PreTrainedModel, validation: Sequence[Record]) -> None:
        """Find the temperature."""
        self._temperature = find_temperature(self.outputs(model, validation), self._classes(validation))

    def state(self) -> dict[str, Any]:
        """The label names, whether texts come in pairs, and the temperature."""
        return {"labels": list(self._labels), "text_pair": self._pairs, "temperature": self._temperature}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The label names, in the order of the trained head, and the rest."""
        self._labels, self._pairs = tuple(state["labels"]), state["text_pair"]
        self._temperature = state["temperature"]

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

    def answered(self, outputs: FloatArray) -> Predictions:
        """The names of the likeliest labels, and the probability of each label at the temperature."""
        return self._told(softmax(outputs, self._temperature))

    def _told(self, probabilities: FloatArray) -> Predictions:
        """What probabilities [rows, labels] say; of equals the first in the alphabet."""
        answers = tuple(self._labels[index] for index in probabilities.argmax(axis=1))
        return Predictions(answers, probabilities=by_label(self._labels, probabilities))

    def _classes(self, records: Sequence[Record]) -> NDArray[np.int64]:
        """int64 [rows]: which label each has; -1 where it is not known."""
        return np.array([self.targets(record)[0] for record in records], dtype=np.int64)

    @cached_property
    def _ranking(self) -> Ranking:
        return Ranking(self.renderer, self._labels)

    @property
    def zero_shot(self) -> bool:
        """A new head knows nothing yet; a model that writes can be asked which label it would write."""
        return "causal_lm" in self.heads and self._ranking.can_be_asked

    @property
    def base_head(self) -> str:
        """The head that writes, where there is one."""
        return "causal_lm" if self.zero_shot else self.head

    def ask(
        self,
        model: PreTrainedModel,
        records: Sequence[Record],
        *,
        shots: Sequence[Record],
        max_new_tokens: int,
        advance: Advance,
    ) -> Predictions:
        """The labels that the untouched model would most likely write (see `ranking`)."""
        shares = self._ranking.probabilities(model, records, shots, advance)
        return replace(self._told(shares), close=count_close(shares))

    def prompt_length(self, record: Record, shots: Sequence[Record]) -> int:
        """The tokens that the head reads, or with shots those that the untouched model does."""
        return self._ranking.prompt_length(record, shots) if shots else super().prompt_length(record, shots)

    def trivial(self, train: Sequence[Record], test: Sequence[Record]) -> Predictions:
        """The majority class of train, and how many have each; of equals the first in the alphabet."""
        counts = self.label_counts(train)
        shares = np.array([[counts.get(label, 0) / len(train) for label in self._labels]])
        return self._told(np.repeat(shares, len(test), axis=0))

    def learner(self, train: Sequence[Record], validation: Sequence[Record]) -> Learner:
        """Logistic regression, at a temperature of its own."""
        classes, known = self._classes(train), self._classes(validation)
        truth = (known[:, None] == np.arange(len(self._labels))).astype(np.float64)
        primary = self.recipe.evaluate.primary or self.primary(train)
        judge = rivals.by_metric(primary, self._told, [self.reference(record) for record in validation], truth)

        def fit(given: rivals.Inputs) -> Predictions:
            found = rivals.logistic(given, classes, len(self._labels), judge)
            return self._told(tempered(found.test, find_temperature(logarithm(found.validation), known)))

        return fit


def _label(record: Record) -> str:
    assert isinstance(record.content, LabelledText)
    return record.content.label
