"""`regression`: one number or several for a text (or a pair of texts), by a new head.

    z_k = (y_k - m_k) / s_k    what is learnt of target k       m_k, s_k: mean and deviation of y_k over the training rows
    y_k = s_k z_k + m_k        the answer, from the head's output z_k

So targets of any scale weigh the same, and a learning rate suits them all; a target that is constant in train has s = 1.
The deviation is that of the rows at hand (divided by n, as scikit-learn's StandardScaler). The loss is over standardised
values, [B, K] against [B, K]; its weight is rows x targets.

The saved model's outputs are z. Its `config.json` says `target_mean` and `target_deviation`, an adapter's run says them in
`receipt.json`. They are not folded into the head (W' = s W, b' = s b + m), for three reasons: a decoder's head has no bias
that could hold m; bfloat16 has 8 bits, in which a year near 1990 would come in steps of 8, where z comes in steps of less
than s / 100; and so the saved weights are to the bit those that were trained and chosen.

Answers are rounded to a millionth of s or less, which is what float32 computes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pegbox.data.records import Record, ScoredText
from pegbox.errors import DataError
from pegbox.metrics import FloatArray
from pegbox.tasks import rivals
from pegbox.tasks.base import Predictions
from pegbox.tasks.whole_text import Learner, WholeTextTask

DIGITS = 6  # of an answer, behind the first one of the target's deviation
Answer = float | list[float]  # of one target, or of several


class Regression(WholeTextTask):
    """Learns the numbers of a text."""

    kind = "regression"
    metrics = ("rmse", "mae", "r2", "pearson", "spearman", "mse")
    row_metric = "mae"
    loss_unit = "value"
    trivial_name = "mean of the training rows"
    problem_type = "regression"
    _targets: tuple[str, ...] = ()
    _mean: tuple[float, ...] = ()
    _deviation: tuple[float, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the targets, in the order of the outputs: that of the first row."""
        return self._targets

    def observe(self, records: Sequence[Record]) -> None:
        """Collect the names of the targets. Raises DataError where a row has others than the first."""
        super().observe(records)
        self._targets = tuple(_scores(records[0]))
        odd = next((record for record in records if _scores(record).keys() != set(self._targets)), None)
        if odd is not None:
            here, first = ", ".join(sorted(_scores(odd))), ", ".join(sorted(self._targets))
            what = f"the row has the targets {here}, and {records[0].where} has {first}"
            raise DataError(what, where=odd.where, cure="give every row a number for each of the same targets")

    def fit(self, train: Sequence[Record]) -> None:
        """Find the mean and the deviation of each target in the training rows. Raises DataError where they overflow."""
        super().fit(train)
        values = self._values(train)
        with np.errstate(over="ignore", invalid="ignore"):
            mean, deviation = values.mean(axis=0), values.std(axis=0)
        if not np.isfinite([mean, deviation]).all():
            raise DataError(
                "the targets are too large to be squared", where="data.train", cure="give them in a larger unit"
            )
        constant = (values == values[0]).all(axis=0)
        self._mean = tuple(np.where(constant, values[0], mean).tolist())
        self._deviation = tuple(np.where(constant | (deviation == 0), 1.0, deviation).tolist())

    def state(self) -> dict[str, Any]:
        """The targets' names, how they were standardised, and whether texts come in pairs."""
        return {
            "targets": list(self._targets),
            "mean": list(self._mean),
            "deviation": list(self._deviation),
            "text_pair": self._pairs,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """The targets in the order of the trained head, and how they were standardised."""
        self._targets, self._pairs = tuple(state["targets"]), state["text_pair"]
        self._mean, self._deviation = tuple(state["mean"]), tuple(state["deviation"])

    def config(self) -> dict[str, Any]:
        """How the saved model's outputs become answers: `output * target_deviation + target_mean`."""
        return {"target_mean": list(self._mean), "target_deviation": list(self._deviation)}

    def targets(self, record: Record) -> tuple[float, ...]:
        """The row's numbers as they are; not a number where a row that is only asked about lacks one."""
        return tuple(_scores(record).get(name, math.nan) for name in self._targets)

    def learnt(self, labels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """[B, K] from float64 [B, K]: the numbers standardised."""
        return ((labels - labels.new_tensor(self._mean)) / labels.new_tensor(self._deviation)).to(dtype)

    def primary(self, train: Sequence[Record]) -> str:
        """The root of the mean squared error, in the target's own unit."""
        return "rmse"

    def reference(self, record: Record) -> Answer:
        """The row's number, or its numbers in the order of the targets."""
        return _one_or_list([_scores(record)[name] for name in self._targets])

    def answered(self, outputs: FloatArray) -> Predictions:
        """The head's numbers in the targets' own units."""
        return self._told(outputs * np.array(self._deviation) + np.array(self._mean))

    def _told(self, numbers: FloatArray) -> Predictions:
        """Numbers [rows, K] as answers."""
        digits = [DIGITS - math.floor(math.log10(deviation)) for deviation in self._deviation]
        rounded = ([round(value, n) for value, n in zip(row, digits, strict=True)] for row in numbers.tolist())
        return Predictions(tuple(map(_one_or_list, rounded)))

    def _values(self, records: Sequence[Record]) -> FloatArray:
        """float64 [rows, K]: the right numbers."""
        return np.array([self.targets(record) for record in records], dtype=np.float64)

    def trivial(self, train: Sequence[Record], test: Sequence[Record]) -> Predictions:
        """The mean of each target in train: no other constant has a smaller squared error there."""
        return self._told(np.repeat(self._values(train).mean(axis=0)[None], len(test), axis=0))

    def learner(self, train: Sequence[Record], validation: Sequence[Record]) -> Learner:
        """Ridge regression."""
        primary = self.recipe.evaluate.primary or self.primary(train)
        references = [self.reference(record) for record in validation]
        judge = rivals.by_metric(primary, self._told, references, self._values(validation))
        return lambda given: self._told(rivals.ridge(given, self._values(train), judge).test)


def _scores(record: Record) -> Mapping[str, float]:
    assert isinstance(record.content, ScoredText)
    return record.content.scores


def _one_or_list(values: list[float]) -> Answer:
    """The number of a single target, the list of several."""
    return values[0] if len(values) == 1 else values
