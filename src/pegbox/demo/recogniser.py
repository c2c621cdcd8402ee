"""What a command means: hassil's recogniser, in a house whose rooms and devices are known.

hassil tries every template on every sentence. Most templates cannot do without a room, a floor or a device, so those
that ask for a list of which the command names nothing are left out beforehand: the result is the same, in half the time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hassil.expression import Alternative, Expression, Group, ListReference, RuleReference, Sentence
from hassil.intents import Intent, Intents, RangeSlotList, SlotList, TextSlotList
from hassil.recognize import RecognizeResult, recognize_all

from pegbox.demo.names import Names

# The lists that the grammar leaves to the house.
OPEN_LISTS = frozenset({"area", "floor", "name"})
# A command without a room means the room that it is spoken in. The answer must follow from the words alone, so the
# recogniser is told a room of this name, and slots that hold it are left out of the answer.
_HERE = "<here>"


@dataclass(frozen=True)
class Reading:
    """What the recogniser makes of a command: the key of the template that fits best, and its slots."""

    intent: str
    template: str
    slots: Mapping[str, Any]
    twins: frozenset[str] = frozenset()  # all templates that give the command this meaning
    spoken: Mapping[str, str] = field(default_factory=dict)  # the command's own words for each slot that it names

    @property
    def answer(self) -> str:
        """The reading as JSON: the intent, then the slots by name."""
        ordered = {"intent": self.intent} | {key: self.slots[key] for key in sorted(self.slots)}
        return json.dumps(ordered, ensure_ascii=False)


class Recogniser:
    """Reads commands in one language. `lists`: all slot lists, the house's own among them."""

    def __init__(self, intents: Intents, names: Names) -> None:
        self.intents = intents
        self.lists: dict[str, SlotList] = intents.slot_lists | _name_lists(names)
        for slot_list in self.lists.values():
            if isinstance(slot_list, RangeSlotList):
                slot_list.words = False  # numbers are said in digits here; spelling all of them out costs seconds
        devices = [name for group in names.devices.values() for name in group]
        self._open = {"area": names.areas, "floor": names.floors, "name": tuple(devices)}
        self._subsets: dict[frozenset[str], Intents] = {}

    def read(self, command: str) -> Reading | None:
        """Return the meaning of `command`: None where there is none, or two that are equally good."""
        text = command.casefold().replace("-", " ")
        named = frozenset(key for key, group in self._open.items() if any(name.casefold() in text for name in group))
        if named not in self._subsets:
            self._subsets[named] = self._without(OPEN_LISTS - named)
        results = recognize_all(command, self._subsets[named], slot_lists=self.lists, intent_context={"area": _HERE})
        ranked = sorted(results, key=_rank)
        readings = [_reading(result) for result in ranked]
        equals = sum(_rank(result) == _rank(ranked[0]) for result in ranked)
        if not readings or len({reading.answer for reading in readings[:equals]}) > 1:
            return None
        best = readings[0]
        return replace(best, twins=frozenset(other.template for other in readings if other.answer == best.answer))

    def _without(self, lists: frozenset[str]) -> Intents:
        """Return the intents less the templates that need one of `lists`."""
        rules = self.intents.expansion_rules
        kept: dict[str, Intent] = {}
        for name, intent in self.intents.intents.items():
            kept[name] = Intent(name)
            for block in intent.data:
                texts = [str(s.text) for s in block.sentences if not _needs(s.expression, rules) & lists]
                if texts:
                    kept[name].data.append(replace(block, sentence_texts=texts))
        return replace(self.intents, intents=kept)


def _name_lists(names: Names) -> dict[str, SlotList]:
    devices = [(name, name, {"domain": domain}) for domain, group in names.devices.items() for name in group]
    return {
        "area": TextSlotList.from_strings(names.areas, allow_template=False, name="area"),
        "floor": TextSlotList.from_strings(names.floors, allow_template=False, name="floor"),
        "name": TextSlotList.from_tuples(devices, allow_template=False, name="name"),
    }


def _needs(node: Expression, rules: Mapping[str, Sentence]) -> frozenset[str]:
    """Return the open lists without which no sentence of `node` can be said."""
    if isinstance(node, ListReference):
        return OPEN_LISTS & {node.list_name}
    if isinstance(node, RuleReference):
        return _needs(rules[node.rule_name].expression, rules)
    if not isinstance(node, Group) or (isinstance(node, Alternative) and node.is_optional):
        return frozenset()
    parts = [_needs(item, rules) for item in node.items]
    return frozenset.intersection(*parts) if isinstance(node, Alternative) else frozenset().union(*parts)


def _rank(result: RecognizeResult) -> tuple[int, int, int]:
    """hassil's own order of results, but for its last tie-breaker: fewest wildcards, most literal text, least guessed."""
    wildcards = [entity.text or "" for entity in result.entities_list if entity.is_wildcard]
    return len(wildcards), -result.text_chunks_matched, sum(map(len, wildcards))


def _reading(result: RecognizeResult) -> Reading:
    slots = {name: _plain(entity.value) for name, entity in result.entities.items() if entity.value != _HERE}
    assert result.intent_sentence is not None and result.intent_sentence.text is not None
    key = template_key(result.intent.name, result.intent_sentence.text)
    spoken = {name: words for name, entity in result.entities.items() if (words := entity.text.strip())}
    return Reading(result.intent.name, key, slots, spoken=spoken)


def template_key(intent: str, text: str) -> str:
    """Name a template: its intent and its text, which may stand in several blocks for different devices."""
    return f"{intent}: {text}"


def _plain(value: Any) -> Any:
    """21.0 -> 21: the recogniser reads every number as a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
