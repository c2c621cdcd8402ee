"""The demo's rows: seeded, split by template, and each a function from words to an answer that hassil confirms."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import home_assistant_intents
import pytest
from hassil.intents import Intents, SlotList, TextSlotList
from hassil.recognize import RecognizeResult, recognize_all, recognize_best

import pegbox
from pegbox.demo.house import INSTRUCTION, SPLITS, HouseRow, HouseSample, sample_rows
from pegbox.demo.names import Names, names_for
from pegbox.errors import RecipeError

COUNTS = {
    "en": {"train": 150, "validation": 12, "test": 70},
    "de": {"train": 150, "validation": 5, "test": 60},
}
# A room that no command names: what the recogniser takes from the context is not in the words.
CONTEXT = "the speaker's own room"


@pytest.fixture(scope="module", params=["en", "de"])
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def sample(language: str) -> HouseSample:
    return sample_rows(language, COUNTS[language], seed=7)


@pytest.fixture(scope="module")
def names(language: str) -> Names:
    return names_for(language)


@pytest.fixture(scope="module")
def readings(language: str, names: Names, sample: HouseSample) -> dict[str, list[RecognizeResult]]:
    """What hassil as published makes of a command, its own best first: the oracle. Of test rows all that it can make."""
    data = home_assistant_intents.get_intents(language)
    assert data is not None
    intents, lists = Intents.from_dict(data), house_lists(names)
    found = {}
    for row in sample.rows:
        arguments: dict[str, Any] = {"slot_lists": lists, "intent_context": {"area": CONTEXT}, "language": language}
        best = recognize_best(row.command, intents, **arguments)
        assert best is not None, row
        others = recognize_all(row.command, intents, **arguments) if row.split == "test" else []
        found[row.command] = [best, *others]
    return found


def answer_of(result: RecognizeResult) -> dict[str, Any]:
    slots = {name: entity.value for name, entity in result.entities.items() if entity.value != CONTEXT}
    return {"intent": result.intent.name, **slots}


def template_of(result: RecognizeResult) -> str:
    assert result.intent_sentence is not None
    return f"{result.intent.name}: {result.intent_sentence.text}"


def house_lists(names: Names) -> dict[str, SlotList]:
    devices = [(name, name, {"domain": domain}) for domain, group in names.devices.items() for name in group]
    return {
        "area": TextSlotList.from_strings(names.areas),
        "floor": TextSlotList.from_strings(names.floors),
        "name": TextSlotList.from_tuples(devices),
    }


def named(row: HouseRow, names: Names) -> set[str]:
    """The rooms, floors and devices that the answer names; a timer's name is not a device's."""
    answer = json.loads(row.answer)
    known = {"area": set(names.areas), "floor": set(names.floors)}
    known["name"] = {name for group in names.devices.values() for name in group}
    return {answer[slot] for slot in known if answer.get(slot) in known[slot]}


def test_every_split_has_exactly_the_rows_asked_for(language: str, sample: HouseSample) -> None:
    assert {split: len(sample.split(split)) for split in SPLITS} == COUNTS[language]
    assert len(sample.rows) == sum(COUNTS[language].values())


def test_no_command_occurs_twice_and_no_template_in_two_splits(sample: HouseSample) -> None:
    assert len({row.command for row in sample.rows}) == len(sample.rows)
    for one, other in [("train", "test"), ("train", "validation"), ("validation", "test")]:
        assert not {row.template for row in sample.split(one)} & {row.template for row in sample.split(other)}


def test_every_intent_of_the_test_rows_is_trained(sample: HouseSample) -> None:
    trained = {row.intent for row in sample.split("train")}
    assert {row.intent for row in sample.split("test")} | {row.intent for row in sample.split("validation")} <= trained
    assert len(trained) >= 40


def test_few_training_rows_leave_few_intents_to_test() -> None:
    few = sample_rows("sv", {"train": 12, "test": 15})
    trained = {row.intent for row in few.split("train")}
    assert len(trained) == 12 and {row.intent for row in few.split("test")} <= trained


def test_training_uses_every_template_once_before_any_twice(sample: HouseSample) -> None:
    train = sample.split("train")
    assert len({row.template for row in train}) == len(train)


def test_hassil_reads_every_command_as_its_answer_by_its_template(
    sample: HouseSample, readings: dict[str, list[RecognizeResult]]
) -> None:
    """Against all intents with numbers in words too, where the sampler leaves out what cannot match."""
    for row in sample.rows:
        best = readings[row.command][0]
        assert json.loads(row.answer) == answer_of(best), row
        assert row.template == template_of(best), row


def test_no_template_of_another_split_yields_a_test_command(
    sample: HouseSample, readings: dict[str, list[RecognizeResult]]
) -> None:
    side = {row.template: row.split for row in sample.rows}
    for row in sample.rows:
        for result in readings[row.command]:
            if answer_of(result) == json.loads(row.answer):
                assert side.get(template_of(result), row.split) == row.split, row


def test_answers_are_canonical_json_with_the_intent_first_and_whole_numbers_whole(sample: HouseSample) -> None:
    for row in sample.rows:
        answer: dict[str, Any] = json.loads(row.answer)
        keys = list(answer)
        assert keys[0] == "intent" and keys[1:] == sorted(keys[1:]) and answer["intent"] == row.intent
        assert row.answer == json.dumps(answer, ensure_ascii=False)
        assert not any(isinstance(value, float) and value.is_integer() for value in answer.values())


def test_unseen_names_never_occur_in_training_and_seen_ones_do(sample: HouseSample, names: Names) -> None:
    train = sample.split("train")
    trained = set().union(*(named(row, names) for row in train))
    text = " | ".join(f" {row.command} " for row in train).casefold()
    for row in sample.rows:
        unseen = named(row, names) - trained
        assert row.unseen_names == bool(unseen), row
        if row.split == "test":
            assert not any(f" {name.casefold()} " in text for name in unseen), row
    assert not any(row.unseen_names for row in train)


def test_about_half_of_the_test_rows_that_name_something_name_something_unseen(
    sample: HouseSample, names: Names
) -> None:
    naming = [row for row in sample.split("test") if named(row, names)]
    assert len(naming) >= 30
    # More than half, for so few training rows do not say every name that they may.
    assert 0.4 < sum(row.unseen_names for row in naming) / len(naming) < 0.8


def test_processes_with_other_hash_seeds_draw_the_same_rows() -> None:
    counts = {"train": 30, "validation": 5, "test": 10}
    program = (
        "from pegbox.demo.house import sample_rows\n"
        "import hashlib\n"
        f"print(hashlib.sha256(repr(sample_rows('en', {counts}, seed=5).rows).encode()).hexdigest())\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": str(Path(pegbox.__path__[0]).parent), "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for hash_seed in ("1", "2")
    ]
    one, two = (process.communicate(timeout=60)[0].strip() for process in processes)
    assert one == two != ""


def test_another_seed_draws_other_rows() -> None:
    one, two, again = (sample_rows("sv", {"train": 20}, seed=seed).rows for seed in (5, 6, 5))
    assert one == again != two


def test_a_sentence_that_two_splits_or_two_intents_can_say_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its adverb every window template says the same; both intents know how to shut a door."""
    adverbs = ["slowly", "gently", "quickly", "fully", "partly", "really", "kindly", "simply", "finally", "carefully"]
    opening = [f"open [{adverb}] the {{area}} window" for adverb in adverbs]
    shutting = ["shut the {area} door", "lock [and bolt] the {area} door"]
    grammar = {
        "language": "en",
        "intents": {
            "OpenWindow": {"data": [{"sentences": opening}]},
            "ShutDoor": {"data": [{"sentences": shutting}]},
            "LockDoor": {"data": [{"sentences": shutting[1:]}]},
        },
    }
    monkeypatch.setattr(home_assistant_intents, "get_intents", lambda language: grammar)
    sample = sample_rows("en", {"train": 12, "validation": 1, "test": 4})
    assert sample.dropped["fits a template of another split"] > 0 and sample.dropped["no meaning, or several"] > 0
    for row in sample.rows:
        assert not row.command.startswith("lock")
        if row.intent == "OpenWindow":
            assert row.command.split()[1] in adverbs and f"[{row.command.split()[1]}]" in row.template


