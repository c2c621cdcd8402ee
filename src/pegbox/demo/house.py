"""Rows of the demonstration: a spoken command to a house -> one JSON object with the intent and its slots.

The sentence templates come from the package `home-assistant-intents` (Apache-2.0, 65 languages), the meaning of a
sentence from `hassil`'s recogniser; both are read at run time, nothing of them is kept here. Rooms, devices and
phrases are our own (`names.py`), and so is the sampling (`grammar.py`, `wording.py`).

The split is by template: a sentence pattern occurs in one split only, and every intent of the test rows has patterns
in training. Some rooms, floors and devices are kept for the test rows: half of those that name anything name one.
A row stands only if the recogniser, knowing nothing of its making, finds its template and its slots again, and finds
no equally good other meaning: what is left is a function from the words to the answer, so it can be learnt.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pegbox.demo.names import Names, names_for
from pegbox.demo.wording import Wording
from pegbox.errors import RecipeError

if TYPE_CHECKING:
    from pegbox.demo.grammar import Draw, Grammar, Template
    from pegbox.demo.recogniser import Reading, Recogniser

INSTRUCTION: Mapping[str, str] = MappingProxyType(
    {
        "en": "You operate a house. Answer the command with one JSON object: the intent and its slots.",
        "de": "Du steuerst ein Haus. Antworte auf den Befehl mit einem JSON-Objekt: intent und slots.",
    }
)

SPLITS = ("train", "validation", "test")
_SHARES = {"test": 0.2, "validation": 0.08}  # of an intent's templates; the rest is for training
_UNSEEN_NAMES = 0.25  # of the rooms, floors and devices
_UNSEEN_ROWS = 0.5  # of the test rows
_MANY = 40  # templates that are enough for a thousand rows
_ATTEMPTS = 8  # draws before a template has nothing more to say


@dataclass(frozen=True)
class HouseRow:
    """One row. `template` is the group that a split never divides; `unseen_names`: it names what training never does;
    `spoken`: the command's own words for each slot that it names."""

    command: str
    answer: str
    template: str
    split: str
    intent: str
    unseen_names: bool
    spoken: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HouseSample:
    """The rows, split by split, and how many drawn sentences were dropped, by reason."""

    rows: tuple[HouseRow, ...]
    dropped: Mapping[str, int]

    def split(self, name: str) -> list[HouseRow]:
        return [row for row in self.rows if row.split == name]


def sample_rows(language: str, per_split: Mapping[str, int], seed: int = 42) -> HouseSample:
    """Draw `per_split` rows, e.g. `{"train": 900, "validation": 60, "test": 200}`; the same ones for the same seed.

    Raises RecipeError where the packages are missing, or the language is unknown or too small for so many rows.
    """
    unknown = set(per_split) - set(SPLITS)
    assert not unknown, f"no such split: {unknown}"
    sampler = _Sampler(language, *_load(language), random.Random(f"{language}:{seed}"))
    for split in SPLITS:
        sampler.fill(split, per_split.get(split, 0))
    return sampler.result()


def _load(language: str) -> tuple[Grammar, Recogniser]:
    """Read the grammar; the packages are imported here, so that the rest of pegbox does without them."""
    try:
        from hassil.intents import Intents
        from home_assistant_intents import get_intents, get_languages

        from pegbox.demo.grammar import Grammar
        from pegbox.demo.recogniser import Recogniser
    except ModuleNotFoundError as error:
        raise RecipeError(f"the demo needs the package {error.name}", cure="pip install 'pegbox[demo]'") from error
    if language not in get_languages():
        raise RecipeError(f"the demo does not speak {language!r}", cure=f"choose one of {', '.join(_languages())}")
    data = get_intents(language)
    assert data is not None, f"the package lists {language} without its grammar"
    intents = Intents.from_dict(data)
    recogniser = Recogniser(intents, names_for(language))
    return Grammar(intents, recogniser.lists), recogniser


def _languages() -> list[str]:
    """Return the languages with enough sentence templates for a thousand rows."""
    from home_assistant_intents import get_intents, get_languages

    def templates(language: str) -> int:
        intents = (get_intents(language) or {"intents": {}})["intents"]
        return sum(len(block["sentences"]) for intent in intents.values() for block in intent["data"])

    return [language for language in get_languages() if templates(language) >= _MANY]


