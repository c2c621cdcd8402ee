"""What is promised of every method on every kind of model. What a fresh process makes of it: test_fresh_process.py.

INVARIANTS rows 13, 20, 22, 32 and 33.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from contract import CASES, PAIRS, base, ids, loaded, logits, prepared, said, trained

from pegbox.errors import RecipeError
from pegbox.methods import METHODS, freeze
from pegbox.methods.lora_layers import LoraLinear
from pegbox.models.heads import new_parts
from pegbox.models.load import load_model
from pegbox.models.quantization import dequantized
from pegbox.recipe import Freeze

pytestmark = [pytest.mark.filterwarnings("ignore:::peft"), pytest.mark.filterwarnings("ignore:::torch")]
pairs = pytest.mark.parametrize(("name", "kind"), PAIRS)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bases")


def test_the_battery_has_every_method() -> None:
    assert {case.settings.kind for case in CASES.values()} == METHODS.keys()


# ---- at the start ----------------------------------------------------------------------------------------------------


@pairs
def test_the_model_starts_as_it_was(name: str, kind: str, root: Path) -> None:
    if (start := CASES[name].start) is None:
        pytest.skip("what is put before a text changes it")
    torch.testing.assert_close(logits(prepared(name, kind, root)), logits(loaded(kind, root)), rtol=0, atol=start)


# ---- what learns -----------------------------------------------------------------------------------------------------


def named(name: str, model: Any) -> set[str]:
    """The parameters that a method says it lets learn."""
    heads = {f"{part}{'.' * isinstance(module, torch.nn.Module)}" for part, module in new_parts(model)}
    found = {n for n, _ in model.named_parameters() if n.endswith(CASES[name].learns) or n.startswith(tuple(heads))}
    if name == "norms":
        found |= {n for n, _ in model.named_parameters() if "norm" in n.lower()}
    if name == "top layer":
        prefix = {"llama": "model.layers.1.", "bert": "bert.encoder.layer.1.", "bart": "model.decoder.layers.1."}
        prefix["t5"] = "decoder.block.1."
        found |= {n for n, _ in model.named_parameters() if n.startswith(prefix[model.config.model_type])}
    return found


def check_just_the_named_weights_learn(name: str, kind: str, root: Path) -> None:
    """Within two steps each has a gradient; no other has one, and none of these has changed a bit (row 32)."""
    model = prepared(name, kind, root)
    learnt = named(name, model)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == learnt
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if n not in learnt}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    reached: set[str] = set()
    for _ in range(2):
        said(model).logsumexp(-1).sum().backward()
        reached |= {n for n, p in model.named_parameters() if p.grad is not None and p.grad.count_nonzero()}
        optimizer.step()
        optimizer.zero_grad()
    unfelt = {n for n in learnt if n.endswith("k_proj.bias")}  # attention does not feel a key's bias
    unread = {"model.shared.weight"} if kind == "bart, untied" else set()  # both sides have embeddings of their own
    assert learnt - reached <= unfelt | unread
    assert reached <= learnt
    assert all(torch.equal(model.get_parameter(n), tensor) for n, tensor in frozen.items())


@pairs
def test_just_the_named_weights_learn(name: str, kind: str, root: Path) -> None:
    check_just_the_named_weights_learn(name, kind, root)


def test_the_check_sees_embeddings_that_learn_as_well(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = freeze.prepare

    def prepare(model: Any, settings: Freeze, seed: int) -> None:
        real(model, settings, seed)
        model.get_input_embeddings().requires_grad_(True)

    monkeypatch.setattr(freeze, "prepare", prepare)
    with pytest.raises(AssertionError):
        check_just_the_named_weights_learn("norms", "decoder", root)


# ---- saved and restored ----------------------------------------------------------------------------------------------


@pairs
def test_what_was_saved_comes_back_to_the_bit(name: str, kind: str, root: Path, tmp_path: Path) -> None:
    model, case = trained(name, kind, root), CASES[name]
    case.method.save(model, case.settings, tmp_path, str(base(kind, root)))
    again = loaded(kind, root, seed=9)
    case.method.restore(again, case.settings, tmp_path)
    assert torch.equal(logits(again), logits(model))
    assert (logits(model) - logits(loaded(kind, root))).abs().max() > 1e-4, "nothing was learnt"


# ---- merged ----------------------------------------------------------------------------------------------------------


def check_merged_is_the_adapter(name: str, kind: str, root: Path, tmp_path: Path) -> None:
    """The merged model computes the same, is one of Transformers' own, and loads as any other (row 13)."""
    model, case = trained(name, kind, root), CASES[name]
    before = logits(model)
    case.method.merge(model, case.settings)
    torch.testing.assert_close(logits(model), before, rtol=0, atol=1e-5)
    plain = loaded(kind, root)
    assert model.state_dict().keys() == plain.state_dict().keys()
    model.save_pretrained(tmp_path)
    again = type(plain).from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits(again), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "kind"), [pair for pair in PAIRS if CASES[pair[0]].merges])
