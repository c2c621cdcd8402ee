"""Whether what all rows begin with may be handed to a model's attention aside: found out by trying, once, on two of the rows.

It saves a copy of those keys and values in every row, and reading them once for every row. Where the model does not take it
(its attention is not Transformers' sdpa, or forgets, or adds something to the scores) each row holds a copy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel

from pegbox.kernels.attention import IMPLEMENTATION
from pegbox.kernels.shared_attention import attention_that_shares
from pegbox.models.decoding import NOTHING, Known, Row, Rows
from pegbox.models.packing import PROBE_TOLERANCE
from pegbox.models.waiting import Waiting

TOKENS, ROWS = 128, 8  # fewer shared tokens, or fewer rows, are read as fast from copies


@contextlib.contextmanager
def known_aside(model: PreTrainedModel, waiting: Waiting) -> Iterator[Known]:
    """What is known of the tokens that all rows begin with, while the model's attention takes it; else nothing."""
    common = waiting.common()
    able = model.config._attn_implementation in ("sdpa", IMPLEMENTATION) and model._supports_attention_backend
    if not able or common.length < TOKENS or len(waiting) < ROWS:
        yield NOTHING
        return
    probes = [waiting.rows[0].ids, waiting.rows[-1].ids]
    copied = _logits(model, probes, common, NOTHING)
    with attention_that_shares(model):
        same = _alike(model, probes, common, copied)
        if same:
            yield common
    if not same:
        yield NOTHING


def _alike(model: PreTrainedModel, ids: Sequence[list[int]], common: Known, copied: torch.Tensor) -> bool:
    # a forward or an attention that knows nothing of this, or refuses it, says so by one of these
    with contextlib.suppress(TypeError, ValueError):
        aside = _logits(model, ids, NOTHING, common)
        tolerance = PROBE_TOLERANCE.get(aside.dtype, 3e-2) * copied.abs().max()
        return bool((aside - copied).abs().max() <= tolerance)
    return False


def _logits(model: PreTrainedModel, ids: Sequence[list[int]], known: Known, aside: Known) -> torch.Tensor:
    """The logits [4, V] of two rows when they join, and behind one more token."""
    rows = Rows(model, len(ids), aside)
    joined = rows.join([Row(list(row), known=known) for row in ids])
    for row in rows.live:
        row.ids.append(row.ids[0])
    return torch.cat([joined, rows.step()])
