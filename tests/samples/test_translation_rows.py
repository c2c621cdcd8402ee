"""Texts of a program's screens in two languages: paired by key, each English text once, nothing lost in between."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import pytest

from pegbox.archives import fetch
from pegbox.samples import translation
from pegbox.samples.translation import LANGUAGES, Pair, component_pairs, is_good, pairs_of, rows, translations

LAMP = {"title": "The lamp is on", "state": {"off": "The lamp is off", "gone": "No lamp was found"}}
LAMPE = {"state": {"off": "Die Lampe ist aus", "on": "An"}, "title": "Die Lampe ist an", "more": ["Nichts"]}


def packed(files: Mapping[str, Any]) -> zipfile.ZipFile:
    """An archive of JSON files, in this order."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, value in files.items():
            archive.writestr(name, json.dumps(value))
    return zipfile.ZipFile(held)


def test_a_pair_is_what_two_files_say_under_one_key() -> None:
    assert list(component_pairs("lamp", json.dumps(LAMP), json.dumps(LAMPE))) == [
        Pair("lamp", "The lamp is on", "Die Lampe ist an"),
        Pair("lamp", "The lamp is off", "Die Lampe ist aus"),
    ]


def test_components_are_read_by_name_whatever_their_order_in_the_archive() -> None:
    files = {
        "house/components/lamp/translations/en.json": LAMP,
        "house/components/lamp/translations/de.json": LAMPE,
        "house/components/lamp/translations/fr.json": {"title": "La lampe est allumée"},
        "house/components/lamp/translations/sensor.en.json": {"title": "Not this one"},
        "house/components/lamp/translations/sensor.de.json": {"title": "Diese nicht"},
        "house/components/door/translations/en.json": {"title": "The door is open"},
        "house/components/door/translations/de.json": {"title": "Die Tür ist offen"},
        "house/components/wall/translations/en.json": {"title": "There is no other language"},
        "house/components/wall/en.json": {"title": "There is a wall"},
        "house/components/wall/de.json": {"title": "Da ist eine Wand"},
    }
    found = list(pairs_of(packed(files), "de"))
    assert [(pair.component, pair.other) for pair in found] == [
        ("door", "Die Tür ist offen"),
        ("lamp", "Die Lampe ist an"),
        ("lamp", "Die Lampe ist aus"),
    ]
    assert list(pairs_of(packed(dict(reversed(files.items()))), "de")) == found


@pytest.mark.parametrize(
    ("english", "other", "good"),
    [
        ("The {name} is on", "{name} ist an", True),
        ("The {name} in {room} is on", "In {room} ist {name} an", True),
        ("The {name} is on", "{Name} ist an", False),
        ("The {name} is on", "Es ist an", False),
        ("It is on", "{name} ist an", False),
        ("Wi-Fi 6 GHz", "Wi-Fi 6 GHz", False),
        ("Turn on", "Schalte es ein", False),
        ("It is on\nnow", "Es ist jetzt an", False),
        ("It is on now", "Es ist jetzt\u2028an", False),
        ("It is on now", "", False),
        ("It is " + "very " * 19 + "x", "Es ist sehr an", False),
        ("It is on now", "Es ist " + "sehr " * 19, False),
        ("It is " + "very " * 18 + "late", "Es ist sehr spät", True),
    ],
)
def test_a_good_pair_is_short_and_translated_and_keeps_its_names(english: str, other: str, good: bool) -> None:
    assert is_good(Pair("lamp", english, other)) is good


SAID = [
    Pair("a", "Failed to connect", "Verbinden misslang"),
    Pair("b", "Failed to  Connect", "Verbindung fehlgeschlagen"),
    Pair("c", "failed to connect", "Verbindung fehlgeschlagen"),
    Pair("d", "Already set up", "Schon eingerichtet"),
    Pair("e", "Already set up", "Bereits eingerichtet"),
]


def chosen() -> dict[str, tuple[str, str]]:
    return {row["source"]: (row["target"], row["group"]) for row in rows(SAID)}


def test_of_equal_texts_the_most_frequent_translation_is_kept_and_of_those_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = {
        "Failed to  Connect": ("Verbindung fehlgeschlagen", "b"),
        "Already set up": ("Schon eingerichtet", "d"),
    }
    assert chosen() == wanted
    monkeypatch.setattr(translation, "_most_said", lambda pairs: pairs[0])
    assert chosen() != wanted


@pytest.mark.real_model
@pytest.mark.parametrize("language", LANGUAGES)
def test_real_rows_are_many_and_each_english_text_comes_once(language: str) -> None:
    made = translations(language)
    assert len(made) == translation.ROWS == len({row["source"].casefold() for row in made})
    assert len({row["group"] for row in made}) > 400  # a tenth of them in the test is more than the verdict asks for
    assert made == translations(language)


@pytest.mark.real_model
def test_the_archive_states_the_licence_that_is_told() -> None:
    with zipfile.ZipFile(fetch(translation.ARCHIVE, "translations", "test")) as archive:
        about = archive.read("homeassistant-2024.3.3.dist-info/METADATA").decode()
        assert f"\nLicense: {translation.LICENCE}\n" in about
        assert b"Apache License" in archive.read("homeassistant-2024.3.3.dist-info/LICENSE.md")[:100]
