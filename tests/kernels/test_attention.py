"""Packed attention beside its plain form: dense attention under the block mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from pegbox.kernels import attention
from pegbox.kernels.attention import Pack, block_mask, packed_attention

LENGTHS = [[1], [4, 7, 1, 6], [3, 3], [9, 2, 2, 2, 2]]


def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pack: Pack, window: int | None) -> torch.Tensor:
    """Dense attention [1, T, H, D]; a window counts positions, which restart behind the prefix."""
    groups = q.shape[1] // k.shape[1]
    k, v = (torch.cat([t[:, i // groups, None] for i in range(q.shape[1])], dim=1) for t in (k, v))
    positions = torch.tensor(
        [*range(pack.prefix), *(pack.prefix + t for length in pack.lengths for t in range(int(length)))]
    )
    seen = block_mask(pack)
    if window is not None:
        seen = seen & (positions[:, None] - positions[None] < window)
    return scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=0.3).transpose(1, 2)


def drawn(pack: Pack, heads: int, key_heads: int) -> list[torch.Tensor]:
    tokens = pack.prefix + int(pack.lengths.sum())
    generator = torch.Generator().manual_seed(tokens)
    return [
        torch.randn(1, h, tokens, 8, dtype=torch.float64, generator=generator).requires_grad_()
        for h in (heads, key_heads, key_heads)
    ]


def check_parity(lengths: list[int], prefix: int, window: int | None, key_heads: int = 2) -> None:
    """Outputs and gradients of the fast form are those of the plain form, in float64."""
    pack = Pack.of(prefix, lengths)
    inputs = drawn(pack, 4, key_heads)
    outs, grads = [], []
    for form in (
        lambda q, k, v: packed_attention(q, k, v, pack, scale=0.3, window=window),
        lambda q, k, v: plain(q, k, v, pack, window),
    ):
        out = form(*inputs)
        probe = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        outs.append(out)
        grads.append(torch.autograd.grad((out * probe).sum(), inputs))
    torch.testing.assert_close(*outs, rtol=0, atol=1e-12)
    for fast, slow in zip(*grads, strict=True):
        torch.testing.assert_close(fast, slow, rtol=0, atol=1e-11)


@pytest.mark.parametrize("window", [None, 1, 3, 100])
@pytest.mark.parametrize("prefix", [0, 1, 6])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_packed_attention_is_dense_attention_under_the_block_mask(
    lengths: list[int], prefix: int, window: int | None
) -> None:
    check_parity(lengths, prefix, window)


@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_grouped_heads_read_the_keys_of_their_group(key_heads: int) -> None:
    check_parity([4, 7, 1], prefix=3, window=None, key_heads=key_heads)


def test_the_check_sees_a_window_that_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    causal = attention._causal
    monkeypatch.setattr(attention, "_causal", lambda query, key, window: causal(query, key, None))
    with pytest.raises(AssertionError):
        check_parity([4, 7, 1], prefix=3, window=3)


def test_the_check_sees_a_suffix_that_looks_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_causal", lambda query, key, window: key[None] <= query[:, None] + 1)
    with pytest.raises(AssertionError):
        check_parity([4, 7, 1], prefix=3, window=None)


def test_the_check_sees_examples_that_see_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaking(q: Any, k: Any, v: Any, pack: Pack, *, scale: float, window: int | None) -> torch.Tensor:
        k, v = (t.repeat_interleave(2, dim=1) for t in (k, v))
        return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale).transpose(1, 2)

    monkeypatch.setitem(globals(), "packed_attention", leaking)
    with pytest.raises(AssertionError):
        check_parity([4, 7, 1], prefix=0, window=None)


def test_dropout_reaches_attention() -> None:
    pack = Pack.of(3, [4, 5])
    q, k, v = drawn(pack, 4, 2)
    noisy = packed_attention(q, k, v, pack, dropout=0.5)
    assert not torch.equal(noisy, packed_attention(q, k, v, pack, dropout=0.5))
    assert not torch.equal(noisy[:, :3], packed_attention(q, k, v, pack)[:, :3])


@given(st.integers(0, 5), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_the_layout_finds_every_token_of_the_pack_once(prefix: int, lengths: list[int]) -> None:
    pack = Pack.of(prefix, lengths)
    places = torch.arange(prefix, prefix + sum(lengths))
    assert torch.equal(pack.rows.flatten()[pack.slots], places)
    for index, (row, own) in enumerate(zip(pack.rows, places.split(lengths), strict=True)):
        assert set(row.tolist()) == set(own.tolist()), f"the padding of row {index} points at another example"


class Layer(torch.nn.Module):
    """What Transformers hands on as the calling layer."""

    is_causal = True
    num_key_value_groups = 2


def test_without_a_pack_it_is_transformers_sdpa() -> None:
    q, k, v = drawn(Pack.of(0, [6]), 4, 2)
    mask = torch.ones(6, 6, dtype=torch.bool).tril()[None, None]
    for given_mask in (None, mask):
        own, _ = attention._attention(Layer(), q, k, v, given_mask, scaling=0.3, sliding_window=4)
        theirs, _ = attention.sdpa_attention_forward(Layer(), q, k, v, given_mask, scaling=0.3)
        assert torch.equal(own, theirs)


UNKNOWN = [
    {"softcap": 50.0},
    {"s_aux": torch.zeros(4)},
    {"position_bias": torch.zeros(1, 4, 6, 6)},
    {"is_causal": False},
    {"something_new": 1},
]


def check_refused(unknown: dict[str, Any]) -> None:
    """A pack raises ValueError where the model asks its attention for something that packed attention lacks."""
    pack = Pack.of(0, [2, 4])
    try:
        attention._attention(Layer(), *drawn(pack, 4, 2), None, pack=pack, **unknown)
    except ValueError as error:
        assert next(iter(unknown)) in str(error)
        return
    raise AssertionError(f"{unknown} was passed over")


@pytest.mark.parametrize("unknown", UNKNOWN, ids=lambda unknown: next(iter(unknown)))
def test_a_pack_refuses_what_it_does_not_compute(unknown: dict[str, Any]) -> None:
    check_refused(unknown)


def test_a_pack_takes_what_does_not_change_the_maths() -> None:
    pack = Pack.of(0, [2, 4])
    inert = {"position_ids": torch.arange(6), "use_cache": False, "softcap": None, "is_causal": True}
    inputs = drawn(pack, 4, 2)
    out, _ = attention._attention(Layer(), *inputs, None, pack=pack, scaling=0.3, **inert)
    torch.testing.assert_close(out, plain(*inputs, pack, None), rtol=0, atol=1e-12)


def test_the_check_sees_a_soft_cap_that_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "INERT", attention.INERT | {"softcap"})
    with pytest.raises(AssertionError):
        check_refused({"softcap": 50.0})


def test_an_encoder_layer_is_refused() -> None:
    class Bidirectional(Layer):
        is_causal = False

    pack = Pack.of(0, [2, 4])
    with pytest.raises(ValueError, match="is_causal"):
        attention._attention(Bidirectional(), *drawn(pack, 4, 2), None, pack=pack)
