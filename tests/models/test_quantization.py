"""A base model in 4 or 8 bits: what its weights are, that its layers multiply by just them, and what stays as it was."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
import torch
from bitsandbytes.functional import has_avx512bf16
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from torch import nn
from torch.nn.functional import linear

from pegbox import runtime
from pegbox.errors import RecipeError
from pegbox.models import quantization, quantized_layers
from pegbox.models.load import kernels_of, load_model
from pegbox.models.packing import enable_packing
from pegbox.models.quantization import config, count, dequantized, is_quantized, size
from pegbox.recipe import Train
from pegbox.training.plan import Given
from pegbox.training.planning import _counted
from tiny_models import examples, rows, save_tokenizer, tiny, tiny_classifier

KINDS = ["nf4", "int8"]
LABELS = ("no", "perhaps", "yes")
WIDE = {
    "hidden_size": 64,
    "intermediate_size": 192,
}  # whole blocks of 64, and a shape that no other test's weights have
HEADS: dict[str, dict[str, Any]] = {
    "llama": {"head": "causal_lm"},
    "llama classifier": {"head": "sequence_classification", "labels": LABELS},
    "bert classifier": {"head": "sequence_classification", "labels": LABELS},
}
CASES = [(name, kind) for name in HEADS for kind in KINDS]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny Llama and a tiny BERT, each with a tokenizer; none has a classifier."""
    made = {name: tmp_path_factory.mktemp(name) for name in ("llama", "bert")}
    tiny("llama", **WIDE).save_pretrained(made["llama"])
    tiny_classifier("bert", **WIDE).bert.save_pretrained(made["bert"])
    for folder in made.values():
        save_tokenizer(folder)
    return made


def loaded(folders: dict[str, Path], name: str, kind: str | None, **options: Any) -> Any:
    return load_model(folders[name.split()[0]], **HEADS[name], seed=3, quantization=kind, **options)


def layers(model: nn.Module) -> dict[str, Any]:
    return {name: module for name, module in model.named_modules() if is_quantized(module)}


def blocks(weight: torch.Tensor) -> torch.Tensor:
    """[n, 64]: the neighbours that share an absmax."""
    return weight.reshape(-1, 64)


def nf4_levels() -> torch.Tensor:
    """The 16 levels by appendix E of the paper: quantiles of a normal distribution, half of them on each side of 0."""
    tail = 0.9677083
    above, below = (torch.special.ndtri(torch.linspace(tail, 0.5, n, dtype=torch.float64)[:-1]) for n in (9, 8))
    levels = torch.cat([-below, torch.zeros(1, dtype=torch.float64), above.flip(0)]).sort().values
    return (levels / levels.max()).float()


# ---- what the weights are --------------------------------------------------------------------------------------------


def test_a_4_bit_weight_is_the_nearest_of_16_levels_times_the_largest_of_its_block(folders: dict[str, Path]) -> None:
    original, levels = loaded(folders, "llama", None), nf4_levels()
    for name, layer in layers(loaded(folders, "llama", "nf4")).items():
        given, found = (blocks(w.detach()) for w in (original.get_submodule(name).weight, dequantized(layer)))
        largest, held = (w.abs().amax(1, keepdim=True) for w in (given, found))
        torch.testing.assert_close(held, largest, rtol=0.02, atol=0)  # the absmax is held in 8 bits, too
        nearest = levels[(given[..., None] / largest[..., None] - levels).abs().argmin(-1)]
        torch.testing.assert_close(found / held, nearest, rtol=0, atol=1e-6)


