"""Which languages the rows are in, and rows that are in another than nearly all.

The detector is py3langid (Naive Bayes over byte n-grams of 139 languages, after Lui and Baldwin 2012), the extra
`languages`: a core dependency would load 120 MB for a note. Without it there is no finding. A sample is enough: the rows
whose text has the lowest keyed hash, so it depends on the seed and the texts alone, and a row that is appended displaces
one of them at most.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from importlib.util import find_spec

from pegbox.data.doctor.findings import Finding
from pegbox.data.doctor.texts import texts
from pegbox.data.records import Record
from pegbox.recipe import Recipe

SAMPLE = 2_000  # rows
SHORTEST, READ = 20, 1_000  # characters of a row that tells its language, and how many of them are read
LIKELY, CERTAIN = 0.7, 0.9  # the least probability with which a row counts for a language, and is named for it
MAIN = 0.9  # the share of the rows from which on the others are named
NAMED = 8  # languages in a message


class Languages:
    """The check `language`: the shares of a sample, and the rows of it that are in another language than most."""

    def __init__(self, recipe: Recipe) -> None:
        self.key = recipe.seed.to_bytes(8, "big", signed=True)
        self.sample: list[tuple[int, str, str]] = []  # a heap with the highest hash in front, negative
        self.wanted = find_spec("py3langid") is not None

    def see(self, record: Record) -> None:
        """Keep the row if its hash is among the lowest."""
        text = " ".join(texts(record.content))[:READ] if self.wanted else ""
        if len(text) < SHORTEST:
            return
        digest = blake2b(text.encode("utf-8", "replace"), digest_size=8, key=self.key).digest()
        order = -int.from_bytes(digest, "big")
        if len(self.sample) < SAMPLE:
            heapq.heappush(self.sample, (order, record.where, text))
        elif order > self.sample[0][0]:
            heapq.heapreplace(self.sample, (order, record.where, text))

    def told(self) -> dict[str, tuple[str, float]]:
        """The language (ISO 639 code) and its probability by `where`, for each row of the sample that tells it."""
        if not self.sample:
            return {}
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        detector = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True, min_confidence=LIKELY)
        found = ((where, detector.classify(text)) for _, where, text in sorted(self.sample, reverse=True))
        return {where: told for where, told in found if told[0] != "und"}

    def findings(self) -> Iterator[Finding]:
        """A note where there is more than one language; the rows are those outside a language that nearly all are in."""
        told = self.told()
        shares = Counter(language for language, _ in told.values()).most_common()
        if len(shares) < 2:
            return
        main, count = shares[0]
        others = [where for where, (language, sure) in told.items() if language != main and sure >= CERTAIN]
        listed = ", ".join(f"{rows / len(told):.1%} {language}" for language, rows in shares[:NAMED])
        more = f" and {len(shares) - NAMED} more" if len(shares) > NAMED else ""
        message = f"{len(told)} rows of a sample of {len(self.sample)} tell their language: {listed}{more}"
        cure = "nothing, where these languages are meant; else take the rows of the others out"
        yield Finding("language", "note", tuple(others) if count >= MAIN * len(told) else (), message, cure)
