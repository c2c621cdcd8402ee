"""How German speaks to a house: case, gender and number around the names, after the fact.

The grammar takes any article before any noun ("schalte des Lampe an"). The lexicon below knows the grammar's own nouns,
`names.py` the house's; the case follows from the word before, and from whether the sentence asks.
"""

from __future__ import annotations

import re

from pegbox.demo.names import Names
from pegbox.demo.rules import Rule, any_of, rule

_PLURALS = {
    "die Markise": "Markisen",
    "die Jalousie": "Jalousien",
    "das Rollo": "Rollos",
    "die Gardine": "Gardinen",
    "der Vorhang": "Vorhänge",
    "die Tür": "Türen",
    "die Garagentür": "Garagentüren",
    "das Garagentor": "Garagentore",
    "das Tor": "Tore",
    "der Schirm": "Schirme",
    "der Rolladen": "Rolläden",
    "der Rollladen": "Rollläden",
    "das Fenster": "Fenster",
    "das Licht": "Lichter",
    "die Lampe": "Lampen",
    "die Beleuchtung": "Beleuchtungen",
    "der Ventilator": "Ventilatoren",
    "der Lüfter": "Lüfter",
    "der Schalter": "Schalter",
    "die Steckdose": "Steckdosen",
    "das Schloss": "Schlösser",
}
_SINGULAR = {phrase.split()[1]: phrase.split()[0] for phrase in _PLURALS}
_NUMBER = {form: plural for phrase, plural in _PLURALS.items() for form in (phrase.split()[1], plural)}
_CASES = {
    "accusative": {"der": "den", "die": "die", "das": "das"},
    "dative": {"der": "dem", "die": "der", "das": "dem"},
}
_CONTRACTED = {"vom": "von", "am": "an", "im": "in", "zum": "zu", "zur": "zu", "beim": "bei"}
_PREPOSITIONS = {*_CONTRACTED, *_CONTRACTED.values(), "auf", "aus", "mit"}
_PROPERTIES = {"geschwindigkeit", "helligkeit", "farbe", "farbtemperatur", "position", "lautstärke", "temperatur"}
_ASKING = re.compile(
    r"^(?:ist|sind|stehen|steht|gibt es|wie|was|wo|wann|welche[rsn]?|läuft|auf welche)\b", re.IGNORECASE
)
_ARTICLE = r"(?:der|die|das|dem|den|des)"
_ALL = r"(?:alle[rn]?|sämtliche|wie ?viele?|welche Anzahl(?: an| von)?|die (?:ganzen|kompletten|gesamten|sämtlichen))"


def german(names: Names) -> list[Rule]:
    """Slips of speech-to-text and units, then places, then number, then articles."""
    return [*_plain(names), *_places(names), *_number(), *_articles(names)]


def _plain(names: Names) -> list[Rule]:
    return [
        rule(r"\bausm\b", "aus"),
        rule(r"^(mach|setz|schreib|fahr)t\b", r"\1"),
        rule(r"(\d+) (Stunde|Minute|Sekunde)n?\b", r"\1 \2n"),
        rule(r"(\d+ (?:Stunden|Minuten)) (?=\d)", r"\1 und "),
        rule(r"(\d)\.5\b", r"\1,5"),
        rule(rf"\b(namens|genannt) {_ARTICLE} ", r"\1 "),
        rule(r"(\d) ?%", r"\1 Prozent"),
        rule(rf"\b({any_of(names.devices['todo'])})(?:s |s-|s| |-)?Liste\b", r"\1-Liste"),
        rule(rf"\b{_ARTICLE} ({any_of((*names.devices['person'], *names.devices['weather']))})\b", r"\1"),
        rule(rf"\b(von|an|auf|in) dem (?={_ARTICLE} )", r"\1 "),
        rule(r"^des Licht(?:e?s)?\b", "das Licht"),
        rule(r"\bzu den (Titel|Song|Track|Lied|Stück)\b", r"zum \1"),
        rule(r"\b(?:diesen|den) (Raum|Bereich)\b", r"im \1"),
        rule(r"\b(?:dieses|das) Zimmer\b", "im Zimmer"),
        rule(r"\bein(?:en)? (Titel|Song|Track)\b", r"einen \1"),
        rule(r"\bein(?:en)? (Lied|Stück)\b", r"ein \1"),
        rule(r"\b(zum|zu dem) (nächste|vorherige|letzte)[rsn]?\b", r"\1 \2n"),
        rule(
            r"(?<!zu )(?<!zum )(?<!dem )\b(?:(den) |das )?(nächste|vorherige|letzte)[rsn]? (Titel|Song|Track)\b",
            r"den \2n \3",
        ),
        rule(
            r"(?<!zu )(?<!zum )(?<!dem )\b(?:den |das )?(nächste|vorherige|letzte)[rsn]? (Lied|Stück)\b", r"das \1 \2"
        ),
    ]


