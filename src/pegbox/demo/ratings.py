"""Human scores of short English texts, from -4 (as bad as can be) to 4: the mean over 15 people or more.

Source: the archive of vaderSentiment 0.5, which carries the data of C.J. Hutto and E. Gilbert, "VADER: A Parsimonious
Rule-based Model for Sentiment Analysis of Social Media Text", ICWSM 2014. Licence: MIT (`LICENSE.txt` of the archive;
`license` in its `setup.py`). The film-review sentences are those of B. Pang and L. Lee (2004), the tweets are
anonymous. Everything is read at run time, nothing of it is kept here.

A line of a file is: id, score, text, with tabs. The archive has the single ratings too, in files of their own. Each score
of a film sentence is their mean; of 199 tweets it is not (they stand nearer to zero than theirs), and nothing says why.
The scores are taken as published.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pegbox.archives import Archive, fetch

ARCHIVE = Archive(
    "vaderSentiment", "0.5", "5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a", source=True
)
LICENCE = "MIT"

_PACKED = "vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz"
_FILES: Mapping[str, str] = MappingProxyType(
    {"films": "movieReviewSnippets_GroundTruth.txt", "tweets": "tweets_GroundTruth.txt"}
)


@dataclass(frozen=True)
class Rated:
    """A text and its score, -4 to 4."""

    text: str
    score: float


def rated(name: str) -> list[Rated]:
    """The texts called "films" (10,605 sentences) or "tweets" (4,200), in the order of the file.

    Raises RecipeError where the archive is neither in the cache nor to be had.
    """
    path = fetch(ARCHIVE, f"rated {name} ({LICENCE})", f"rows {name}")
    with (
        zipfile.ZipFile(path) as archive,
        archive.open(_PACKED) as packed,
        tarfile.open(fileobj=packed, mode="r:gz") as files,
    ):
        file = files.extractfile(f"hutto_ICWSM_2014/{_FILES[name]}")
        assert file is not None, "an archive with the right SHA-256 has this file"
        return parse(file.read().decode("utf-8"))


def parse(text: str) -> list[Rated]:
    """The lines of a file of scores. Only a newline ends one: a text may hold other separators."""
    rows = [line.rstrip("\r").split("\t", 2) for line in text.split("\n") if line.strip()]
    return [Rated(words.strip(), float(score)) for _, score, words in rows]
