"""What differs between a run as it began and as it would go on now. Nothing that differs is passed over in silence.

A difference has a key, by which it can be accepted: a key of the recipe (`train.learning_rate`), `data` (the rows), `code`
(Python of the user's own), `model` (the untouched model's files) or `template` (how a conversation becomes tokens).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pegbox.errors import RecipeError

Difference = tuple[str, str]  # its key, and what differs
FILES = ("data", "code", "model")  # of an origin: {name: SHA-256}


def origin_of(receipt: Mapping[str, Any]) -> dict[str, Any]:
    """What a run hangs on, of all that its receipt holds."""
    model = receipt["model"]
    return {name: receipt[name] for name in ("recipe", "data", "code")} | {
        "model": model["files"],
        "template": model["template"],
    }


def differences(known: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """What differs between two origins: `{"recipe": , "data": , "code": , "model": , "template": }`."""
    found = list(_recipe_differences(known["recipe"], now["recipe"]))
    for kind in FILES:
        for name in sorted(known[kind].keys() | now[kind].keys()):
            before, after = known[kind].get(name), now[kind].get(name)
            if before != after:
                found.append(
                    (kind, f"{name} {'is new' if before is None else 'is gone' if after is None else 'has changed'}")
                )
    if known["template"] != now["template"]:
        found.append(("template", "the chat template has changed"))
    return found


def _recipe_differences(known: Any, now: Any, key: str = "") -> Iterator[Difference]:
    if isinstance(known, Mapping) and isinstance(now, Mapping):
        for name in dict.fromkeys((*known, *now)):
            yield from _recipe_differences(known.get(name), now.get(name), f"{key}.{name}" if key else name)
    elif known != now:
        yield key, f"was {known}, is now {now}"


def refuse_unaccepted(found: Sequence[Difference], accepted: Sequence[str]) -> None:
    """Raise RecipeError where something differs that is not accepted, or something is accepted that does not differ.

    A key accepts all that stands under it: `train` accepts `train.learning_rate`.
    """
    for key in accepted:
        if not any(_covers(key, one) for one, _ in found):
            there = ", ".join(dict.fromkeys(one for one, _ in found)) or "nothing"
            raise RecipeError("nothing of that name differs", where=f"--accept-change {key}", cure=f"differs: {there}")
    open_ones = [(key, what) for key, what in found if not any(_covers(one, key) for one in accepted)]
    if open_ones:
        listed = "".join(f"\n  {key}: {what}" for key, what in open_ones)
        words = " ".join(f"--accept-change {key}" for key in dict.fromkeys(key for key, _ in open_ones))
        cure = f"put it back as it was, start a new run, or go on with {words}"
        raise RecipeError(f"the run would not go on as it began:{listed}", cure=cure)


def _covers(accepted: str, key: str) -> bool:
    return key == accepted or key.startswith(f"{accepted}.")
