"""What the rows are like, in counts: labels, lengths, sources; and where that is odd.

    rare_label        a label with too few rows to be learnt, or to be judged by
    constant_answer   one answer for most of the rows of a task that writes
    answer_in_prompt  what is asked holds the right answer word for word, and hardly ever the answer of another row

Nothing grows with the rows but eight bytes for each written answer. What is said of the rows as a whole names none of
them. Lengths are counted in bins from one edge to before the next; the last bin has no end.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pegbox.data.doctor.findings import Finding, count_of, listed
from pegbox.data.doctor.redaction import name_shown
from pegbox.data.records import Content, Conversation, LabelledText, LabelSetText, PromptCompletion, Record, TaggedWords
from pegbox.data.splits import parts

EDGES = (0, *(digit * 10**power for power in range(7) for digit in (1, 2, 5)))
NAMES = 10_000  # labels and sources that are counted by name; the rest are counted together
FEWEST = 5  # rows of a label; fewer cannot be learnt
FEW, SHARE = 20, 0.01  # fewer rows than this, and a lesser share of all: too few to be judged by
ENOUGH = 50  # rows, for what is said of them as a whole
MOST = 0.5  # share of rows with the same answer
GIVEN_AWAY, TIMES = 0.2, 9  # share of rows that hold their answer; so many times as many as hold another row's
TOLD = 10  # labels in a message


class Shape:
    """Counts what the rows are like."""

    def __init__(self) -> None:
        self._rows = 0
        self._labels, self._sources = Named(), Named()
        self._few: dict[str, list[str]] = defaultdict(list)  # the first FEW rows of each label
        self._asked, self._written = [0] * len(EDGES), [0] * len(EDGES)
        self._answers = array("Q")  # hashes
        self._given_away = GivenAway()

    def see(self, record: Record) -> None:
        """Count one record."""
        self._rows += 1
        self._sources.add(record.where.rpartition(":")[0] or record.where)
        asked, answer = parts(record.content)
        self._asked[bisect_right(EDGES, len(asked)) - 1] += 1
        for label in map(name_shown, labels_of(record.content)):
            if self._labels.add(label) and len(self._few[label]) < FEW:
                self._few[label].append(record.where)
        if isinstance(record.content, Conversation | PromptCompletion):
            self._written[bisect_right(EDGES, len(answer)) - 1] += 1
            digest = hashlib.blake2b(answer.strip().encode(), digest_size=8).digest()
            self._answers.append(int.from_bytes(digest, "big"))
        if isinstance(record.content, Conversation | PromptCompletion | LabelledText):
            self._given_away.see(asked, answer)

    def findings(self) -> Iterator[Finding]:
        """What is odd about the rows as a whole."""
        yield from self._rare()
        yield from self._constant()
        classes = len(self._labels.counts) or 2
        if finding := self._given_away.finding(TIMES * (classes - 1), labels=bool(self._labels.counts)):
            yield finding

    def shape(self) -> dict[str, Any]:
        """The counts as JSON: `labels`, `characters` (histograms), `sources`; labels are left out where there are none."""
        characters = {"asked": {"edges": list(EDGES), "counts": self._asked}}
        if self._answers:
            characters["answer"] = {"edges": list(EDGES), "counts": self._written}
        labels = {"labels": self._labels.to_json()} if self._labels.counts else {}
        return {"rows": self._rows, **labels, "characters": characters, "sources": self._sources.to_json()}

    def _rare(self) -> Iterator[Finding]:
        counts = self._labels.counts
        rare = {
            label: count
            for label, count in sorted(counts.items(), key=lambda item: item[1])
            if count < FEWEST or (count < FEW and count < SHARE * self._rows)
        }
        if rare:
            rows = tuple(dict.fromkeys(where for label in rare for where in self._few[label]))
            told = listed([f"'{label[:40]}' ({count})" for label, count in rare.items()], TOLD)
            has = count_of(len(rows), "has", "have")
            message = f"{has} a rare label: {told}; each is too rare to be learnt well or to be judged by"
            yield Finding(
                "rare_label", "note", rows, message, "give more rows of these labels, or merge them with others"
            )

    def _constant(self) -> Iterator[Finding]:
        if len(self._answers) < ENOUGH:
            return
        most = int(np.unique(np.frombuffer(self._answers, dtype=np.uint64), return_counts=True)[1].max())
        if most > MOST * len(self._answers):
            message = f"{most} of {len(self._answers)} rows have one and the same answer"
            cure = "see that the answer comes from the right column, or take out most of these rows"
            yield Finding("constant_answer", "note", (), message, cure)


class Named:
    """How often each name was seen; after NAMES different ones, new ones are counted together."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._more = 0

    def add(self, name: str) -> bool:
        """Count a name; False where it is not counted by itself."""
        if by_itself := name in self.counts or len(self.counts) < NAMES:
            self.counts[name] += 1
        else:
            self._more += 1
        return by_itself

    def to_json(self) -> dict[str, Any]:
        """`counts`, the most frequent first, and how often other names were seen."""
        return {"counts": dict(self.counts.most_common()), "more": self._more}


