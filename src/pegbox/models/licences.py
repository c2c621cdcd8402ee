"""The licence of a model as the model itself states it, and where that was read. What is not stated is not guessed.

It is read from, in this order: the table of models that packages carry (packages.py); the receipt of a run, which tells
the licence of the model that it began with; `general.license` of a GGUF file, an SPDX expression (GGUF specification);
the metadata block of the README.md beside the weights (the hub's model cards: `license`, and where that is "other"
`license_name` and `license_link`). Identifiers are written in small letters, as the hub has them; SPDX takes no notice of
case.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pegbox.errors import RecipeError
from pegbox.models import gguf, packages
from pegbox.models.sources import CARD, GGUF_FILE, RECEIPT, RUN, ModelFolder, run_of

METADATA = re.compile(r"\A\s*---[ \t]*\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)
MOST = 1 << 20  # characters of a README.md that are looked at
LONGEST = 200  # characters of a name or a link that are taken for one


def licence_of(model: ModelFolder) -> dict[str, str] | None:
    """`{"id": "apache-2.0", "source": }`, with `name` and `link` where they are stated; None where no licence is."""
    if str(packages.CARRIED.get(model.name)) == model.source:
        return {"id": packages.CARRIED[model.name].licence.lower(), "source": model.source}
    if model.source == RUN and (run := run_of(model.path)):
        known: dict[str, str] | None = json.loads((run / RECEIPT).read_text(encoding="utf-8"))["model"].get("licence")
        return known
    if model.source == GGUF_FILE:
        try:
            keys = gguf.general_keys(Path(os.path.expanduser(model.name)))
        except RecipeError:  # converted before, and today the package that reads the file is not there
            return None
        named = {name: keys.get(f"general.{key}") for name, key in _keys("license", ".").items()}
        return _stated(named, "general.license of the GGUF file")
    block = _card_metadata(model.path / CARD)
    return _stated({name: block.get(key) for name, key in _keys("license", "_").items()}, f"{CARD} of the model")


def _keys(licence: str, joint: str) -> dict[str, str]:
    return {"id": licence, "name": f"{licence}{joint}name", "link": f"{licence}{joint}link"}


def _stated(values: Mapping[str, Any], source: str) -> dict[str, str] | None:
    told = {name: line for name, value in values.items() if (line := _line(value)) is not None}
    if told.get("id", "unknown").lower() == "unknown":
        return None
    return told | {"id": told["id"].lower(), "source": source}


def _line(value: Any) -> str | None:
    """One line of text, of several licences all; None for anything else that a stranger may have written."""
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        value = ", ".join(value)
    if not isinstance(value, str) or not value.strip() or len(value) > LONGEST:
        return None
    return " ".join(value.split())


def _card_metadata(readme: Path) -> dict[Any, Any]:
    """The metadata block of a model card; empty where there is no file, no block, or none that can be read."""
    try:
        with readme.open(encoding="utf-8-sig") as file:
            block = METADATA.match(file.read(MOST))
        found = yaml.safe_load(block[1]) if block else None
    except (OSError, ValueError, OverflowError, RecursionError, yaml.YAMLError):  # not UTF-8; a thirteenth month
        return {}
    return found if isinstance(found, dict) else {}
