"""`label_noise`: rows of a classification that probably have the wrong label (see `pegbox.data.noise`)."""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Iterator
from itertools import accumulate

from pegbox.data.doctor.findings import Finding, count_of
from pegbox.data.doctor.redaction import name_shown
from pegbox.data.noise import ODDS, Suspect, suspects
from pegbox.data.records import LabelledText, Record
from pegbox.data.splits import parts
from pegbox.recipe import Recipe

LOOKED_AT = 20_000  # rows, at most
CHARACTERS = 1_000  # of a text, from its beginning
WORK = 60_000_000  # characters times labels: about ten seconds of one core
TOLD = 5  # rows whose labels stand in the message
LONGEST = 40  # characters of a label there

_Kept = tuple[int, str, str, str]  # minus the place in the draw, where, text, label


class LabelNoise:
    """Keeps the beginnings of at most LOOKED_AT texts, drawn by the hash of their place and the recipe's seed."""

    def __init__(self, recipe: Recipe) -> None:
        self._seed = recipe.seed
        self._asked = recipe.task.kind == "classification"
        self._seen = 0
        self._kept: list[_Kept] = []  # a heap: the row that would go next stands first

    def see(self, record: Record) -> None:
        """Keep the record where its place in the draw is early enough."""
        if not self._asked or not isinstance(record.content, LabelledText):
            return
        self._seen += 1
        digest = hashlib.blake2b(f"{self._seed}\0{record.where}".encode(), digest_size=8).digest()
        place = -int.from_bytes(digest, "big")
        if len(self._kept) < LOOKED_AT or place > self._kept[0][0]:
            row = (place, record.where, parts(record.content)[0][:CHARACTERS], record.content.label)
            (heapq.heappush if len(self._kept) < LOOKED_AT else heapq.heapreplace)(self._kept, row)

    def findings(self) -> Iterator[Finding]:
        """The suspects, the most suspicious first."""
        drawn = sorted(self._kept, reverse=True)
        fits = max(len({label for _, _, _, label in drawn}), 1)
        work = accumulate(len(text) * fits for _, _, text, _ in drawn)
        rows = [row for row, done in zip(drawn, work, strict=True) if done <= WORK]
        wheres, texts, labels = [row[1] for row in rows], [row[2] for row in rows], [row[3] for row in rows]
        if found := suspects(texts, labels, seed=self._seed):
            named = [wheres[row.index] for row in found]
            told = "; ".join(f"{where}: {_labels(row)}" for where, row in zip(named[:TOLD], found, strict=False))
            more = f"; and {len(found) - TOLD} more" if len(found) > TOLD else ""
            drawn_of = f" of the {len(rows)} looked at, drawn from {self._seen}," if len(rows) < self._seen else ""
            message = (
                f"{count_of(len(found), '', '').rstrip()}{drawn_of} may have the wrong label: by their words another is "
                f"more than {ODDS:.0f} times as likely. The most doubtful first: {told}{more}"
            )
            cure = "read them again and correct the labels that are wrong; those that are right may stay as they are"
            yield Finding("label_noise", "warning", tuple(named), message, cure)


def _labels(row: Suspect) -> str:
    """Both labels, and how much likelier the other is."""
    given, suggested = (
        name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
        for name in map(name_shown, (row.given, row.suggested))
    )
    return f"'{given}' -> '{suggested}' ({math.exp(min(row.score, math.log(1e6))):,.0f} times)"
