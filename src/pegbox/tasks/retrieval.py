"""Search among the texts of some rows: what is asked, of which texts, how a system ranks them, and rivals without a model.

The texts are all different pairs and negatives of the rows. Right for a row is its own pair, and that of every row with
the same text. A row's own text is never found by itself: where it is among the texts it comes last. Texts with equal
scores stand in the order of a hash, which knows nothing of rows.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pegbox.data.records import MatchedTexts
from pegbox.metrics import FloatArray
from pegbox.tasks.base import Predictions
from pegbox.tasks.rivals import WORDS

WORD = re.compile(WORDS)
CLOSE = 1e-6  # of two cosines: less is rounding in float32


@dataclass(frozen=True)
class Search:
    """The rows that ask."""

    rows: Sequence[MatchedTexts]

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """All that can be found, each once."""
        return tuple(sorted({text for row in self.rows for text in row.texts[1:]}, key=_hash))

    @cached_property
    def _places(self) -> dict[str, int]:
        return {text: place for place, text in enumerate(self.texts)}

    @cached_property
    def _right(self) -> dict[str, list[int]]:
        """The places of the texts that are right for a text."""
        found: dict[str, set[int]] = defaultdict(set)
        for row in self.rows:
            found[row.text].add(self._places[row.text_pair])
        return {text: sorted(places) for text, places in found.items()}

    def ranked(self, scores: Iterable[FloatArray]) -> Predictions:
        """What a system found that gave each text a score [m] for each row, higher for what it thinks right.

        An answer is `{"first": the first text, "ranks": those of the right ones, from 1}`.
        """
        found, close = [], 0
        for row, given in zip(self.rows, scores, strict=True):
            right, own = self._right[row.text], self._places.get(row.text)
            shown = given.astype(np.float64)
            if own is not None and own not in right:
                shown[own] = -np.inf
            order = np.argsort(-shown, kind="stable")
            rank = np.empty(len(order), dtype=np.int64)
            rank[order] = np.arange(1, len(order) + 1)
            found.append({"first": self.texts[order[0]], "ranks": sorted(rank[right].tolist())})
            close += _hangs_on_rounding(shown, right)
        return Predictions(tuple(found), close)

    def by_bm25(self) -> Predictions:
        """Ranked by Okapi BM25 over words (Robertson et al. 1995; Lucene's form, k1 = 1.5, b = 0.75)."""
        from bm25s import BM25  # late, as below: few runs need it, all would load it

        words, index = [_words(text) for text in self.texts], BM25(method="lucene", k1=1.5, b=0.75)
        asked = [_words(row.text) for row in self.rows]
        if any(words):
            index.index(words, show_progress=False)
        nothing = np.zeros(len(words))
        return self.ranked(index.get_scores(one) if one and any(words) else nothing for one in asked)

    def by_frequency(self, train: Sequence[MatchedTexts]) -> Predictions:
        """Ranked by how often each is the right one in the training rows: the same for every row."""
        counts = Counter(row.text_pair for row in train)
        scores = np.array([counts[text] for text in self.texts], dtype=np.float64)
        return self.ranked([scores] * len(self.rows))


def shared_words(train: Sequence[MatchedTexts], rows: Sequence[MatchedTexts]) -> FloatArray:
    """float64 [n]: of each row the cosine of its texts' words, weighed by how rare they are in train (tf-idf)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    known, weigh = [text for row in train for text in row.texts], TfidfVectorizer(analyzer=_words)
    if not any(map(_words, known)):
        return np.zeros(len(rows))
    weigh.fit(known)
    one, other = (weigh.transform(texts) for texts in zip(*((row.text, row.text_pair) for row in rows), strict=True))
    cosines: FloatArray = np.asarray(one.multiply(other).sum(axis=1), dtype=np.float64).reshape(-1)
    return cosines


def _words(text: str) -> list[str]:
    """The words, in small letters; of scripts without spaces the characters."""
    return [word for word in WORD.findall(text.casefold()) if any(map(str.isalnum, word))]


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _hangs_on_rounding(scores: FloatArray, right: Sequence[int]) -> bool:
    """Whether a wrong text's score is as good as the same as a right one's."""
    wrong = np.delete(scores, right)
    return any(bool((np.abs(wrong - scores[place]) < CLOSE).any()) for place in right)
