"""A row as any library can be asked it, so that two models of one task can be held against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Asked:
    """One row. `places`: where outputs over tokens are compared; none where the outputs are of the row as a whole.

    `prompt`: what an answer goes on from. `given`: what the decoder of an encoder-decoder is given; `places` are of it
    then, and the `prompt` begins it.
    """

    input_ids: Sequence[int]
    token_type_ids: Sequence[int] = ()
    places: Sequence[int] = ()
    prompt: Sequence[int] = ()
    given: Sequence[int] = ()
