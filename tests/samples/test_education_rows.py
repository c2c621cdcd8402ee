"""Exercises of a chosen level: right by another reckoning, harder by level, and the same in every process."""

from __future__ import annotations

import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, distribution
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from pegbox.errors import RecipeError
from pegbox.samples import education, exercises
from pegbox.samples.education import drawn

COUNT = 400
NUMBER = re.compile(r"-?\d+(?:\.\d+|/\d+)?")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
PLACES = ("units", "tens", "hundreds", "thousands", "ten thousands", "hundred thousands", "millions", "ten millions")
PLACES += ("hundred millions", "billions")

# ---- the oracle: the exercises of each topic, solved from their words -------------------------------------------------


def numbers(text: str) -> list[str]:
    """The numbers of a text; a minus between two of them, with white space around it, belongs to none."""
    return NUMBER.findall(re.sub(r"(?<=\d)-(?=\d)", " - ", text).replace("- ", "minus "))


def values(text: str) -> list[Fraction]:
    return list(map(Fraction, numbers(text)))


def digit(text: str) -> str:
    place, number = re.fullmatch(r"What is the (.*) digit of (\d+)\?", text).groups()  # type: ignore[union-attr]
    return number[-1 - PLACES.index(place)]


def order(text: str) -> str:
    falling = re.search("descending|decreasing", text) is not None
    return ", ".join(sorted(numbers(text), key=Fraction, reverse=falling))


def kth(text: str) -> str:
    said, offered = re.fullmatch(r"Wh(?:at|ich) is the (.*) value(?: in |\?)(.*?)\??", text).groups()  # type: ignore[union-attr]
    rank = next((place for place, word in enumerate(ORDINALS) if word in said), 0)
    return pick(offered, sorted(values(offered), reverse="biggest" in said)[rank])


def closest(text: str) -> str:
    to, offered = re.fullmatch(r"Wh(?:at|ich) is the (?:closest|nearest) to (\S+?)(?: in |\?)(.*?)\??", text).groups()  # type: ignore[union-attr]
    return pick(offered, min(values(offered), key=lambda value: abs(value - Fraction(to))))


def pick(offered: str, wanted: Fraction) -> str:
    """The number as it is written, or its letter where the choices have letters."""
    place = values(offered).index(wanted)
    letters = re.findall(r"\(([a-z])\)", offered)
    return letters[place] if letters else numbers(offered)[place]


COMPARED: Mapping[str, Callable[[Fraction, Fraction], bool]] = {
    r"<=|at most|less than or equal": lambda a, b: a <= b,
    r">=|at least|greater than or equal": lambda a, b: a >= b,
    r"!=|not equal|unequal|non-?equal|different": lambda a, b: a != b,
    r"<|less|smaller than": lambda a, b: a < b,
    r">|greater than|bigger than": lambda a, b: a > b,
    r"=|equal|same": lambda a, b: a == b,
}


def compare(text: str) -> str:
    a, b = values(text)
    if text.startswith("Which"):
        wanted = min(a, b) if "smaller" in text else max(a, b)
        return numbers(text)[(a, b).index(wanted)]
    return str(next(test(a, b) for words, test in COMPARED.items() if re.search(words, text)))


def divide(text: str) -> str:
    a, b = values(text)
    return str(a / b)


def multiply(text: str) -> str:
    a, b = values(text)
    return decimal(a * b)


def add(text: str) -> str:
    a, b = values(text)
    if re.search("distance|difference", text):
        return decimal(abs(a - b))
    if re.search("Subtract|less than", text):
        return decimal(b - a)
    return decimal(a - b if re.search("minus|take away", text.replace("- ", "minus ")) else a + b)


