"""Whether a model's short rows may be computed as one packed row: found out by trying, once, before training."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from pegbox.data.records import Example
from pegbox.kernels.attention import IMPLEMENTATION, register
from pegbox.models.batch import Batch, attends_only, hidden_states, learnt_logits, pack, pad
from pegbox.models.heads import output_layer

# how far packed logits may be from those of rows alone, as a share of the largest: the order of summation
PROBE_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
PROBE_TOKENS = 32


@torch.no_grad()
def enable_packing(model: PreTrainedModel, examples: Sequence[Example]) -> bool:
    """Switch the model to pegbox's packed attention where that is the same maths; else leave it as it was.

    It is where causal attention alone mixes positions and that attention is all that Transformers' sdpa and flash
    attention compute from their arguments (no soft cap, sink, bias or chunk). Then short rows made of the examples' own
    tokens must get, in a pack, the logits (under a new head: the hidden states) that each gets alone from the model as it was.
    """
    assert not model.training
    before = model.config._attn_implementation
    able = before == "sdpa" and model._supports_attention_backend and model._supports_flash_attn
    if not able or model.config.is_encoder_decoder or not attends_only(model):
        return False
    register()
    probes, same = _probes(model, examples), False
    try:
        # a forward or an attention that knows no pack, or refuses it, says so by one of these
        with contextlib.suppress(TypeError, ValueError, RuntimeError):
            alone = torch.cat([_computed(model, pad([probe], pad_id=0)) for probe in probes])
            model.set_attn_implementation(IMPLEMENTATION)
            same = all(_packs_alike(model, probes, alone, share_prefix=share) for share in (False, True))
    finally:
        if not same:
            model.set_attn_implementation(before)
    return same


def _probes(model: PreTrainedModel, examples: Sequence[Example]) -> list[Example]:
    """Four rows of unequal length that begin alike, none longer than the longest example.

    The first is longer than the model's sliding window where an example is.
    """
    window = getattr(model.config.get_text_config(), "sliding_window", None) or 0
    longest = max((example.input_ids for example in examples), key=len)
    ids = longest[: PROBE_TOKENS + (window if len(longest) > window else 0)]
    half = len(ids) // 2
    rows = [ids, *(ids[:half] + ids[-count:] for count in (1, len(ids) // 4 + 1, half))]
    return [Example("probe", row, (1.0,) * len(row)) for row in rows]


def _computed(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """What the model computes at the learnt tokens' places: logits [N, V], or hidden states [N, D] under a new head."""
    batch = batch.to(model.device)
    return learnt_logits(model, batch) if output_layer(model) is not None else hidden_states(model, batch)[batch.places]


def _packs_alike(model: PreTrainedModel, probes: list[Example], alone: torch.Tensor, *, share_prefix: bool) -> bool:
    packed = _computed(model, pack(probes, share_prefix=share_prefix))
    tolerance = PROBE_TOLERANCE.get(alone.dtype, 3e-2) * alone.abs().max()
    return packed.shape == alone.shape and bool((packed - alone).abs().max() <= tolerance)
