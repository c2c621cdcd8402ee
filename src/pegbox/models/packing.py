"""Whether a model's short rows may be computed as one packed row: found out by trying, once, before training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel

from pegbox.data.records import Example
from pegbox.data.sizes import sizes_of
from pegbox.kernels.attention import IMPLEMENTATION, register
from pegbox.models.batch import Batch, attends_only, pack, pad
from pegbox.models.heads import is_bare, output_layer
from pegbox.models.load import has_dropout
from pegbox.models.outputs import hidden_states, learnt_logits, whole_text_logits

# how far packed logits may be from those of rows alone, as a share of the largest: the order of summation
PROBE_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
PROBE_TOKENS = 32


@torch.no_grad()
def enable_packing(model: PreTrainedModel, examples: Sequence[Example]) -> bool:
    """Switch the model to pegbox's packed attention where that is the same maths; else leave it as it was.

    It is where attention alone mixes positions and that attention is all that Transformers' sdpa and flash attention compute
    from their arguments (no soft cap, sink, bias or chunk). Then short rows made of the examples' own tokens must get, in a
    pack, the outputs that each gets alone from the model as it was.
    """
    assert not model.training
    before = model.config._attn_implementation
    able = before == "sdpa" and model._supports_attention_backend and model._supports_flash_attn
    if not able or model.config.is_encoder_decoder or not attends_only(model):
        return False
    register()
    probes, same = _probes(model, examples), False
    try:
        with _refusals():
            alone = _alone(model, probes)
            model.set_attn_implementation(IMPLEMENTATION)
            same = _packs_alike(model, probes, alone, share_prefix=False)
    finally:
        if not same:
            model.set_attn_implementation(before)
    return same


@torch.no_grad()
def shares_prefixes(model: PreTrainedModel, examples: Sequence[Example]) -> bool:
    """Whether what several rows of a pack begin with may be computed once: in a causal model whose training draws no noise.

    Asked of a model that packs; its outputs with and without sharing must be the same.
    """
    probes = _probes(model, examples)
    if has_dropout(model) or not pack(probes, share_prefix=True).shares:
        return False
    with _refusals():
        return _packs_alike(model, probes, _alone(model, probes), share_prefix=True)
    return False


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Where a forward or an attention that knows no pack, or refuses it, says so by one of these."""
    with contextlib.suppress(TypeError, ValueError, RuntimeError, IndexError):
        yield


def _probes(model: PreTrainedModel, examples: Sequence[Example]) -> list[Example]:
    """Four rows of unequal length that begin alike, none longer than the longest example.

    The first is longer than the model's sliding window where an example is.
    """
    window = getattr(model.config.get_text_config(), "sliding_window", None) or 0
    longest = examples[int(sizes_of(examples).tokens.argmax())].input_ids
    ids = longest[: PROBE_TOKENS + (window if len(longest) > window else 0)]
    half = len(ids) // 2
    rows = [ids, *(ids[:half] + ids[-count:] for count in (1, len(ids) // 4 + 1, half))]
    return [Example("probe", row, (1.0,) * len(row)) for row in rows]


def _alone(model: PreTrainedModel, probes: Sequence[Example]) -> torch.Tensor:
    """What each probe gets by itself."""
    return torch.cat([_computed(model, pad([probe], pad_id=0)) for probe in probes])


def _computed(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """What is learnt of the model: logits [N, V] at the places of learnt tokens, outputs [B, K] of rows, or hidden states."""
    batch = batch.to(model.device)
    if is_bare(model):
        return hidden_states(model, batch)[batch.places]
    if output_layer(model) is None and type(model).__name__.endswith("ForSequenceClassification"):
        return whole_text_logits(model, batch)
    return learnt_logits(model, batch)


def _packs_alike(model: PreTrainedModel, probes: list[Example], alone: torch.Tensor, *, share_prefix: bool) -> bool:
    packed = _computed(model, pack(probes, share_prefix=share_prefix))
    tolerance = PROBE_TOLERANCE.get(alone.dtype, 3e-2) * alone.abs().max()
    return packed.shape == alone.shape and bool((packed - alone).abs().max() <= tolerance)
