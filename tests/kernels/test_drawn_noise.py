"""Dropout drawn four numbers at a time: in distribution torch's, in its maths exactly so, and attention under it by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_attention import FLAT, drawn
from torch import nn

from pegbox.kernels import noise, noisy_attention
from pegbox.kernels.attention import packed_attention
from pegbox.kernels.noise import FastDropout, install, kept
from pegbox.kernels.pack import Pack, repeated, rows_of
from pegbox.models.load import has_dropout

MANY = 1 << 20


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.9])
def test_as_many_are_dropped_as_asked_and_the_mean_stays(p: float) -> None:
    mask, scale = kept(MANY, p)
    spread = (p * (1 - p) / MANY) ** 0.5
    assert float((~mask).float().mean()) == pytest.approx(p, abs=4 * spread + 1 / noise.STEPS)
    assert scale * (1 - p) == pytest.approx(1, abs=2e-4 if p > 0.5 else 2e-5)


def test_neighbours_are_dropped_independently() -> None:
    mask = kept(MANY, 0.5)[0].float() - 0.5
    for apart in (1, 2, 3, 4, 5):
        assert abs(float((mask[apart:] * mask[:-apart]).mean())) < 4 * 0.25 / MANY**0.5


def test_the_noise_follows_from_the_seed() -> None:
    first = kept(1001, 0.3)[0]
    assert not torch.equal(first, kept(1001, 0.3)[0])
    torch.manual_seed(0)
    assert torch.equal(first, kept(1001, 0.3)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_what_is_kept_is_scaled_and_so_is_its_gradient(dtype: torch.dtype) -> None:
    x = torch.randn(50, 7, dtype=dtype).requires_grad_()
    out = FastDropout(0.25)(x)
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert out.dtype is dtype and set(grad.unique().tolist()) == {0.0, float(torch.tensor(4 / 3, dtype=dtype))}
    torch.testing.assert_close(out, x * grad)


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (1.0, True), (0.5, False), (1e-7, True), (1 - 1e-7, True)])
def test_all_or_nothing_is_as_torch_has_it(p: float, training: bool) -> None:
    x = torch.randn(400)
    torch.manual_seed(1)
    own = FastDropout(p).train(training)(x)
    torch.manual_seed(1)
    assert torch.equal(own, nn.Dropout(p).train(training)(x))


def test_it_takes_the_place_of_plain_dropout_alone() -> None:
    model = nn.Sequential(nn.Dropout(0.1), nn.Dropout(0.2, inplace=True), nn.Sequential(nn.AlphaDropout(0.1))).eval()
    install(model)
    assert [type(module) for module in model.modules() if not isinstance(module, nn.Sequential)] == [
        FastDropout,
        nn.Dropout,
        nn.AlphaDropout,
    ]
    assert model[0].p == 0.1 and not model[0].training and has_dropout(model)  # type: ignore[arg-type]


# ---- attention -------------------------------------------------------------------------------------------------------


def plain(q: Any, k: Any, v: Any, pack: Pack, causal: bool, mask: torch.Tensor, factor: float) -> torch.Tensor:
    """Attention of each run with noise, by autograd: [1, T, H, D]."""
    outs, done = [], 0
    for run in pack.runs:
        query, key, value = (rows_of(states[0].transpose(0, 1), run) for states in (q, k, v))
        key, value = (repeated(states, query.shape[1]) for states in (key, value))
        scores = 0.3 * query @ key.transpose(2, 3)
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
        keep = mask[done : done + scores.numel()].view_as(scores)
        done += scores.numel()
        outs.append(((scores.softmax(-1) * keep * factor) @ value).transpose(1, 2).flatten(0, 1))
    return torch.cat(outs)[None]


def check_noisy(name: str, causal: bool, key_heads: int = 2) -> None:
    """Outputs and gradients are those of the plain form with the same noise, in float64."""
    pack = FLAT[name]
    inputs = drawn(pack, 4, key_heads)
    outs, grads = [], []
    torch.manual_seed(3)
    mask, factor = kept(sum(4 * run.rows * run.length**2 for run in pack.runs), 0.25)
    torch.manual_seed(3)
    for form in (
        lambda: packed_attention(*inputs, pack, scale=0.3, causal=causal, dropout=0.25),
        lambda: plain(*inputs, pack, causal, mask, factor),
    ):
        outs.append(form())
        probe = torch.linspace(-1, 1, outs[-1].numel(), dtype=torch.float64).view_as(outs[-1])
        grads.append(torch.autograd.grad((outs[-1] * probe).sum(), inputs))
    torch.testing.assert_close(*outs, rtol=0, atol=1e-12)
    for fast, slow in zip(*grads, strict=True):
        torch.testing.assert_close(fast, slow, rtol=0, atol=1e-11)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", FLAT)
def test_attention_under_noise_is_the_plain_form_with_the_same_noise(name: str, causal: bool) -> None:
    check_noisy(name, causal)


@pytest.mark.parametrize("key_heads", [1, 4])
def test_grouped_heads_under_noise(key_heads: int) -> None:
    check_noisy("ragged", True, key_heads)


def test_the_check_sees_noise_that_is_forgotten_on_the_way_back(monkeypatch: pytest.MonkeyPatch) -> None:
    right = noisy_attention._Noisy.backward

    def careless(ctx: Any, *grads: torch.Tensor) -> Any:
        ctx.factor = 1.0
        return right(ctx, *grads)

    monkeypatch.setattr(noisy_attention._Noisy, "backward", staticmethod(careless))
    with pytest.raises(AssertionError):
        check_noisy("ragged", False)