def _places(names: Names) -> list[Rule]:
    """One preposition fits a room ("auf dem Balkon"); "an" and "aus" may also be what the light should be."""
    places = {name: names.inflected[name] for name in (*names.areas, *names.floors, *names.phrases["zone"])}
    before = rf"(?:(?:in|bei|von dem|von|{'|'.join(_CONTRACTED)}) |(?:an|auf) (?=d(?:er|ie|em) ))?(?:{_ARTICLE} )?"
    after = r"(?![ -]?(?:Timer|temperatur|heizung|thermostat|klima))"
    return [rule(rf"\b{before}({any_of(places)})s?(?: ?Geschoss)?\b{after}", lambda match: places[match[1]])]


def _number() -> list[Rule]:
    nouns = any_of(_NUMBER)
    some = r"(?:irgend\w+|einige[rsm]?|manche[rs]?|eine?[smnr]?)(?: (?:der|des|die|das))?"

    def verb(match: re.Match[str]) -> str:
        found = re.findall(rf"\b{nouns}\b", match.string)
        return "ist" if found and found[0] in _SINGULAR and _NUMBER[found[0]] != found[0] else "sind"

    return [
        rule(r"^was für (?:eine?s?|welche\w*)(?: der| des)?\b", "welche"),
        rule(rf"\bjede[rsn]?(?: der)?\b(?=.*\b{nouns}\b)", "alle"),
        rule(r"(?<!Helligkeit )(?<!Farbe )(?<!temperatur )(?<!von )(?<!Bei )\b(alle|sämtliche)[rn](?: der)?\b", r"\1"),
        rule(
            rf"^(?:ist|sind|stehen|gibt es) {some}\b(.*? )({nouns})\b",
            lambda m: f"sind irgendwelche{m[1]}{_NUMBER[m[2]]}",
        ),
        rule(rf"\b({_ALL})(?: der)?\b(.*? )({nouns})\b", lambda m: f"{m[1]}{m[2]}{_NUMBER[m[3]]}"),
        rule(rf"\bwelche[rsn]?(?: der)?\b(.*? )({nouns})\b", lambda m: f"welche{m[1]}{_NUMBER[m[2]]}"),
        rule(rf"^(?:ist|sind|stehen|gibt es)\b(?=.*\b{nouns}\b)", verb),
        rule(rf"^((?:{_ALL}|welche)\b.*\b{nouns}\b.*?) ist\b", r"\1 sind"),
    ]


def _articles(names: Names) -> list[Rule]:
    named = [name for group in names.devices.values() for name in group] + list(names.phrases["timer_name"])
    gender = {name: names.inflected[name].split()[0] for name in named if names.inflected[name] != name}
    gender |= dict.fromkeys(_NUMBER.values(), "die") | _SINGULAR
    scenes = any_of((*names.devices["scene"], *names.devices["script"]))

    def decline(match: re.Match[str]) -> str:
        before, article, noun = match.groups()
        word = (before or "").lower()
        if article is None and word not in _CONTRACTED:
            return match[0]
        if word in ("szene", "skript"):
            return f"{before} {noun}"
        if word in _PROPERTIES:
            return f"{before} {_genitive(gender[noun], noun)}"
        if word in _PREPOSITIONS:
            return _after_preposition(before, gender[noun], noun)
        right = gender[noun] if _ASKING.match(match.string) else _CASES["accusative"][gender[noun]]
        return f"{before + ' ' if before else ''}{right} {noun}"

    return [
        rule(rf"\b(?:{_ARTICLE} )?({scenes}) (?:die )?Szene\b", r"die \1 Szene"),
        rule(rf"\b(?:{_ARTICLE} )?({scenes}) (?:das )?Skript\b", r"das \1 Skript"),
        rule(rf"(?:\b(\w+) )??(?:\b({_ARTICLE}) )?\b({any_of(gender)})\b(?! (?:Szene|Skript|Timer))", decline),
    ]


def _genitive(gender: str, noun: str) -> str:
    """The grammar's own nouns have a genitive; the house's names are never inflected."""
    if gender == "die":
        return f"der {noun}"
    return f"des {noun}s" if noun in _SINGULAR else f"vom {noun}"


def _after_preposition(preposition: str, gender: str, noun: str) -> str:
    if preposition.lower() in _CONTRACTED and gender != "die":
        return f"{preposition} {noun}"
    return f"{_CONTRACTED.get(preposition.lower(), preposition)} {_CASES['dative'][gender]} {noun}"
