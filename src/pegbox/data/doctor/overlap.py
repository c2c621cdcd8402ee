"""Rows that hold a stretch of a text that must not be learnt, as the texts of a benchmark.

Texts are compared as words: Unicode form NFKC, no case, `\\w+`, so that spelling marks and line breaks do not matter. A
row is listed if 13 words in a row stand in one of the texts too, the width of GPT-3's decontamination (Brown et al.
2020, appendix C); unlike there, stretches that many rows share are not let off. A text of 8 to 12 words is looked for
as a whole; a shorter one would be met by chance, is not looked for, and is counted. So are texts in scripts without
spaces, of which a "word" is a whole clause, when they have fewer than 8 of these.

What is kept of the texts is a sorted array of 64-bit hashes, so a row is listed wrongly once in 10^19 / len(array).
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np

from pegbox.data.doctor.findings import Finding, count_of
from pegbox.data.near import Hashes, contained, window_hashes
from pegbox.data.records import Record
from pegbox.data.splits import parts

GRAM, SHORTEST = 13, 8  # words
BLOCK = 1 << 16  # words and rows looked up at once
WORD = re.compile(r"\w+")


class Overlap:
    """Looks for the texts in what a row asks and answers; `texts` are what the recipe's `data.benchmarks` names."""

    def __init__(self, texts: Iterable[str]) -> None:
        hashes: defaultdict[int, list[Hashes]] = defaultdict(list)
        self._texts = self._too_short = 0
        for text in texts:
            words = _words(text)
            width = min(len(words), GRAM)
            self._texts += 1
            if width < SHORTEST:
                self._too_short += 1
            else:
                hashes[width].append(window_hashes(np.array(words).view(np.uint64), [len(words)], width)[0])
        self._sought = {width: np.unique(np.concatenate(found)) for width, found in hashes.items()}
        self._words, self._lengths = array("q"), array("q")
        self._waiting: list[str] = []
        self._rows: list[str] = []

    def see(self, record: Record) -> None:
        """Look at the words of a record."""
        words = _words(" ".join(parts(record.content)))
        self._words.extend(words)
        self._lengths.append(len(words))
        self._waiting.append(record.where)
        if len(self._words) + len(self._waiting) >= BLOCK:
            self._look_up()

    def findings(self) -> Iterator[Finding]:
        """The rows that hold a stretch of a text; a note where there are none and some texts could not be looked for."""
        self._look_up()
        sought = f"texts looked for: {self._texts - self._too_short}"
        if self._too_short:
            sought += f", not looked for, with fewer than {SHORTEST} words: {self._too_short}"
        if self._rows:
            has = count_of(len(self._rows), "holds", "hold")
            message = f"{has} {GRAM} words in a row, or the whole of a shorter text, of data.benchmarks ({sought})"
            cure = "take them out, or a score on those texts will say nothing"
            yield Finding("benchmark_overlap", "warning", tuple(self._rows), message, cure)
        elif self._too_short:
            message = f"0 rows hold a text of data.benchmarks ({sought})"
            cure = "name longer texts, for instance each question together with its answer"
            yield Finding("benchmark_overlap", "note", (), message, cure)

    def _look_up(self) -> None:
        values, lengths = np.array(self._words, np.int64).view(np.uint64), np.array(self._lengths, np.int64)
        holds = np.zeros(len(lengths), bool)
        for width, sought in self._sought.items():
            hashes, counts = window_hashes(values, lengths, width)
            holds[np.repeat(np.arange(len(lengths)), counts)[contained(hashes, sought)]] = True
        self._rows += [self._waiting[row] for row in np.flatnonzero(holds)]
        self._words, self._lengths, self._waiting = array("q"), array("q"), []


def _words(text: str) -> list[int]:
    """A 64-bit hash of each word; it holds within one process, as does the check."""
    return [hash(word) for word in WORD.findall(unicodedata.normalize("NFKC", text).casefold())]
