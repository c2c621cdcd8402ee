"""The house's grammar: one random sentence of a template.

hassil's own sampler walks a template exhaustively, first choices first: with 40 rooms and a few optional words it would
yield millions of sentences that begin alike. Here the same tree is walked once, at random, with speech in mind: most
optional words stay away, and of several ways to say it the one the authors put first comes most often.
What the sentence means is not for the walk to say: see `recogniser.py`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hassil.expression import (
    Alternative,
    Expression,
    Group,
    ListReference,
    Permutation,
    RuleReference,
    Sentence,
    TextChunk,
)
from hassil.intents import IntentData, Intents, RangeSlotList, SlotList, TextSlotList, TextSlotValue, WildcardSlotList

from pegbox.demo.names import Names
from pegbox.demo.recogniser import OPEN_LISTS, template_key

# Numbers that people say: the grammar allows 100-hour timers and rooms of 90 degrees.
_TYPICAL = {
    "temperature": (16, 26),
    "color_temperature": (2000, 6500),
    "timer_hours": (2, 12),
    "timer_minutes": (2, 59),
    "timer_seconds": (2, 59),
}
# Rules for what speech-to-text makes of a word ("ausm", "Lichtern"): understood, but nobody says it.
_MISHEARD = "<stt_fix"


@dataclass(frozen=True)
class Template:
    """A sentence template of an intent: `key` names it, `variants` are its occurrences for different devices."""

    intent: str
    text: str
    variants: tuple[tuple[IntentData, Sentence], ...]

    @property
    def key(self) -> str:
        return template_key(self.intent, self.text)


@dataclass
class Draw:
    """A sentence in the making: its words so far, the value of every slot drawn, the open names among them."""

    names: Names
    domains: tuple[str, ...]
    rng: random.Random
    words: list[str] = field(default_factory=list)
    slots: dict[str, Any] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    ends_in_slot: bool = False

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words)).strip()


class Grammar:
    """The templates of one language, and sentences of them."""

    def __init__(self, intents: Intents, lists: Mapping[str, SlotList]) -> None:
        self.intents, self.lists = intents, lists
        self.templates = self._templates()

    def _templates(self) -> tuple[Template, ...]:
        variants: dict[tuple[str, str], list[tuple[IntentData, Sentence]]] = {}
        for intent in self.intents.intents.values():
            for block in intent.data:
                for sentence in block.sentences:
                    if _MISHEARD in str(sentence.text):
                        continue
                    variants.setdefault((intent.name, str(sentence.text)), []).append((block, sentence))
        return tuple(Template(intent, text, tuple(found)) for (intent, text), found in variants.items())

    def draw(self, template: Template, names: Names, rng: random.Random) -> Draw:
        """Return a random sentence of `template` that names only what stands in `names`."""
        block, sentence = rng.choice(template.variants)
        domains = block.requires_context.get("domain", tuple(names.devices))
        draw = Draw(names, (domains,) if isinstance(domains, str) else tuple(domains), rng)
        self._walk(sentence.expression, draw)
        return draw

    def _walk(self, node: Expression, draw: Draw) -> None:
        if isinstance(node, TextChunk):
            draw.words.append(node.original_text)
            draw.ends_in_slot = draw.ends_in_slot and not node.original_text
        elif isinstance(node, RuleReference):
            self._walk(self.intents.expansion_rules[node.rule_name].expression, draw)
        elif isinstance(node, ListReference):
            self._fill(node, draw)
        elif isinstance(node, Alternative):
            self._walk(_choose(node, self.intents.expansion_rules, draw), draw)
        elif isinstance(node, Permutation):
            for item in draw.rng.sample(node.items, len(node.items)):
                self._walk(item, draw)
        elif isinstance(node, Group):
            for item in node.items:
                self._walk(item, draw)

    def _fill(self, node: ListReference, draw: Draw) -> None:
        slot_list = self.lists[node.list_name]
        if isinstance(slot_list, RangeSlotList):
            number = _number(node.list_name, slot_list, draw.rng)
            draw.words.append(str(number))
            draw.slots[node.slot_name] = number * (slot_list.multiplier or 1)
        elif isinstance(slot_list, WildcardSlotList):
            phrase = draw.rng.choice(draw.names.phrases[node.list_name])
            draw.words.append(phrase)
            draw.slots[node.slot_name] = phrase
        elif isinstance(slot_list, TextSlotList):
            value = draw.rng.choice(_values(node.list_name, slot_list, draw))
            self._walk(value.text_in, draw)
            draw.slots[node.slot_name] = value.value_out
            if node.list_name in OPEN_LISTS:
                draw.used.add(value.value_out)
        draw.ends_in_slot = True


def _values(list_name: str, slot_list: TextSlotList, draw: Draw) -> list[TextSlotValue]:
    if list_name not in OPEN_LISTS:
        return slot_list.values
    devices = [name for domain in draw.domains for name in draw.names.devices.get(domain, ())]
    allowed = {"area": draw.names.areas, "floor": draw.names.floors, "name": devices}[list_name]
    return [value for value in slot_list.values if value.value_out in allowed]


def _number(list_name: str, slot_list: RangeSlotList, rng: random.Random) -> int | float:
    low, high = _TYPICAL.get(list_name, (slot_list.start, slot_list.stop))
    number = rng.randrange(max(low, slot_list.start), min(high, slot_list.stop) + 1, slot_list.step)
    return number + 0.5 if slot_list.fraction_type and number < high and rng.random() < 0.2 else number


# Optional words that speech mostly keeps: articles and what links a name to the rest.
_MOSTLY_SAID = frozenset(("the a my of in on to by list " + "der die das den dem auf um von liste").split())


def _choose(node: Alternative, rules: Mapping[str, Sentence], draw: Draw) -> Expression:
    items = node.items
    if node.is_optional:
        if draw.rng.random() >= _keep(items[0], rules, draw):
            return items[-1]  # the empty text that hassil puts last
        items = items[:-1]
    return draw.rng.choices(items, [(rank + 1) ** -1.5 for rank in range(len(items))])[0]


def _keep(node: Expression, rules: Mapping[str, Sentence], draw: Draw) -> float:
    """How often an optional part is said."""
    opening = _opening(node, rules)
    word = opening.strip().lower()
    if word in _MOSTLY_SAID:
        return 0.8
    if not word and opening:  # a blank, alone or before a unit
        return 1.0 if _is_blank(node) and draw.ends_in_slot else 0.6
    if not draw.text:
        return 0.8  # the verb
    glued = word and not draw.words[-1].endswith(" ") and not opening.startswith(" ")
    return 0.5 if glued else 0.25


def _is_blank(node: Expression) -> bool:
    if isinstance(node, Group):
        return len(node.items) == 1 and _is_blank(node.items[0])
    return isinstance(node, TextChunk) and node.original_text.isspace()


def _opening(node: Expression, rules: Mapping[str, Sentence]) -> str:
    """Return the first text of `node` with the blanks before it, empty where a slot comes first."""
    if isinstance(node, TextChunk):
        return node.original_text
    if isinstance(node, RuleReference):
        return _opening(rules[node.rule_name].expression, rules)
    if not isinstance(node, Group):
        return ""
    first = _opening(node.items[0], rules)
    more = first.isspace() and not isinstance(node, Alternative) and len(node.items) > 1
    return first + _opening(node.items[1], rules) if more else first
