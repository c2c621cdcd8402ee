"""How many tokens a model's table of positions holds, by its config: an encoder may have more of them than its decoder (LED)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ONE_TABLE = "max_position_embeddings"


def readable(config: Any) -> int | None:
    """The most tokens that are read at once; None where there is no limit."""
    return _first(config, ("max_encoder_position_embeddings", ONE_TABLE))


def writable(config: Any) -> int | None:
    """The most tokens that the part which writes is given; None where there is no limit."""
    return _first(config, ("max_decoder_position_embeddings", ONE_TABLE))


def _first(config: Any, names: Sequence[str]) -> int | None:
    text = config.get_text_config()
    return next((int(found) for name in names if (found := getattr(text, name, None))), None)
