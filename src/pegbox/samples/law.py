"""Law: notices in source code and the licence that each means; headings in licences and the clause beneath each.

Source: licensedcode-data 32.1.0, the texts by which ScanCode knows licences. Licence of the data: CC BY 4.0 (`NOTICE`,
`scancode-data.ABOUT`). The attribution that it asks for: "Copyright (c) nexB Inc. and others. All rights reserved. ScanCode
is a trademark of nexB Inc. SPDX-License-Identifier: CC-BY-4.0", with github.com/nexB/scancode-toolkit.

A text there is a block of keys between two lines of dashes, and then the text itself. Nobody wrote questions to the
clauses. What their authors did write is what each is about, in its heading; so the heading is what is asked, and is taken
out of the clause.
"""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator

from pegbox.archives import Archive, fetch
from pegbox.samples.sample import Row, Sample, shuffled

LICENCES = Archive("licensedcode-data", "32.1.0", "18f60bde6dbabbc0a925d45ed80089cdbb7168156a2a1c118737198f9b743b96")
ATTRIBUTION = (
    "Copyright (c) nexB Inc. and others; ScanCode is a trademark of nexB Inc.; github.com/nexB/scancode-toolkit"
)

FRONT = re.compile(r"\A---\n(.*?)^---\n(.*)\Z", re.MULTILINE | re.DOTALL)
KEY = re.compile(r"^license_expression: ([\w.+-]+)$", re.MULTILINE)  # one licence: "mit OR gpl-2.0" is none
NOTICE_WORDS = range(10, 81)  # of a notice: shorter ones name the licence and no more
FEWEST = 60  # notices of a licence that is kept
# a number with a dot or a bracket, a title of a few words, and the end of the line or of a sentence
HEADING = re.compile(
    r"^[ \t]*(?i:section|article)?[ \t]*(?:\d{1,2}(?:\.\d{1,2})*[.):]?|[IVX]{1,5}[.):]|\(?[a-zA-Z][.)])[ \t]+"
    r"(?P<title>[A-Z][\w ,'/&-]{2,60}?)[ \t]*(?:[.:][ \t]*$|[.:][ \t]+(?=[A-Z])|$)",
    re.MULTILINE,
)
SMALL = frozenset(
    ["a", "an", "and", "as", "by", "for", "from", "in", "of", "on", "or", "the", "to", "under", "with", "your"]
)  # words without a capital
CLAUSE_WORDS = range(20, 121)


def notices() -> list[Row]:
    """The rows of `noticed`. Raises RecipeError where the package cannot be had."""
    return shuffled(noticed(_texts("rules", "RULE", "sample law-licences")))


def clauses() -> list[Row]:
    """The rows of `headed`. Raises RecipeError where the package cannot be had."""
    return shuffled(headed(_texts("licenses", "LICENSE", "sample law-clauses")))


def _texts(folder: str, ending: str, where: str) -> Iterator[str]:
    with zipfile.ZipFile(fetch(LICENCES, "texts of licences (CC BY 4.0)", where)) as archive:
        for name in archive.namelist():
            if re.fullmatch(rf"licensedcode/data/{folder}/[^/]+\.{ending}", name):
                yield archive.read(name).decode("utf-8")


def noticed(rules: Iterable[str], fewest: int = FEWEST) -> list[Row]:
    """A notice -> the key of its licence: the rules that are notices of one licence, 10 to 80 words long.

    A licence with fewer than `fewest` of them is left out.
    """
    rows = {}
    for rule in rules:
        front = FRONT.match(rule)
        key = KEY.search(front[1]) if front and "is_license_notice: yes" in front[1] else None
        if front and key and len(front[2].split()) in NOTICE_WORDS:
            rows[" ".join(front[2].split())] = key[1]
    counts = Counter(rows.values())
    return [{"text": text, "label": key} for text, key in rows.items() if counts[key] >= fewest]


def headed(licences: Iterable[str]) -> list[Row]:
    """A heading -> the clause beneath it, 20 to 120 words long; each clause once. Texts in other languages are left out."""
    rows: dict[str, Row] = {}
    for licence in licences:
        front = FRONT.match(licence)
        if front is None or re.search(r"^language: (?!en$)", front[1], re.MULTILINE):
            continue
        found = list(HEADING.finditer(front[2]))
        for match, following in zip(found, [*found[1:], None], strict=False):
            clause = " ".join(front[2][match.end() : following and following.start()].split())
            if _is_title(match["title"]) and len(clause.split()) in CLAUSE_WORDS and clause not in rows:
                rows[clause] = {"text": match["title"].strip().capitalize(), "text_pair": clause}
    return list(rows.values())


def _is_title(words: str) -> bool:
    """Whether each word begins with a capital, as those of a title do and those of a sentence do not."""
    found = words.split()
    return len(found) <= 8 and all(word in SMALL or not word[0].islower() for word in found)


NOTICES = Sample(
    about="a notice in source code -> the licence that it means",
    task="classification",
    package=LICENCES.pinned,
    licence="CC-BY-4.0",
    attribution=ATTRIBUTION,
    rows=notices,
)
CLAUSES = Sample(
    about="the heading of a clause -> the clause",
    task="embedding",
    package=LICENCES.pinned,
    licence="CC-BY-4.0",
    attribution=ATTRIBUTION,
    rows=clauses,
)
