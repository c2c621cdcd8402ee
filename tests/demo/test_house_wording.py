"""What the grammar allows and what people say: each mended sentence against the one that a speaker would use."""

from __future__ import annotations

import pytest

from pegbox.demo.names import names_for
from pegbox.demo.wording import Wording


@pytest.mark.parametrize(
    ("spoken", "allowed", "said"),
    [
        ("en", "is all the light on", "are all the lights on"),
        ("en", "set a 2-hours timer", "set a 2-hour timer"),
        ("en", "timer for 2-hour 5 second", "timer for 2 hours and 5 seconds"),
        ("en", "turn the light on at the library", "turn the light on in the library"),
        ("en", "turn on the kitchen light", "turn on the kitchen light"),
        ("en", "is there the front door locked", "is the front door locked"),
        ("de", "schalte des Stehlampe an Küche aus", "schalte die Stehlampe an in der Küche aus"),
        ("de", "das Licht in der Bad", "das Licht im Bad"),
        ("de", "ist den Tresor verriegelt", "ist der Tresor verriegelt"),
        ("de", "Timer für 5 Minute 3 Sekunde", "Timer für 5 Minuten und 3 Sekunden"),
        ("fr", "allume la lumière", "allume la lumière"),
    ],
)
def test_wording_mends_agreement_articles_and_prepositions(spoken: str, allowed: str, said: str) -> None:
    assert Wording(spoken, names_for(spoken)).mend(allowed) == said
