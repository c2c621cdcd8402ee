"""Attention with a shared part is attention over each row's whole past."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from pegbox.kernels import shared_attention as kernel
from pegbox.kernels.shared_attention import Shared, attention_that_shares, joined_attention, shared_attention
from tiny_models import tiny

ROWS, HEADS, WIDTH, SHARED = 5, 6, 8, 11


def drawn(tokens: int, columns: int, kinds: int, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """Rows of queries behind columns of which some are padding on the left, and what they share."""
    make = torch.Generator().manual_seed(tokens * 100 + columns * 10 + kinds)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=make, dtype=dtype)

    padding = torch.arange(ROWS)[:, None, None, None] % columns
    order = torch.arange(columns)
    causal = order[None] <= (columns - tokens + torch.arange(tokens))[:, None]
    return {
        "query": draw(ROWS, HEADS, tokens, WIDTH),
        "key": draw(ROWS, kinds, columns + 3, WIDTH)[:, :, 2:-1],  # a part of a buffer, as the cache gives it
        "value": draw(ROWS, kinds, columns + 3, WIDTH)[:, :, 2:-1],
        "shared": (draw(1, kinds, SHARED, WIDTH), draw(1, kinds, SHARED, WIDTH)),
        "mask": causal & (order >= padding),
    }


def slow(given: dict[str, Any], scale: float | None) -> torch.Tensor:
    """The definition: one query of one head of one row at a time, over a list of keys and values."""
    query, mask = given["query"], given["mask"]
    groups = HEADS // given["key"].shape[1]
    out = query.new_zeros(ROWS, query.shape[2], HEADS, WIDTH)
    for row in range(ROWS):
        for head in range(HEADS):
            keys, values = (
                torch.cat([first[0, head // groups], own[row, head // groups]])
                for first, own in zip(given["shared"], (given["key"], given["value"]), strict=True)
            )
            for t in range(query.shape[2]):
                seen = torch.cat([torch.ones(SHARED, dtype=torch.bool), mask[row, 0, t]])
                scores = keys[seen] @ query[row, head, t] * (WIDTH**-0.5 if scale is None else scale)
                out[row, t, head] = scores.softmax(0) @ values[seen]
    return out


@pytest.mark.parametrize("kinds", [1, 2, 6])
@pytest.mark.parametrize(("tokens", "columns"), [(1, 1), (1, 7), (3, 3), (3, 7)])
@pytest.mark.parametrize("scale", [None, 0.7])
def test_it_is_attention_over_the_shared_part_and_the_rows_own(
    kinds: int, tokens: int, columns: int, scale: float | None
) -> None:
    given = drawn(tokens, columns, kinds)
    wanted = slow(given, scale)
    assert (shared_attention(**given, scale=scale) - wanted).abs().max() < 1e-12
    assert (joined_attention(**given, scale=scale) - wanted).abs().max() < 1e-12


@pytest.mark.parametrize(("tokens", "columns"), [(1, 4), (4, 4)])
def test_without_a_mask_rows_see_what_came_before(tokens: int, columns: int) -> None:
    given = drawn(tokens, columns, 2)
    given["mask"] = torch.ones(tokens, columns, dtype=torch.bool).tril(columns - tokens).expand(ROWS, 1, -1, -1)
    whole = shared_attention(**given)
    assert (shared_attention(**given | {"mask": None}) - whole).abs().max() < 1e-12


def test_the_check_sees_two_softmaxes_and_a_mask_that_is_shifted() -> None:
    given = drawn(1, 7, 2)
    wanted = slow(given, None)
    apart = [
        scaled_dot_product_attention(
            given["query"], *(part.repeat_interleave(3, 1).expand(ROWS, -1, -1, -1) for part in pair), attn_mask=mask
        )
        for pair, mask in ((given["shared"], None), ((given["key"], given["value"]), given["mask"]))
    ]
    assert ((apart[0] + apart[1]).transpose(1, 2) / 2 - wanted).abs().max() > 0.01
    assert (shared_attention(**given | {"mask": given["mask"].roll(1, -1)}) - wanted).abs().max() > 0.01


def test_what_changes_the_scores_is_refused() -> None:
    given = drawn(1, 4, 2)
    mask, shared = given.pop("mask"), Shared([given.pop("shared")])
    module: Any = torch.nn.Module()
    module.layer_idx = 0
    out, _ = kernel._attention(module, *given.values(), mask, shared=shared, softcap=None, use_cache=True)
    assert out.shape == (ROWS, 1, HEADS, WIDTH)
    for odd in ({"softcap": 30.0}, {"s_aux": torch.zeros(HEADS)}, {"sliding_window": 5}):
        with pytest.raises(ValueError, match=next(iter(odd))):
            kernel._attention(module, *given.values(), mask, shared=shared, **odd)
    with pytest.raises(ValueError, match="mask of numbers"):
        kernel._attention(module, *given.values(), mask.double(), shared=shared)


def test_the_models_attention_is_what_it_was_afterwards() -> None:
    model, ids = tiny("llama"), torch.tensor([[3, 4, 5]])
    before, logits = model.config._attn_implementation, model(ids).logits
    with pytest.raises(KeyError), attention_that_shares(model):
        assert torch.equal(model(ids).logits, logits), "with nothing shared it is Transformers' sdpa"
        raise KeyError
    assert model.config._attn_implementation == before
