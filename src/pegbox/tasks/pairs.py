"""What a model of vectors learns of pairs of texts, and how it is judged; there are two kinds of pairs.

    Matching    a text, one that matches it, perhaps one that does not: InfoNCE over the whole update (see `contrastive`)
    Likeness    two texts and how alike they are:  (cos(text, text_pair) - score / largest |score| of train)^2

So a score of 0 says "nothing in common", which is a right angle: that of two random texts, while an opposite has room for
two texts only. Scores on both sides of 0 keep their sign. (Reimers & Gurevych 2019, arXiv 1908.10084, have both losses.)

Texts that match are judged by search (see `retrieval`), scores by rank correlation; there the answer to a pair is its
cosine on the scale of the scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch.nn import functional

from pegbox.data.records import MatchedTexts
from pegbox.metrics import FloatArray
from pegbox.recipe import Cosine, InfoNCE
from pegbox.tasks import contrastive
from pegbox.tasks.base import Predictions
from pegbox.tasks.contrastive import Texts
from pegbox.tasks.retrieval import Search, shared_words

DIGITS = 6  # of the answer to a pair with a score
Rows = Sequence[MatchedTexts]
Directions = Mapping[str, FloatArray]  # of each text its vector [D], of length 1
Outputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # what a loss is over: outputs, targets, weights


@dataclass(frozen=True)
class Matching:
    """Pairs of texts that match."""

    temperature: float
    joint: ClassVar = True
    has: ClassVar = "have no score"
    loss: ClassVar = InfoNCE
    metrics: ClassVar = ("ndcg", "mrr", "recall_at_1", "recall_at_5", "recall_at_10")
    trivial_name: ClassVar = "most frequent first"

    def outputs(self, texts: Texts, rows: slice = slice(None)) -> Outputs:
        """Of some rows among all: similarities [n, m], where the right one stands, and a weight of one for each."""
        outputs = contrastive.similarities(texts, self.temperature)
        right = torch.arange(len(outputs), device=outputs.device)
        return outputs[rows], right[rows], outputs.new_ones(len(outputs))[rows]

    def shown(self, row: MatchedTexts) -> str:
        """The text that asks."""
        return row.text

    def reference(self, row: MatchedTexts) -> str:
        """The text that matches."""
        return row.text_pair

    def answers(self, rows: Rows, directions: Directions) -> Predictions:
        """The ranks of the right texts among all of these rows, by cosine."""
        search = Search(rows)
        among = np.stack([directions[text] for text in search.texts])
        return search.ranked(among @ directions[row.text] for row in rows)

    def trivial(self, train: Rows, rows: Rows) -> Predictions:
        """The texts that were right most often in train, first."""
        return Search(rows).by_frequency(train)

    def rivals(self, train: Rows, rows: Rows) -> Mapping[str, Predictions]:
        """BM25."""
        return {"bm25": Search(rows).by_bm25()}


@dataclass(frozen=True)
class Likeness:
    """Pairs of texts with a score; `scale`: the largest of train."""

    scale: float = 1.0
    joint: ClassVar = False
    has: ClassVar = "have a score"
    loss: ClassVar = Cosine
    metrics: ClassVar = ("spearman", "pearson")
    trivial_name: ClassVar = "mean of the training rows"

    def outputs(self, texts: Texts, scores: torch.Tensor) -> Outputs:
        """Cosines [n, 1] against scaled scores [n, 1]."""
        one, other = texts.vectors.chunk(2)
        cosines = functional.cosine_similarity(one, other)[:, None]
        return cosines, (scores / self.scale).to(cosines.dtype), cosines.new_ones(len(cosines))

    def shown(self, row: MatchedTexts) -> str:
        """Both texts."""
        return f"{row.text}\n{row.text_pair}"

    def reference(self, row: MatchedTexts) -> float:
        """The score."""
        assert row.score is not None
        return row.score

    def answers(self, rows: Rows, directions: Directions) -> Predictions:
        """The cosine of each pair, as a score."""
        return self._told(np.array([directions[row.text] @ directions[row.text_pair] for row in rows]) * self.scale)

    def _told(self, scores: FloatArray) -> Predictions:
        return Predictions(tuple(np.round(scores, DIGITS).tolist()))

    def trivial(self, train: Rows, rows: Rows) -> Predictions:
        """The mean score. Having no order it has no correlation, and no part in a verdict on one."""
        return self._told(np.full(len(rows), np.mean([self.reference(row) for row in train])))

    def rivals(self, train: Rows, rows: Rows) -> Mapping[str, Predictions]:
        """The cosine of the words that both texts have."""
        return {"bag_of_words": self._told(shared_words(train, rows) * self.scale)}
