"""Small updates are not lost: neither in training over a base of bfloat16, nor in a merge (INVARIANTS rows 13 and 14)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from contract import CASES, base, ids, loaded
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from pegbox.methods import METHODS, lora_layers
from pegbox.models.load import load_model
from pegbox.recipe import Lora, Train
from pegbox.runs.checkpoint import trainable
from pegbox.training.schedule import adamw, set_rate

pytestmark = [pytest.mark.filterwarnings("ignore:::peft"), pytest.mark.filterwarnings("ignore:::torch")]
RATE, STEPS = 1e-6, 100
NAMES = ["full", "norms", "lora", "dora", "houlsby", "ia3"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bases")


# ---- training (row 14) -----------------------------------------------------------------------------------------------


def learn(name: str, root: Path, *, bf16: bool) -> tuple[float, float]:
    """The share of the learnt numbers that 100 steps at a rate of 1e-6 have changed, and the loss after them.

    As the pipeline has it: a base that is frozen is held in bfloat16, and products are computed in it.
    """
    case = CASES[name]
    dtype = torch.bfloat16 if bf16 and case.method.FREEZES else torch.float32
    model = load_model(base("decoder", root), "causal_lm", dtype=dtype)
    case.method.prepare(model, case.settings, 0)
    learnt = trainable(model)
    before = {key: parameter.detach().clone() for key, parameter in learnt.items()}
    optimizer = adamw(learnt, Train(), lambda key: case.method.rate_factor(case.settings, key))
    given, loss = ids(model), torch.tensor(0.0)
    for _ in range(STEPS):
        set_rate(optimizer, RATE)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(given).logits.float()
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), given[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert {p.dtype for p in learnt.values()} == {torch.float32}
    assert {m.dtype for state in optimizer.state.values() for m in state.values()} == {torch.float32}
    moved = [
        (parameter != before[key]) & (optimizer.state[parameter]["exp_avg"] != 0) for key, parameter in learnt.items()
    ]
    reached = [optimizer.state[parameter]["exp_avg"] != 0 for parameter in learnt.values()]
    return sum(int(m.sum()) for m in moved) / sum(int(r.sum()) for r in reached), float(loss)


def check_small_updates_are_not_lost(name: str, root: Path) -> None:
    share, loss = learn(name, root, bf16=True)
    assert share > 0.99
    assert loss == pytest.approx(learn(name, root, bf16=False)[1], rel=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_small_updates_are_not_lost(name: str, root: Path) -> None:
    check_small_updates_are_not_lost(name, root)


def test_the_check_sees_updates_in_bfloat16(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = METHODS["full"].prepare

    def prepare(model: Any, settings: Any, seed: int) -> None:
        real(model, settings, seed)
        model.to(torch.bfloat16)

    monkeypatch.setattr(METHODS["full"], "prepare", prepare)
    with pytest.raises(AssertionError):
        check_small_updates_are_not_lost("full", root)


@pytest.mark.parametrize("name", ["lora", "houlsby", "ia3"])
def test_a_new_head_over_a_base_of_bfloat16_learns_in_float32(name: str, root: Path) -> None:
    labels = ("no", "yes")
    model = load_model(base("encoder", root), "sequence_classification", labels=labels, dtype=torch.bfloat16)
    CASES[name].method.prepare(model, CASES[name].settings, 0)
    assert model.bert.embeddings.word_embeddings.weight.dtype == torch.bfloat16
    assert {p.dtype for p in trainable(model).values()} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        model(ids(model)).logits.float().logsumexp(-1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trainable(model).values())


# ---- merging (row 13) ------------------------------------------------------------------------------------------------


def tuned(settings: Lora, root: Path, size: float) -> Any:
    """A model with an update of the given size."""
    model = loaded("decoder", root)
    METHODS["lora"].prepare(model, settings, 0)
    generator = torch.Generator().manual_seed(3)
    for layer in model.modules():
        if isinstance(layer, lora_layers.LoraLinear):
            layer.lora_B.data.add_(torch.randn(layer.lora_B.shape, generator=generator) * size)
    return model


@torch.no_grad()
def divergence(one: Any, other: Any) -> float:
    """The mean KL, in nats, of the next token behind 100 prompts."""
    prompts = torch.randint(3, 40, (100, 12), generator=torch.Generator().manual_seed(5))
    p, q = (model(prompts).logits[:, -1].double().log_softmax(-1) for model in (one, other))
    return float((p.exp() * (p - q)).sum(-1).mean())


SETTINGS = {"lora": Lora(r=4), "dora": Lora(r=4, use_dora=True), "pissa": Lora(r=4, init_lora_weights="pissa")}


def check_a_merge_loses_nothing(settings: Lora, dtype: torch.dtype, bound: float, root: Path, folder: Path) -> None:
    size = 1e-3 if dtype == torch.float32 else 0.1  # of the update, small beside the weights
    adapter, merged = tuned(settings, root, size), tuned(settings, root, size)
    METHODS["lora"].merge(merged, settings)
    merged.to(dtype).save_pretrained(folder)
    again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert divergence(adapter, again) < bound
    assert divergence(loaded("decoder", root), adapter) > 30 * bound, "the update is too small to be missed"


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-3)], ids=["float32", "bfloat16"]
)
def test_a_merge_loses_nothing(name: str, dtype: torch.dtype, bound: float, root: Path, tmp_path: Path) -> None:
    check_a_merge_loses_nothing(SETTINGS[name], dtype, bound, root, tmp_path)


def test_the_check_sees_a_merge_into_weights_that_are_rounded_first(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In four bits, say: what was learnt is smaller than a step of theirs."""

    def rounded(layer: Any) -> torch.Tensor:
        whole = layer.weight.detach() + layer.delta_weight()
        step = whole.abs().max() / 7
        return (whole / step).round() * step

    monkeypatch.setattr(lora_layers.LoraLinear, "merged_weight", rounded)
    with pytest.raises(AssertionError):
        check_a_merge_loses_nothing(SETTINGS["lora"], torch.float32, 1e-6, root, tmp_path)