class _Sampler:
    """Fills one split after the other; a later one may not repeat a sentence, nor use an intent that training lacks."""

    def __init__(self, language: str, grammar: Grammar, recogniser: Recogniser, rng: random.Random) -> None:
        names = names_for(language)
        self.language, self.grammar, self.recogniser, self.rng = language, grammar, recogniser, rng
        self.wording = Wording(language, names)
        self.known, self.reserved = _reserve(names, rng)
        self.templates = _split(grammar.templates, rng)
        self.side = {template.key: split for split, group in self.templates.items() for template in group}
        self.kept: dict[str, tuple[HouseRow, frozenset[str]]] = {}  # command -> the row, and the names in it
        self.dropped: Counter[str] = Counter()

    def fill(self, split: str, count: int) -> None:
        """Go round the split's templates, one row of each at a time, until there are `count` rows."""
        trained = {row.intent for row, _ in self.kept.values() if row.split == "train"}
        templates = [t for t in self.templates[split] if split == "train" or not trained or t.intent in trained]
        target = len(self.kept) + count
        while len(self.kept) < target and templates:
            templates = [t for t in templates if len(self.kept) < target and self._add(t, split)]
        if len(self.kept) < target:
            found = count - target + len(self.kept)
            raise RecipeError(
                f"the grammar of {self.language!r} yields {found} rows for {split}, not {count}",
                cure=f"ask for fewer rows, or choose one of {', '.join(_languages())}",
            )

    def _add(self, template: Template, split: str) -> bool:
        """Draw until a sentence of `template` stands; False where none does."""
        for _ in range(_ATTEMPTS):
            unseen = split == "test" and self.rng.random() < _UNSEEN_ROWS
            draw = self.grammar.draw(template, self.reserved if unseen else self.known, self.rng)
            command = self.wording.mend(draw.text)
            reading = None if command in self.kept else self.recogniser.read(command)
            reason = self._objection(command, draw, template, reading, split)
            if reason is None and reading is not None:
                row = HouseRow(command, reading.answer, template.key, split, template.intent, False, reading.spoken)
                self.kept[command] = row, frozenset(draw.used)
                return True
            self.dropped[str(reason)] += 1
        return False

    def _objection(
        self, command: str, draw: Draw, template: Template, reading: Reading | None, split: str
    ) -> str | None:
        if command in self.kept:
            return "repeated"
        if reading is None:
            return "no meaning, or several"
        if reading.template != template.key:
            return "fits another template better"
        if any(self.side.get(twin, split) != split for twin in reading.twins):
            return "fits a template of another split"
        if any(reading.slots.get(slot) != value for slot, value in draw.slots.items()):
            return "slots read differently"
        if split == "train" and _mentions(command, self.reserved):
            return "mentions a name kept for testing"
        return None

    def result(self) -> HouseSample:
        trained = set(chain.from_iterable(names for row, names in self.kept.values() if row.split == "train"))
        rows = [replace(row, unseen_names=not names <= trained) for row, names in self.kept.values()]
        self.rng.shuffle(rows)
        ordered = sorted(rows, key=lambda row: SPLITS.index(row.split))
        return HouseSample(tuple(ordered), MappingProxyType(dict(self.dropped)))


def _reserve(names: Names, rng: random.Random) -> tuple[Names, Names]:
    """Part the names in those of all splits and those of the test rows alone, each list and each domain for itself."""

    def part(group: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        shuffled = rng.sample(group, len(group))
        cut = max(1, round(len(group) * _UNSEEN_NAMES))
        return tuple(shuffled[cut:]), tuple(shuffled[:cut])

    areas, floors = part(names.areas), part(names.floors)
    devices = {domain: part(group) for domain, group in names.devices.items()}
    known, reserved = (
        replace(names, areas=areas[i], floors=floors[i], devices={d: pair[i] for d, pair in devices.items()})
        for i in (0, 1)
    )
    return known, reserved


def _split(templates: Iterable[Template], rng: random.Random) -> dict[str, list[Template]]:
    """Share out each intent's templates; of three or more at least one is for testing. Each intent's first comes first."""
    by_intent: dict[str, list[Template]] = {}
    for template in templates:
        by_intent.setdefault(template.intent, []).append(template)
    first: list[Template] = []
    rest: dict[str, list[Template]] = {split: [] for split in SPLITS}
    for group in by_intent.values():
        rng.shuffle(group)
        test = max(1, round(len(group) * _SHARES["test"])) if len(group) > 2 else 0
        validation = round(len(group) * _SHARES["validation"])
        rest["test"] += group[:test]
        rest["validation"] += group[test : test + validation]
        first.append(group[test + validation])
        rest["train"] += group[test + validation + 1 :]
    for group in rest.values():
        rng.shuffle(group)
    return rest | {"train": first + rest["train"]}


def _mentions(command: str, names: Names) -> bool:
    words = f" {command.casefold()} "
    everything: Iterable[Any] = chain(names.areas, names.floors, *names.devices.values())
    return any(f" {name.casefold()} " in words for name in everything)
