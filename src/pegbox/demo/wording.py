"""From what the grammar allows to what people say: agreement, prepositions, articles.

The grammar is written to understand, not to speak: it takes "is all the light on", "2-hours timer", "an der Bad".
Each rule below is a substitution on the finished sentence. Whether the mended sentence still means what it meant is not
decided here: the recogniser reads it afterwards like any other, and a sentence that it reads differently is dropped.
"""

from __future__ import annotations

import re

from pegbox.demo.german import german
from pegbox.demo.names import Names
from pegbox.demo.rules import Rule, any_of, rule


class Wording:
    """The rules of one language for the names of one house; a language without rules is left as it is."""

    def __init__(self, language: str, names: Names) -> None:
        make = {"en": english, "de": german}.get(language)
        self.rules: list[Rule] = [] if make is None else make(names)

    def mend(self, command: str) -> str:
        for pattern, replacement in self.rules:
            command = pattern.sub(replacement, command)
        return command


_NOUNS = r"(lighting|light|lamp|fan|switch|door|window|gate|lock|shutter|blind|curtain|awning|shade)(?:e?s)?\b"
_BEFORE_PARTICLE = re.compile(
    r"(?:turn|switch|change|bring|lights?|lamps?|lighting|fans?|switch(?:es)?|is|are|the|there)$|\btime|\bhow long"
)
_STATES = r"open|shut|osed|ning|sing|cked|lear|mpty|cted|pied|ered"  # the ends of what a device can be


def english(names: Names) -> list[Rule]:
    """Numbers and units, then articles, then prepositions, then agreement."""
    return [*_numbers(), *_articles(names), *_places(names), *_agreement()]


def _numbers() -> list[Rule]:
    return [
        rule(r"(\d+)[ -](hour|minute|second)s?\b( timer)?", _duration),
        rule(r"\b(\d+(?:-hour| hours|-minute| minutes)) (?=\d)", r"\1 and "),
        rule(
            r"(?:\d+[- ](?:hours?|minutes?) and )+\d+-(?:minute|second)(?= timer)",
            lambda match: re.sub(r"[- ](hour|minute|second)s?", r" \1", match[0]),
        ),
        rule(r"\b(\d+) and (?:a )?(half|1/2) (hour|minute)s?", r"\1 and a \2 \3s"),
        rule(r"\b(half|1/2) an? (hour|minute)s\b", lambda match: f"{match[1]} {_a(match[2])} {match[2]}"),
        rule(r"\ban? (?=(\d+|timer))", lambda match: f"{_a(match[1])} "),
        rule(r"(\d) ?(?:%|percent)", r"\1 percent"),
    ]


def _a(word: str) -> str:
    return "an" if word in {"8", "11", "18", "hour"} else "a"


def _duration(match: re.Match[str]) -> str:
    """A 2-hour timer, but: a timer for 2 hours."""
    number, unit, timer = match.groups()
    return f"{number}-{unit}{timer}" if timer else f"{number} {unit}s"


def _articles(names: Names) -> list[Rule]:
    devices = [device for group in names.devices.values() for device in group]
    things = any_of(device for device in devices if names.inflected[device] != device)
    proper = any_of(device for device in devices if names.inflected[device] == device)
    places = any_of((*names.areas, *names.floors))
    article = r"(?:the|my|our)"
    return [
        rule(rf"\b({any_of(names.floors)}) floor\b", r"\1"),
        rule(rf"\b{article} ({proper})\b", r"\1"),
        rule(rf"\b({places}) {article} (?=(?:{things}|{_NOUNS})\b)", r"\1 "),
        rule(rf"\b(?:is|are)(?: (?:there|the|my|our))* ({things})\b", r"is the \1"),
        rule(rf"\b(?:is|are) (?:there )?({any_of(names.devices['person'])})\b", r"is \1"),
        rule(rf"^(is|are) (?:there )?{article} (?=(?:any|some|all|every|each)\b)", r"\1 "),
        rule(rf"\b(every|each)( single| and every)? {article}\b", r"\1\2"),
        rule(rf"\b(any|some|how many|which) ({article})\b", r"\1 of \2"),
        rule(rf"\bof ({article}) {article}\b", r"of \1"),
    ]


def _places(names: Names) -> list[Rule]:
    places = {name: names.inflected[name] for name in (*names.areas, *names.floors, *names.phrases["zone"])}
    plain = [name for name, phrase in places.items() if " the " not in phrase]  # home, at work
    listed = any_of(name for name in places if name not in plain)

    def link(match: re.Match[str]) -> str:
        """Put the place's own preposition, but leave the "on" of "turn on the kitchen light"."""
        preposition, article, name = match.groups()
        before, after = match.string[: match.start()], match.string[match.end() :]
        elsewhere = re.search(r"\b(?:on|off|out|activate|deactivate)\b", before + after)
        if preposition == "on" and _BEFORE_PARTICLE.search(before) and not elsewhere:
            return match[0]
        return f" {places[name].split()[0]} {article or 'the '}{name}"

    prepositions = "in|on|at|across|around|throughout"
    return [
        rule(rf" ({prepositions}) ((?:the|my|our) )?({listed})\b", link),
        rule(rf"(?:(?<= on)|(?<=off|out)|(?<={_STATES})) (of) ((?:the|my|our) )?({listed})\b", link),
        rule(
            rf"^((?:is|who|how many)\b.*?)(?: (?:{prepositions}|of))?(?: the| my| our)? ({any_of(plain)})$",
            lambda match: f"{match[1]} {places[match[2]]}",
        ),
    ]


def _agreement() -> list[Rule]:
    return [
        rule(rf"\b((?:all|any|some|how many|which of)\b.*?\b){_NOUNS}", _plural),
        rule(rf"\b((?:every|each)\b(?: single| and every)? (?:.*? )??){_NOUNS}", _singular),
        rule(r"^(?:is|are)\b(?= (?:there )?(?:any|some)\b)", "are"),
        rule(r"^(?:is|are)(?: there)?\b(?= all\b)", "are"),
        rule(r"^(?:is|are)(?: there)?\b(?= (?:every|each)\b)", "is"),
        rule(r"^((?:how many|which)\b.*?s) (?:is|are)(?: there| the| my| our)?\b", r"\1 are"),
        rule(r"^((?:which|what)\b.*?[^s]) (?:is|are)(?: there| the| my| our)?\b", r"\1 is"),
        rule(r"^turn increase\b", "turn up"),
        rule(r"^turn decrease\b", "turn down"),
        rule(r"^(?:change|bring) (?=.*\b(?:on|off|out)\b)(?!to\b)", "turn "),
        rule(r"^(?!.*fan)(.*) to (on|off)$", r"\1 \2"),
    ]


def _plural(match: re.Match[str]) -> str:
    noun = match[2].replace("lighting", "light")
    return f"{match[1]}{noun}{'es' if noun == 'switch' else 's'}"


def _singular(match: re.Match[str]) -> str:
    return match[1] + match[2].replace("lighting", "light")