def decimal(value: Fraction) -> str:
    """Written out, as a denominator of twos and fives allows."""
    places = next(places for places in range(40) if (value * 10**places).denominator == 1)
    digits = str(abs(int(value * 10**places))).rjust(places + 1, "0")
    whole, part = (digits[:-places], digits[-places:]) if places else (digits, "")
    return ("-" if value < 0 else "") + whole + (f".{part}" if part else "")


TOPICS: Sequence[tuple[str, Callable[[str], str]]] = (
    (r" digit of ", digit),
    (r"^Sort|^Put .* order", order),
    (r"closest|nearest", closest),
    (r"(biggest|smallest) value", kth),
    (r"^(Is|Are|Do|Does|Which) ", compare),
    (r"ivide", divide),
    (r"times|roduct|ultiply|\*", multiply),
    (r"", add),
)


def solve(text: str) -> tuple[str, str]:
    """The topic of an exercise, and its answer."""
    solver = next(solver for words, solver in TOPICS if re.search(words, text))
    return solver.__name__, solver(text)


# ---- the properties --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=exercises.LEVELS)
def level(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def rows(level: str) -> list[dict[str, str]]:
    return drawn(level, COUNT)


def wrong(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [row for row in rows if solve(row["prompt"])[1] != row["completion"]]


def test_every_answer_is_right(rows: list[dict[str, str]]) -> None:
    """By the oracle above; answers that are put one row further are wrong."""
    assert len(rows) == COUNT and wrong(rows) == []
    moved = [row | {"completion": other["completion"]} for row, other in pairwise(rows)]
    assert len(wrong(moved)) > 0.8 * COUNT


def test_every_topic_has_as_many_exercises_and_none_comes_twice(rows: list[dict[str, str]]) -> None:
    assert set(Counter(solve(row["prompt"])[0] for row in rows).values()) == {COUNT // 8}
    assert len({row["prompt"] for row in rows}) == COUNT


def test_each_level_is_harder_than_the_one_before() -> None:
    def digits(level: str) -> float:
        found = drawn(level, COUNT)
        return median(max(len(re.sub(r"\D", "", one)) for one in numbers(row["prompt"])) for row in found)

    easy, medium, hard = map(digits, exercises.LEVELS)
    assert easy < medium < hard


def test_levels_part_a_range_into_thirds() -> None:
    parts = [exercises.within(level)((3, 9)) for level in exercises.LEVELS]
    assert parts == [(3, 5), (5, 7), (7, 9)]


def test_the_same_rows_whatever_the_process_drew_before_and_its_draws_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    one = drawn("easy", 40)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    random.seed(2)
    monkeypatch.setenv("PYTHONHASHSEED", "2")
    assert drawn("easy", 40) == one


def test_no_topic_needs_what_later_versions_took_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.12 refuses what 3.11 warns of: fractions as the ends of a range."""
    monkeypatch.setenv("PYTHONWARNINGS", "error::DeprecationWarning")
    assert len(drawn("medium", 80)) == 80


def test_a_missing_or_another_package_is_a_mistake_with_a_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    for version, told in ((missing, "it is not installed"), (lambda name: "1.0.2", "it is 1.0.2")):
        monkeypatch.setattr(education, "version", version)
        with pytest.raises(RecipeError, match=told) as refused:
            drawn("easy", 8)
        assert "pip install 'pegbox[samples]'" in str(refused.value)


def test_a_package_that_does_not_work_here_is_a_mistake_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sympy.py").write_text("raise ImportError('this sympy is not for it')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RecipeError, match="ImportError: this sympy is not for it") as refused:
        drawn("easy", 8)
    assert "Traceback" not in str(refused.value)


def test_a_draw_imports_nothing_into_this_process() -> None:
    drawn("easy", 8)
    assert not [name for name in sys.modules if name.startswith("mathematics_dataset")]


def test_the_package_states_the_licence_that_is_told() -> None:
    package = distribution(education.PACKAGE)
    assert package.metadata["License"] == "Apache License, Version 2.0"
    assert education.EASY.licence == "Apache-2.0"