def test_a_merged_model_computes_the_same(name: str, kind: str, root: Path, tmp_path: Path) -> None:
    check_merged_is_the_adapter(name, kind, root, tmp_path)


@pytest.mark.parametrize("name", ["rslora", "dora"])
def test_the_check_sees_a_merge_without_the_scaling(
    name: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoraLinear, "delta_weight", lambda self: (self.lora_B @ self.lora_A).detach())
    with pytest.raises(AssertionError):
        check_merged_is_the_adapter(name, "decoder", root, tmp_path)


@pytest.mark.parametrize(("name", "kind"), [pair for pair in PAIRS if not CASES[pair[0]].merges])
def test_what_cannot_be_merged_says_why(name: str, kind: str, root: Path) -> None:
    with pytest.raises(RecipeError) as refusal:
        CASES[name].method.merge(trained(name, kind, root), CASES[name].settings)
    assert refusal.value.cure


@pytest.mark.parametrize("name", ["lora", "dora", "pissa"])
def test_taking_a_merge_back_gives_the_adapter_to_the_bit(name: str, root: Path) -> None:
    """A merge makes new weights and leaves the frozen ones as they were, so that nothing is lost by rounding."""
    model = trained(name, "decoder", root)
    before = logits(model)
    layers = {n: module for n, module in model.named_modules() if isinstance(module, LoraLinear)}
    CASES[name].method.merge(model, CASES[name].settings)
    for n, layer in layers.items():
        model.set_submodule(n, layer)
    assert torch.equal(logits(model), before)
    untouched = loaded("decoder", root)
    assert all(torch.equal(layer.weight, untouched.get_submodule(n).weight) for n, layer in layers.items())


# ---- over a quantized base -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", ["nf4", "int8"])
@pytest.mark.parametrize("name", ["lora", "dora", "houlsby"])
def test_a_method_over_a_quantized_base(name: str, bits: str, root: Path, tmp_path: Path) -> None:
    """It starts as the base, moves, comes back to the bit, and a merge holds the dequantized weights (row 13)."""

    def quantized() -> Any:
        return load_model(base("decoder", root), "causal_lm", quantization=bits)

    case, plain = CASES[name], quantized()
    model = quantized()
    case.method.prepare(model, case.settings, 0)
    torch.testing.assert_close(logits(model), logits(plain), rtol=0, atol=1e-4)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        model(ids(model)).logits.logsumexp(-1).sum().backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        optimizer.step()
        optimizer.zero_grad()
    case.method.save(model, case.settings, tmp_path, str(base("decoder", root)))
    again = quantized()
    case.method.restore(again, case.settings, tmp_path)
    before = logits(model)
    assert torch.equal(logits(again), before) and (before - logits(plain)).abs().max() > 1e-3
    if case.merges:
        case.method.merge(model, case.settings)
        torch.testing.assert_close(logits(model), before, rtol=0, atol=1e-4)
        layer = "model.layers.0.mlp.up_proj"
        assert model.get_submodule(layer).weight.dtype == torch.float32
        delta = model.get_submodule(layer).weight - dequantized(plain.get_submodule(layer))
        assert 0 < delta.abs().max() < 1


# ---- freezing --------------------------------------------------------------------------------------------------------

WRONG = [
    (Freeze(), "decoder", "nothing would learn"),
    (Freeze(top_layers=3), "decoder", "has 2 layers"),
    (Freeze(parts=("output",)), "encoder", "has no output"),
    (Freeze(parts=("biases",)), "decoder", "has no biases"),
]


@pytest.mark.parametrize(("settings", "kind", "said"), WRONG)
def test_what_the_model_has_not_cannot_learn(settings: Freeze, kind: str, said: str, root: Path) -> None:
    with pytest.raises(RecipeError, match=said) as refusal:
        freeze.prepare(loaded(kind, root), settings, 0)
    assert refusal.value.cure


def test_the_parts_are_what_they_are_called(root: Path) -> None:
    def learnt(kind: str, *parts: Any) -> set[str]:
        model = loaded(kind, root)
        freeze.prepare(model, Freeze(parts=parts), 0)
        return {name for name, p in model.named_parameters() if p.requires_grad}

    heads = {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"}
    every = {name for name, _ in loaded("encoder", root).named_parameters()}
    assert learnt("encoder", "biases") == heads | {name for name in every if name.endswith("bias")}
    assert learnt("encoder", "embeddings") == heads | {"bert.embeddings.word_embeddings.weight"}
    assert learnt("decoder", "output") == learnt("decoder", "embeddings") == {"model.embed_tokens.weight"}, "tied"


@pairs
def test_what_learns_is_laid_out_in_rows(name: str, kind: str, root: Path) -> None:
    """The fused update walks memory: moments that a checkpoint gives back must meet the weights that they are of."""
    assert all(weight.is_contiguous() for weight in prepared(name, kind, root).parameters() if weight.requires_grad)