@pytest.mark.parametrize("other", ["ja", "zh-HK", "tr", "he"])
def test_languages_without_names_of_their_own_are_sampled_too(other: str) -> None:
    sample = sample_rows(other, {"train": 20, "validation": 3, "test": 6})
    assert [len(sample.split(split)) for split in SPLITS] == [20, 3, 6]


@pytest.mark.parametrize("unknown", ["tlh", "../data/en", ""])
def test_an_unknown_language_is_refused_with_those_there_are(unknown: str) -> None:
    with pytest.raises(RecipeError, match=r"choose one of .*de, .*en, ") as raised:
        sample_rows(unknown, {"train": 10})
    assert "te," not in str(raised.value)  # twelve templates are not enough to share out


def test_a_language_too_small_for_so_many_rows_is_refused_and_says_how_many_there_are() -> None:
    with pytest.raises(RecipeError, match=r"'mn' yields \d+ rows for train, not 2000"):
        sample_rows("mn", {"train": 2000})


def test_a_missing_package_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "home_assistant_intents", None)
    with pytest.raises(RecipeError, match=r"home_assistant_intents\n  cure: pip install 'pegbox\[demo\]'"):
        sample_rows("en", {"train": 10})


def test_the_instruction_is_short_and_tells_the_form_but_no_intent() -> None:
    assert set(INSTRUCTION) == {"en", "de"}
    for text in INSTRUCTION.values():
        assert "JSON" in text and "Hass" not in text and len(text.split()) <= 25
