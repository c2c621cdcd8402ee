"""`multilabel`: any number of labels for a text (or a pair of texts), none among them, by a new head.

    p_c = sigmoid(z_c),   label c is told where p_c >= its threshold

The class order is the sorted order of the label names and is saved with the model. Each label is told by itself, so a
single one will do: there or not. The thresholds come from validation (see `calibration`); before they are known they
are 0.5.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from pegbox.data.records import LabelSetText, Record
from pegbox.errors import DataError
from pegbox.metrics import FloatArray
from pegbox.tasks import rivals
from pegbox.tasks.base import Predictions
from pegbox.tasks.calibration import HALF, by_label, find_thresholds, sigmoid
from pegbox.tasks.rivals import Judge
from pegbox.tasks.whole_text import Learner, WholeTextTask


class Multilabel(WholeTextTask):
    """Learns which labels a text has."""

    kind = "multilabel"
    metrics = ("f1_macro", "f1_weighted", "accuracy", "auroc")
    row_metric = "accuracy"
    trivial_name = "best set of labels for all rows alike"
    problem_type = "multi_label_classification"
    _labels: tuple[str, ...] = ()
    _thresholds: tuple[float, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names, sorted."""
        return self._labels

    def observe(self, records: Sequence[Record]) -> None:
        """Collect the label names. Raises DataError where there is none."""
        super().observe(records)
        self._labels = tuple(sorted({label for record in records for label in _label_set(record)}))
        self._thresholds = (HALF,) * len(self._labels)
        if not self._labels:
            raise DataError("no row has a label", where="data.train", cure="give rows with labels among them")

    def label_counts(self, train: Sequence[Record]) -> Mapping[str, int]:
        """The number of rows with each label."""
        return Counter(label for record in train for label in _label_set(record))

    def calibrate(self, model: PreTrainedModel, validation: Sequence[Record]) -> None:
        """Find the thresholds."""
        found = find_thresholds(sigmoid(self.outputs(model, validation)), self._present(validation))
        self._thresholds = tuple(found.tolist())

    def state(self) -> dict[str, Any]:
        """The label names, whether texts come in pairs, and each label's threshold."""
        return {"labels": list(self._labels), "text_pair": self._pairs, "thresholds": list(self._thresholds)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The label names, in the order of the trained head, and the rest."""
        self._labels, self._pairs = tuple(state["labels"]), state["text_pair"]
        self._thresholds = tuple(state["thresholds"])

    def targets(self, record: Record) -> tuple[float, ...]:
        """1 for each label that the row has, else 0."""
        return tuple(float(label in _label_set(record)) for label in self._labels)

    def primary(self, train: Sequence[Record]) -> str:
        """Macro F1: rare labels count as much as frequent ones."""
        return "f1_macro"

    def reference(self, record: Record) -> list[str]:
        """The labels' names, sorted."""
        return list(_label_set(record))

    def answered(self, outputs: FloatArray) -> Predictions:
        """The names of the labels that reach their thresholds, sorted, and the probability of each label."""
        return self._told(sigmoid(outputs), np.array(self._thresholds))

    def _told(self, probabilities: FloatArray, thresholds: FloatArray) -> Predictions:
        """What probabilities [rows, labels] say."""
        answers = tuple(
            [label for label, reached in zip(self._labels, row, strict=True) if reached]
            for row in probabilities >= thresholds
        )
        return Predictions(answers, probabilities=by_label(self._labels, probabilities))

    def _present(self, records: Sequence[Record]) -> NDArray[np.int64]:
        """int64 [rows, labels]: 1 where a row has the label."""
        return np.array([self.targets(record) for record in records], dtype=np.int64)

    def _judge(self, records: Sequence[Record], told: Callable[[FloatArray], Predictions]) -> Judge:
        """A judge by the primary metric, of numbers [rows, labels] and what is `told` of them."""
        primary = self.recipe.evaluate.primary or self.primary(records)
        references = [self.reference(record) for record in records]
        return rivals.by_metric(primary, told, references, self._present(records).astype(np.float64))

    def trivial(self, train: Sequence[Record], test: Sequence[Record]) -> Predictions:
        """The set of labels that would be best for all rows of train, by the primary metric, and how many have each.

        Tried are the most frequent set, the labels that more than half of the rows have, and all labels: macro F1 is
        greatest for the last (Lipton et al. 2014, arXiv 1402.1892), which a majority would hide.
        """
        sets = Counter(map(_label_set, train))
        present = self._present(train)
        shares = present.mean(axis=0)
        most = min(sets, key=lambda labels: (-sets[labels], labels))
        tried = (np.isin(self._labels, most), shares > HALF, shares > 0)
        judge = self._judge(train, lambda told: self._told(told, np.full(told.shape[1], HALF)))
        best = max(tried, key=lambda told: judge(np.repeat(told[None].astype(float), len(train), axis=0))[0])
        every = self._told(shares[None], np.where(best, 0.0, 2.0))
        return Predictions(every.answers * len(test), probabilities=every.probabilities * len(test))

    def learner(self, train: Sequence[Record], validation: Sequence[Record]) -> Learner:
        """Logistic regression for each label, at thresholds of its own."""
        present, known = self._present(train), self._present(validation)
        judge = self._judge(validation, lambda said: self._told(said, find_thresholds(said, known)))

        def fit(given: rivals.Inputs) -> Predictions:
            found = rivals.one_vs_rest(given, present, judge)
            return self._told(found.test, find_thresholds(found.validation, known))

        return fit


def _label_set(record: Record) -> tuple[str, ...]:
    assert isinstance(record.content, LabelSetText)
    return record.content.labels
