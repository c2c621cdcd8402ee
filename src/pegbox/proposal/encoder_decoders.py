"""Is a model an encoder-decoder? Told by its folder's config.json, of a name on the hub by the name: nothing is fetched."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

NAMES = (
    *("t5", "mt5", "byt5", "umt5", "codet5", "t5gemma", "bart", "mbart", "distilbart", "plbart"),
    *("opus-mt", "marian", "nllb", "m2m100", "pegasus", "led", "prophetnet", "blenderbot"),
)
NAMED = re.compile(rf"(?:^|[-_/])(?:{'|'.join(NAMES)})(?:[-_.]|v?\d|$)", re.IGNORECASE)


def is_encoder_decoder(model: str) -> bool:
    """Whether the folder or the name is of an encoder-decoder; False where that cannot be told."""
    config = Path(os.path.expanduser(model)) / "config.json"
    if not config.is_file():
        return NAMED.search(model) is not None
    try:
        told = json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return False
    return isinstance(told, dict) and told.get("is_encoder_decoder") is True