class GivenAway:
    """Counts the rows that hold their own answer, and those that hold the last answer that was another: chance."""

    def __init__(self) -> None:
        self._last = self._other = ""
        self._rows = self._own = self._others = 0

    def see(self, asked: str, answer: str) -> None:
        """Compare one row; differences of case do not count."""
        asked, answer = asked.casefold(), answer.strip().casefold()
        if answer and answer != self._last:
            self._last, self._other = answer, self._last
        if answer and self._other:
            self._rows += 1
            self._own += answer in asked
            self._others += self._other in asked

    def finding(self, times: float, *, labels: bool) -> Finding | None:
        """Where enough rows hold their own answer, and `times` as many as hold another's."""
        if self._rows < ENOUGH or self._own < GIVEN_AWAY * self._rows or self._own <= times * self._others:
            return None
        name, other = ("name of their label", "another label") if labels else ("right answer", "another row's answer")
        message = (
            f"{self._own} of {self._rows} rows hold the {name} word for word in what is asked, and "
            f"{self._others} that of {other}"
        )
        cure = "take the answer out of what is asked, unless it will stand there in use too"
        return Finding("answer_in_prompt", "note", (), message, cure)


def labels_of(content: Content) -> Sequence[str]:
    """The labels of a row, or its words' tags."""
    match content:
        case LabelledText(_, label):
            return (label,)
        case LabelSetText(_, labels):
            return labels
        case TaggedWords(_, tags):
            return tags
    return ()


def lengths(tokens: NDArray[np.int64], max_length: int) -> dict[str, Any]:
    """A histogram of lengths in tokens [rows] as JSON, with `max_length` among its edges; `longer`: rows beyond it."""
    edges = np.unique([*EDGES, max_length + 1])  # a row of exactly max_length fits
    counts = np.bincount(np.searchsorted(edges, tokens, side="right") - 1, minlength=len(edges))
    return {
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "max_length": max_length,
        "longer": int((tokens > max_length).sum()),
        "median": int(np.median(tokens)) if len(tokens) else 0,
        "longest": int(tokens.max(initial=0)),
    }


def summary(shape: Mapping[str, Any]) -> str:
    """The shape of the rows in one line."""
    files = len(shape["sources"]["counts"])
    told = [f"{shape['rows']:,} rows from {files:,} source{'' if files == 1 else 's'}"]
    if labels := shape.get("labels"):
        counts = list(labels["counts"].items())
        named = [f"'{name[:40]}' {count:,}" for name, count in (counts[0], counts[-1])[: len(counts)]]
        told.append(f"{len(counts):,} label{'' if len(counts) == 1 else 's'} ({' .. '.join(named)})")
    if tokens := shape.get("tokens"):
        told.append(
            f"half of {tokens['median']:,} tokens or more, the longest {tokens['longest']:,}, "
            f"{tokens['longer']:,} longer than {tokens['max_length']:,}"
        )
    return "; ".join(told)