def test_an_8_bit_weight_is_the_nearest_of_255_numbers_times_the_largest_of_its_row(folders: dict[str, Path]) -> None:
    original = loaded(folders, "llama", None)
    for name, layer in layers(loaded(folders, "llama", "int8")).items():
        given, found = original.get_submodule(name).weight.detach(), dequantized(layer)
        step = given.abs().amax(1, keepdim=True) / 127
        assert ((found - given).abs() <= 0.5 * step + 1e-3 * given.abs()).all()  # bitsandbytes rounds to float16 before
        torch.testing.assert_close(found / step, (found / step).round(), rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_the_same_whatever_type_the_rest_is_held_in(kind: str, folders: dict[str, Path]) -> None:
    one, other = (loaded(folders, "llama", kind, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    held = layers(other)
    assert all(torch.equal(dequantized(layer), dequantized(held[name])) for name, layer in layers(one).items())
    rest = {parameter.dtype for parameter in other.parameters() if parameter.is_floating_point()}
    assert rest == {torch.bfloat16} and other.dtype == torch.bfloat16


# ---- what the layers compute -----------------------------------------------------------------------------------------


def check_a_layer_multiplies_by_its_weight(layer: Any) -> None:
    """Forward and backward, in training and prediction, in whatever order, with a number far from the others."""
    weight = dequantized(layer)
    x = torch.randn(3, 5, weight.shape[1], generator=torch.Generator().manual_seed(0))
    x[0, 0, 3] = 30.0
    with torch.no_grad():
        torch.testing.assert_close(layer.eval()(x), linear(x, weight, layer.bias), rtol=1e-5, atol=1e-5)
    for training in (True, False):
        one, other = (x.clone().requires_grad_() for _ in range(2))
        found, wanted = layer.train(training)(one), linear(other, weight, layer.bias)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        ahead = torch.randn_like(wanted)
        torch.autograd.backward([found, wanted], [ahead, ahead])
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_layer_multiplies_by_its_weight(name: str, kind: str, kernels: bool, folders: dict[str, Path]) -> None:
    found = layers(loaded(folders, name, kind, kernels=kernels))
    assert len(found) == (12 if name.startswith("bert") else 14)
    for layer in found.values():
        check_a_layer_multiplies_by_its_weight(layer)


@pytest.mark.parametrize("kind", KINDS)
def test_the_check_sees_bitsandbytes_own_layers(kind: str, folders: dict[str, Path]) -> None:
    if kind == "nf4" and not has_avx512bf16():
        pytest.skip("its 4-bit layer is at fault on CPUs with AVX512-BF16 alone")
    layer = next(iter(layers(loaded(folders, "llama", kind)).values()))
    layer.__class__ = Linear4bit if kind == "nf4" else Linear8bitLt
    with pytest.raises((AssertionError, RuntimeError)), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that there is no gradient
        check_a_layer_multiplies_by_its_weight(layer)


@pytest.mark.parametrize(("kernels", "products"), [(True, 2), (False, 0)])
def test_kernels_multiply_unless_they_are_not_wanted(
    kernels: bool, products: int, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, calls = layers(loaded(folders, "llama", "int8", kernels=kernels))["model.layers.0.mlp.up_proj"], []
    monkeypatch.setattr(quantized_layers, "linear", lambda *given: calls.append(given) or linear(*given))
    layer(torch.randn(3, 64, requires_grad=True)).sum().backward()
    assert len(calls) == products


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_model_computes_what_it_would_with_the_dequantized_weights(
    name: str, kind: str, folders: dict[str, Path]
) -> None:
    model, plain, ids = loaded(folders, name, kind), loaded(folders, name, None), torch.tensor(rows([9, 9]))
    with torch.no_grad():
        untouched = plain(ids).logits
        for layer, module in layers(model).items():
            plain.get_submodule(layer).weight.copy_(dequantized(module))
        torch.testing.assert_close(model(ids).logits, plain(ids).logits, rtol=1e-5, atol=1e-5)
        assert (model(ids).logits - untouched).abs().max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_under_autocast_a_layer_computes_in_its_type(kind: str, folders: dict[str, Path]) -> None:
    layer, x = layers(loaded(folders, "llama", kind))["model.layers.0.mlp.up_proj"], torch.randn(3, 64)
    with runtime.autocast(torch.device("cpu"), bf16=True):
        found, wanted = layer(x), linear(x, dequantized(layer))
    assert found.dtype == wanted.dtype == torch.bfloat16
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_quantized_model_can_be_packed(kind: str, folders: dict[str, Path]) -> None:
    model = loaded(folders, "llama", kind)
    assert enable_packing(model, examples([9, 5, 7]))
    assert kernels_of(model)["attention"] == "packed"


# ---- what stays as it was --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_all_but_the_base_models_linear_layers_is_as_without(name: str, kind: str, folders: dict[str, Path]) -> None:
    model, plain = loaded(folders, name, kind), loaded(folders, name, None)
    weights = {f"{layer}.weight" for layer in layers(model)}
    given = dict(model.named_parameters())
    assert given.keys() == dict(plain.named_parameters()).keys()
    assert {n for n, weight in plain.named_parameters() if not torch.equal(given[n], weight)} == weights
    whole = {n for n, module in model.named_modules() if isinstance(module, nn.Linear)} - layers(model).keys()
    expected = {"llama": {"lm_head"}, "bert classifier": {"bert.pooler.dense", "classifier"}}
    assert whole == expected.get(name, {"score"})


def full_weights() -> int:
    """How many tensors there are that could be a full weight of the shape that only these tests have."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    return sum(tensor.is_floating_point() and tensor.shape == (192, 64) for tensor in tensors)


@pytest.mark.parametrize("kind", KINDS)
def test_no_weight_is_held_in_full_as_well(kind: str, folders: dict[str, Path]) -> None:
    before = full_weights()
    model = loaded(folders, "llama", kind)
    model(torch.tensor(rows([9, 9]))).logits.sum().backward()
    assert full_weights() == before
    next(iter(layers(model).values())).kept = loaded(folders, "llama", None).model.layers[0].mlp.up_proj.weight
    assert full_weights() == before + 1  # the check sees one that is


def kept_for_backward(layer: Any) -> list[torch.Size]:
    """The shapes of what the graph of a forward pass holds."""
    kept: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape), lambda none: none):
        layer(torch.randn(3, 64, requires_grad=True))
    return kept


@pytest.mark.parametrize("kind", KINDS)
def test_no_full_weight_is_kept_for_the_backward_pass(
    kind: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = layers(loaded(folders, "llama", kind))["model.layers.0.mlp.up_proj"]
    assert kept_for_backward(layer) == []
    naive = lambda x, given, fast: linear(x, dequantized(given))  # noqa: E731
    monkeypatch.setattr(quantized_layers, "frozen_linear", naive)  # bug: autograd keeps what it multiplied by
    assert torch.Size([192, 64]) in [shape[::-1] if shape[0] == 64 else shape for shape in kept_for_backward(layer)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_takes_the_bytes_of_its_format(kind: str, folders: dict[str, Path]) -> None:
    plain = loaded(folders, "llama", None)
    for name, layer in layers(loaded(folders, "llama", kind)).items():
        out, n = plain.get_submodule(name).out_features, plain.get_submodule(name).weight.numel()
        # half a byte each, a byte for each 64, a float32 for each 256 of those; or a byte each, a float32 for each row
        expected = n // 2 + n // 64 + 4 * -(-n // (64 * 256)) if kind == "nf4" else n + 4 * out
        assert (count(layer.weight), size(layer.weight)) == (n, expected)
        assert layer.weight.untyped_storage().nbytes() == (n // 2 if kind == "nf4" else n)
    weight = plain.lm_head.weight
    assert (count(weight), size(weight)) == (weight.numel(), 4 * weight.numel())


@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_counts_numbers_however_many_share_a_byte(kind: str, folders: dict[str, Path]) -> None:
    plans = []
    for quantized in (None, kind):
        model = loaded(folders, "bert classifier", quantized)
        model.requires_grad_(False)
        model.classifier.requires_grad_(True)
        rows, task = examples([9, 5]), cast(Any, None)  # which is not asked
        plan = _counted(
            Given(model, task, rows, rows, Train(batch_size=2), 0, packed=False, share_prefix=False), 0, 1, 9
        )
        plans.append((plan, sum(map(size, model.parameters()))))
    (plain, full), (packed, held) = plans
    assert (packed.parameters, packed.trainable_parameters) == (plain.parameters, plain.trainable_parameters)
    assert full > held
    assert plain.summary.split("learn")[1].split(";")[0] == packed.summary.split("learn")[1].split(";")[0]


# ---- quiet, and nothing from the hub ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_loading_and_computing_say_nothing(
    kind: str, folders: dict[str, Path], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = loaded(folders, "llama", kind)
        model.train()(torch.tensor(rows([9, 9]))).logits.sum().backward()
        model.eval()(torch.tensor(rows([9, 9])))
    assert not caplog.records and capfd.readouterr() == ("", "")


def test_bitsandbytes_is_imported_without_a_word_and_without_code_from_the_hub(tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text("raise SystemExit('asked for compiled code')\n", encoding="utf-8")
    code = (
        "import sys, torch; from pegbox.models.quantization import config; sys.path.insert(0, sys.argv[1])\n"
        "config('nf4', torch.device('cpu')); assert 'bitsandbytes' in sys.modules and 'kernels' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


def test_a_package_of_kernels_that_is_there_is_there_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ModuleType("kernels")
    monkeypatch.setitem(sys.modules, "kernels", own)
    with quantization.no_code_from_the_hub():
        assert sys.modules["kernels"] is not own
    assert sys.modules["kernels"] is own


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """Without one of the two packages."""
    if request.param == "bitsandbytes":
        monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    else:
        monkeypatch.setattr(quantization, "is_accelerate_available", lambda: False)
    yield request.param


@pytest.mark.parametrize("lacking", ["bitsandbytes", "accelerate"], indirect=True)
def test_a_package_that_is_not_installed_is_named_with_the_cure(lacking: str, folders: dict[str, Path]) -> None:
    with pytest.raises(RecipeError, match=rf"(?s)model.quantization: it needs `{lacking}`.*pegbox\[quantization\]"):
        loaded(folders, "llama", "nf4")


def test_a_device_that_cannot_is_refused_with_those_that_can(folders: dict[str, Path]) -> None:
    with pytest.raises(RecipeError, match="cannot compute on meta, but on cpu, cuda"):
        loaded(folders, "llama", "int8", device=torch.device("meta"))


@pytest.mark.parametrize(("able", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_gpu_computes_in_bfloat16_where_it_can(
    able: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: able)
    assert config("nf4", torch.device("cuda")).bnb_4bit_compute_dtype == dtype
    assert config("nf4", torch.device("cpu")).bnb_4bit_compute_dtype == torch.float32


@pytest.mark.parametrize(("name", "why"), [("gpt2", "no linear layers of the kind"), ("mamba", "cannot compute with")])
def test_a_model_that_cannot_be_quantized_is_refused(name: str, why: str, tmp_path: Path) -> None:
    tiny(name).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match=f"(?s)model.quantization: the model .*{why}.*cure: leave"):
        load_model(tmp_path, "causal_lm", quantization="nf4")


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_a_checkpoint_that_is_quantized_already_is_refused(kind: str | None, tmp_path: Path) -> None:
    tiny("llama", **WIDE).save_pretrained(tmp_path)
    told = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    told["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (tmp_path / "config.json").write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(RecipeError, match="(?s)quantized already, by bitsandbytes.*cure: give the model"):
        load_model(tmp_path, "causal_lm", quantization=kind)
