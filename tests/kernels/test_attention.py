"""Packed attention beside its plain form: dense attention under the block mask."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from pegbox.kernels import attention, flash
from pegbox.kernels.attention import packed_attention
from pegbox.kernels.pack import Pack, Run, Shared, block_mask

FLAT = {
    "one token": Pack((Run(0, 1, 1),)),
    "ragged": Pack((Run(0, 1, 4), Run(4, 1, 7), Run(11, 2, 1), Run(13, 1, 6))),
    "alike": Pack((Run(0, 3, 5),)),
}
TREES = {
    "one prefix": Pack((Run(0, 1, 6), Run(6, 1, 9), Run(15, 4, 2)), (Shared(0, 6, 23),)),
    "a prefix of one token": Pack((Run(0, 1, 1), Run(1, 2, 3)), (Shared(0, 1, 7),)),
    "two trees and a row": Pack(
        (Run(0, 1, 3), Run(3, 1, 2), Run(5, 2, 4), Run(13, 1, 5), Run(18, 3, 1)), (Shared(3, 5, 13), Shared(13, 18, 21))
    ),
    "branches in branches": Pack(
        (Run(0, 1, 3), Run(3, 1, 2), Run(5, 1, 4), Run(9, 2, 3), Run(15, 1, 2), Run(17, 2, 1)),
        (Shared(0, 3, 19), Shared(5, 9, 15), Shared(15, 17, 19)),
    ),
}
PACKS = FLAT | TREES


def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Dense attention [1, T, H, D]."""
    groups = q.shape[1] // k.shape[1]
    k, v = (torch.cat([t[:, i // groups, None] for i in range(q.shape[1])], dim=1) for t in (k, v))
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3).transpose(1, 2)


def drawn(pack: Pack, heads: int = 4, key_heads: int = 2) -> list[torch.Tensor]:
    """Queries, keys and values as a model lays them out: [1, H, T, D] over the memory of [1, T, H, D]."""
    generator = torch.Generator().manual_seed(pack.tokens)
    return [
        torch.randn(1, pack.tokens, h, 8, dtype=torch.float64, generator=generator).transpose(1, 2).requires_grad_()
        for h in (heads, key_heads, key_heads)
    ]


def check_parity(pack: Pack, *, key_heads: int = 2, causal: bool = True, **asked: Any) -> None:
    """Outputs and gradients of the fast form are those of the plain form, in float64."""
    inputs = drawn(pack, 4, key_heads)
    mask = block_mask(pack, asked.get("window"), causal=causal)
    outs, grads = [], []
    for form in (
        lambda q, k, v: packed_attention(q, k, v, pack, scale=0.3, causal=causal, **asked),
        lambda q, k, v: plain(q, k, v, mask),
    ):
        out = form(*inputs)
        probe = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        outs.append(out)
        grads.append(torch.autograd.grad((out * probe).sum(), inputs))
    torch.testing.assert_close(*outs, rtol=0, atol=1e-12)
    for fast, slow in zip(*grads, strict=True):
        torch.testing.assert_close(fast, slow, rtol=0, atol=1e-11)


def segments(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *given: Any, scale: float
) -> Iterator[tuple[slice, slice, torch.Tensor, torch.Tensor]]:
    """Of each segment that a GPU is asked for: its queries, its keys, keys as each head reads them, and the scores [H, S, S']."""
    from_q, from_k, most_q, most_k, dropout, causal = given
    assert dropout == 0 and from_q.dtype is from_k.dtype is torch.int32
    assert (from_q.diff().max(), from_k.diff().max()) == (most_q, most_k)
    for mine, seen in zip(pairwise(from_q.tolist()), pairwise(from_k.tolist()), strict=True):
        keys = k[slice(*seen)].repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        scores = scale * torch.einsum("qhd,khd->hqk", q[slice(*mine)], keys)
        if causal:
            scores += torch.full_like(scores, -torch.inf).triu(1)
        yield slice(*mine), slice(*seen), keys, scores


def as_a_gpu_does(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *given: Any, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """`_flash_attention_forward` on states [T, H, D] in plain operations: its output and logarithms [H, T]."""
    *given, debug = given
    assert not debug
    out, lse = torch.empty_like(q), q.new_empty(q.shape[1], len(q))
    for mine, seen, _, scores in segments(q, k, v, *given, scale=scale):
        values = v[seen].repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        out[mine] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), values)
        lse[:, mine] = scores.logsumexp(-1)
    return out, lse


def back_as_a_gpu_does(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    *given: Any,
    scale: float,
) -> tuple[torch.Tensor, ...]:
    """`_flash_attention_backward` in plain operations: from the output and the logarithms that it is handed."""
    *given, state, unused = given
    assert state.dtype is torch.uint64 and not len(unused)
    d_q, d_k, d_v = map(torch.empty_like, (q, k, v))
    inside = (grad * out).sum(-1).t()
    for mine, seen, keys, scores in segments(q, k, v, *given, scale=scale):
        values = v[seen].repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        shares = (scores - lse[:, mine, None]).exp()
        d_scores = shares * (torch.einsum("qhd,khd->hqk", grad[mine], values) - inside[:, mine, None])
        d_q[mine] = scale * torch.einsum("hqk,khd->qhd", d_scores, keys)
        for total, found in (
            (d_k, scale * torch.einsum("hqk,qhd->khd", d_scores, q[mine])),
            (d_v, torch.einsum("hqk,qhd->khd", shares, grad[mine])),
        ):
            total[seen] = found.unflatten(1, (k.shape[1], -1)).sum(2)
    return d_q, d_k, d_v


def take_form(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let attention on this CPU be of that form; a GPU's operations are stood in for by plain ones that take the same."""
    if name == "merged":
        return
    monkeypatch.setattr(flash, "_cuda_forward", as_a_gpu_does)
    monkeypatch.setattr(flash, "_cuda_backward", back_as_a_gpu_does)
    gpu = flash.FLASH["cuda"]._replace(dtypes=flash.FLASH["cpu"].dtypes)
    monkeypatch.setattr(flash, "FLASH", {"cpu": gpu} if name == "merged as on a GPU" else {})


@pytest.fixture(params=["merged", "merged as on a GPU", "joined"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the fast forms."""
    take_form(request.param, monkeypatch)
    return str(request.param)


@pytest.mark.parametrize("name", PACKS)
def test_packed_attention_is_dense_attention_under_the_block_mask(name: str, form: str) -> None:
    check_parity(PACKS[name])


@pytest.mark.parametrize("window", [1, 3, 100])
@pytest.mark.parametrize("name", PACKS)
def test_a_window_counts_positions_and_not_places(name: str, window: int) -> None:
    check_parity(PACKS[name], window=window)


@pytest.mark.parametrize("name", FLAT)
def test_an_encoder_sees_what_follows_too(name: str, form: str) -> None:
    check_parity(FLAT[name], causal=False)


@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_grouped_heads_read_the_keys_of_their_group(key_heads: int, form: str) -> None:
    check_parity(TREES["branches in branches"], key_heads=key_heads)


def test_half_precision_is_merged_in_single() -> None:
    pack = TREES["branches in branches"]
    q, k, v = (states.detach().to(torch.bfloat16) for states in drawn(pack))
    wanted = plain(q.double(), k.double(), v.double(), block_mask(pack))
    out = packed_attention(q, k, v, pack, scale=0.3)
    assert out.dtype is torch.bfloat16
    torch.testing.assert_close(out.double(), wanted, rtol=0, atol=2e-2)


def test_queries_of_another_layout_are_the_same() -> None:
    pack = TREES["two trees and a row"]
    inputs = drawn(pack)
    other = [states.detach().contiguous() for states in inputs]
    assert torch.equal(packed_attention(*other, pack), packed_attention(*inputs, pack))


def test_the_check_sees_a_window_that_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    causal = attention._causal
    monkeypatch.setattr(attention, "_causal", lambda queries, keys, window, device: causal(queries, keys, None, device))
    with pytest.raises(AssertionError):
        check_parity(PACKS["ragged"], window=3)


def test_the_check_sees_a_row_that_looks_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    take_form("joined", monkeypatch)
    monkeypatch.setattr(attention, "_causal", lambda queries, keys, window, device: torch.ones(queries, keys).bool())
    with pytest.raises(AssertionError):
        check_parity(TREES["one prefix"])


def test_the_check_sees_parts_that_are_added_and_not_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash, "_merge", lambda out, lse, rows, sums: out.add_(rows))
    with pytest.raises(AssertionError):
        check_parity(TREES["one prefix"])


def test_the_check_sees_a_backward_pass_that_knows_one_part_only(monkeypatch: pytest.MonkeyPatch) -> None:
    merge = flash._merge

    def forgetful(out: torch.Tensor, lse: torch.Tensor, rows: torch.Tensor, sums: torch.Tensor) -> None:
        merge(out, lse.clone(), rows, sums)  # the outputs are right, the sums that backward reads are not

    monkeypatch.setattr(flash, "_merge", forgetful)
    with pytest.raises(AssertionError):
        check_parity(TREES["one prefix"])


def test_the_check_sees_examples_that_see_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaking(q: Any, k: Any, v: Any, pack: Pack, *, scale: float, causal: bool) -> torch.Tensor:
        return plain(q, k, v, torch.ones(pack.tokens, pack.tokens, dtype=torch.bool).tril())

    monkeypatch.setitem(globals(), "packed_attention", leaking)
    with pytest.raises(AssertionError):
        check_parity(PACKS["ragged"])


def test_dropout_reaches_attention() -> None:
    pack = FLAT["ragged"]
    q, k, v = drawn(pack)
    noisy = packed_attention(q, k, v, pack, dropout=0.5)
    assert not torch.equal(noisy, packed_attention(q, k, v, pack, dropout=0.5))


def test_positions_restart_behind_what_is_shared() -> None:
    positions = TREES["branches in branches"].positions().tolist()
    assert positions == [0, 1, 2, 3, 4, 3, 4, 5, 6, 7, 8, 9, 7, 8, 9, 3, 4, 5, 5]
    assert TREES["branches in branches"].longest == 10


class Layer(torch.nn.Module):
    """What Transformers hands on as the calling layer."""

    is_causal = True
    num_key_value_groups = 2


def test_without_a_pack_it_is_transformers_sdpa() -> None:
    q, k, v = drawn(Pack((Run(0, 1, 6),)))
    mask = torch.ones(6, 6, dtype=torch.bool).tril()[None, None]
    for given_mask in (None, mask):
        own, _ = attention.attention(Layer(), q, k, v, given_mask, scaling=0.3, sliding_window=4)
        theirs, _ = attention.sdpa_attention_forward(Layer(), q, k, v, given_mask, scaling=0.3)
        assert torch.equal(own, theirs)


UNKNOWN = [
    {"softcap": 50.0},
    {"s_aux": torch.zeros(4)},
    {"position_bias": torch.zeros(1, 4, 6, 6)},
    {"something_new": 1},
]


def check_refused(unknown: dict[str, Any]) -> None:
    """A pack raises ValueError where the model asks its attention for something that packed attention lacks."""
    pack = Pack((Run(0, 1, 2), Run(2, 1, 4)))
    try:
        attention.attention(Layer(), *drawn(pack), None, pack=pack, **unknown)
    except ValueError as error:
        assert next(iter(unknown)) in str(error)
        return
    raise AssertionError(f"{unknown} was passed over")


@pytest.mark.parametrize("unknown", UNKNOWN, ids=lambda unknown: next(iter(unknown)))
def test_a_pack_refuses_what_it_does_not_compute(unknown: dict[str, Any]) -> None:
    check_refused(unknown)


def test_a_pack_takes_what_does_not_change_the_maths() -> None:
    pack = Pack((Run(0, 1, 2), Run(2, 1, 4)))
    inert = {"position_ids": torch.arange(6), "use_cache": False, "softcap": None, "is_causal": True}
    inputs = drawn(pack)
    out, _ = attention.attention(Layer(), *inputs, None, pack=pack, scaling=0.3, **inert)
    torch.testing.assert_close(out, plain(*inputs, block_mask(pack)), rtol=0, atol=1e-12)


def test_the_check_sees_a_soft_cap_that_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "INERT", attention.INERT | {"softcap"})
    with pytest.raises(AssertionError):
        check_refused({"softcap": 50.0})


@pytest.mark.parametrize("asked", [{"sliding_window": 2}, {}], ids=["window", "tree"])
def test_an_encoder_has_no_window_and_shares_nothing(asked: dict[str, Any]) -> None:
    pack = FLAT["ragged"] if asked else TREES["one prefix"]
    with pytest.raises(ValueError, match="is_causal"):
        attention.attention(Layer(), *drawn(pack), None, pack=pack, is_causal=False, **asked)
