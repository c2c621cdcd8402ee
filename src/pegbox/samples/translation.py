"""Translation: what a program says on its screens, in English and in another language.

Source: homeassistant 2024.3.3, `components/*/translations/*.json`, written by its translators. Licence: Apache-2.0
(`LICENSE.md` of its wheel). The wheel is read, never installed.

A component has a file for each language, with the same keys; a pair is what two of them say under one key. Kept are
pairs of three English words or more, short, on one line, in which something was translated (the two differ) and nothing
was lost: {names} in braces are the same on both sides. Of equal English texts one is kept, with the translation that
most components have. The component is the row's `group`: its words and names stand in one split only, as a translator
meets a new component.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pegbox.archives import Archive, fetch
from pegbox.samples.sample import Row, Sample, shuffled

ARCHIVE = Archive("homeassistant", "2024.3.3", "6e1ec2c07441d63fdcfb8acd2c4bbb6f68bc97330855784d3623d10c38fe3577")
LICENCE = "Apache-2.0"
LANGUAGES: Mapping[str, str] = {"de": "German", "es": "Spanish"}
ROWS = 1600
WORDS, LONGEST = 3, 100  # words of the English text at least, characters of each text at most
_PLACES = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True)
class Pair:
    """What a component says in English, and in the other language."""

    component: str
    english: str
    other: str


def translations(language: str) -> list[Row]:
    """Rows of `chat` and `seq2seq`: an English text and its translation.

    Raises RecipeError where the archive is neither in the cache nor to be had.
    """
    path = fetch(ARCHIVE, f"translations ({LICENCE})", f"sample translation-{language}")
    with zipfile.ZipFile(path) as archive:
        return rows(pairs_of(archive, language))[:ROWS]


def rows(pairs: Iterable[Pair]) -> list[Row]:
    """The rows of pairs: the good ones, one of each English text."""
    found: dict[str, list[Pair]] = {}
    for pair in pairs:
        if is_good(pair):
            found.setdefault(" ".join(pair.english.casefold().split()), []).append(pair)
    chosen = map(_most_said, found.values())
    return shuffled([{"source": one.english, "target": one.other, "group": one.component} for one in chosen])


def is_good(pair: Pair) -> bool:
    """Whether a pair is short, of several words, translated, and with the same {names} on both sides."""
    texts = (pair.english, pair.other)
    return (
        len(pair.english.split()) >= WORDS
        and all(0 < len(text) <= LONGEST and text.isprintable() for text in texts)
        and pair.english != pair.other
        and len({tuple(sorted(_PLACES.findall(text))) for text in texts}) == 1
    )


def _most_said(pairs: list[Pair]) -> Pair:
    """The first pair with the most frequent translation."""
    most = Counter(pair.other for pair in pairs).most_common(1)[0][0]  # of equals the first
    return next(pair for pair in pairs if pair.other == most)


# ---- the archive -----------------------------------------------------------------------------------------------------


def pairs_of(archive: zipfile.ZipFile, language: str) -> Iterator[Pair]:
    """The pairs of all components that have the language, by component and key."""
    names = set(archive.namelist())
    for name in sorted(names):
        folder, _, file = name.rpartition("/")
        if file == "en.json" and folder.endswith("/translations") and (other := f"{folder}/{language}.json") in names:
            component = folder.split("/")[-2]
            yield from component_pairs(component, archive.read(name).decode(), archive.read(other).decode())


def component_pairs(component: str, english: str, other: str) -> Iterator[Pair]:
    """The pairs of two files with the same keys, in the order of the English one."""
    translated = dict(_texts(json.loads(other)))
    for key, text in _texts(json.loads(english)):
        if key in translated:
            yield Pair(component, text, translated[key])


def _texts(value: Any, key: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """The texts of nested objects, each with the way to it."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(inner, (*key, name))


def _into(code: str) -> Sample:
    return Sample(
        about=f"a text of a program's screens in English -> in {LANGUAGES[code]}",
        task="chat",
        package=ARCHIVE.pinned,
        licence=LICENCE,
        attribution="the Home Assistant authors and translators, home-assistant.io",
        rows=partial(translations, code),
    )


GERMAN, SPANISH = map(_into, LANGUAGES)
