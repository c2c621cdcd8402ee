"""LoRA by itself: what it learns, where it is put, what it adds. PEFT's word on it is in test_lora_peft.py."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy, linear

from pegbox.errors import RecipeError
from pegbox.kernels import linear as fast_linear
from pegbox.methods import lora, lora_files
from pegbox.methods import saved as on_disk
from pegbox.methods.lora_layers import LoraLinear
from pegbox.models.batch import pack, pad
from pegbox.models.load import has_dropout
from pegbox.models.outputs import learnt_logits
from pegbox.models.packing import enable_packing
from pegbox.recipe import Lora
from tiny_models import examples, rows, tiny, tiny_classifier

IDS = torch.tensor(rows([9, 9]))
KINDS = ["llama", "qwen2", "opt", "bert", "roberta", "distilbert", "llama classifier"]


def built(kind: str, *, kernels: bool = False, dtype: torch.dtype = torch.float32) -> Any:
    name, _, classifier = kind.partition(" ")
    encoder = name in ("bert", "roberta", "distilbert")
    model = tiny_classifier(name, num_labels=3, dtype=dtype) if encoder or classifier else tiny(name, dtype=dtype)
    if kernels:
        fast_linear.install(model)
    return model


def prepared(kind: str, settings: Lora, *, drawn: bool = True, **options: Any) -> Any:
    """The model with its updates; `drawn`: B drawn at random too, so that the update is not nothing."""
    model = built(kind, **options)
    lora.prepare(model, settings, seed=3)
    for index, module in enumerate(layers(model).values()):
        if drawn:
            generator = torch.Generator().manual_seed(index)
            module.lora_B.data.copy_(torch.randn(module.lora_B.shape, generator=generator) / 8)
    return model


def layers(model: Any) -> dict[str, LoraLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    out: torch.Tensor = model(IDS).logits
    return out


# ---- at the start ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_starts_as_it_was(kind: str) -> None:
    assert torch.equal(logits(prepared(kind, Lora(r=4), drawn=False)), logits(built(kind)))


def test_the_start_follows_the_seed_and_leaves_the_callers_generator_alone() -> None:
    state = torch.get_rng_state()
    drawn = []
    for seed in (1, 1, 2):
        model = built("llama")
        lora.prepare(model, Lora(r=4), seed)
        drawn.append(torch.cat([module.lora_A.flatten() for module in layers(model).values()]))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_a_is_drawn_as_a_linear_layers_weight() -> None:
    model = built("llama")
    lora.prepare(model, Lora(r=64), seed=0)
    for module in layers(model).values():
        bound = 1 / math.sqrt(module.weight.shape[1])
        drawn = module.lora_A.detach()
        assert drawn.abs().max() <= bound
        assert drawn.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert module.lora_B.count_nonzero() == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_an_update_is_at_least_float32(dtype: torch.dtype) -> None:
    model = prepared("llama", Lora(r=4), dtype=dtype)
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {wanted}


# ---- scaling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (Lora(r=8), 2.0),
        (Lora(r=8, lora_alpha=4), 0.5),
        (Lora(r=16, lora_alpha=24), 1.5),
        (Lora(r=16, lora_alpha=24, use_rslora=True), 6.0),
        (Lora(r=9, use_rslora=True), 6.0),
    ],
    ids=str,
)
def test_the_update_is_scaled_by_alpha_over_r_or_its_root(settings: Lora, wanted: float) -> None:
    model = prepared("llama", settings)
    for module in layers(model).values():
        added = module.lora_B.detach() @ module.lora_A.detach() * wanted
        torch.testing.assert_close(module.delta_weight(), added, rtol=1e-6, atol=0)
        x = torch.randn(2, 3, module.weight.shape[1])
        plain = linear(x, module.weight, module.bias) + linear(x, added)
        torch.testing.assert_close(module(x), plain, rtol=1e-5, atol=1e-5)


def check_merged_is_the_adapter(kind: str, settings: Lora, kernels: bool) -> None:
    """The model with `delta_weight` added to its weights says what the model with the update says (row 13)."""
    model, merged = prepared(kind, settings, kernels=kernels), built(kind)
    before = logits(merged)
    for name, module in layers(model).items():
        merged.get_submodule(name).weight.data += module.delta_weight()
    torch.testing.assert_close(logits(merged), logits(model), rtol=0, atol=1e-5)
    assert (logits(merged) - before).abs().max() > 0.01, "the update does nothing"


@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_merged_weights_say_what_the_adapter_says(kind: str, kernels: bool) -> None:
    check_merged_is_the_adapter(kind, Lora(r=4, lora_alpha=6, use_rslora=True), kernels)


def test_the_check_sees_a_merge_without_the_scaling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LoraLinear, "delta_weight", lambda self: (self.lora_B @ self.lora_A).detach())
    with pytest.raises(AssertionError):
        check_merged_is_the_adapter("llama", Lora(r=4), kernels=False)


# ---- targets ---------------------------------------------------------------------------------------------------------


def test_all_linear_layers_but_the_output_and_the_head_get_an_update() -> None:
    for kind in KINDS:
        model = built(kind)
        names = lora.targets(model, Lora())
        linears = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
        left = {name.rsplit(".", 1)[-1] for name in linears - set(names)}
        heads = {"bert": {"classifier", "dense"}, "roberta": {"dense", "out_proj"}}
        heads |= {"distilbert": {"classifier", "pre_classifier"}, "llama classifier": {"score"}}
        assert left == heads.get(kind, {"lm_head"})
        assert not any("pooler" in name for name in names)


def check_a_target_that_is_not_there_is_an_error(kind: str, wanted: tuple[str, ...]) -> None:
    try:
        lora.prepare(built(kind), Lora(target_modules=wanted), seed=0)
    except RecipeError as error:
        text = str(error)
        assert error.where == "method.target_modules"
        assert all(name in text for name in ("q_proj", "down_proj", "nothing")) and "lm_head" not in str(error.cure)
        return
    raise AssertionError("a target that matches nothing was passed over")


@pytest.mark.parametrize("wanted", [("nothing",), ("q_proj", "nothing"), ("nothing", "lm_head"), ("x.nothing",)])
def test_a_target_that_matches_nothing_is_an_error_that_lists_the_candidates(wanted: tuple[str, ...]) -> None:
    check_a_target_that_is_not_there_is_an_error("llama", wanted)


def test_the_check_sees_a_target_that_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    real = lora.targets
    monkeypatch.setattr(lora, "targets", lambda model, settings: real(model, Lora(target_modules=("q_proj",))))
    with pytest.raises(AssertionError, match="passed over"):
        check_a_target_that_is_not_there_is_an_error("llama", ("q_proj", "nothing"))


def test_a_part_of_a_name_is_no_name() -> None:
    names = lora.targets(built("llama"), Lora(target_modules=("q_proj", "mlp.up_proj", "model.layers.1.mlp.down_proj")))
    assert names == [
        "model.layers.0.self_attn.q_proj",
        "model.layers.0.mlp.up_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.mlp.up_proj",
        "model.layers.1.mlp.down_proj",
    ]
    with pytest.raises(RecipeError):
        lora.targets(built("llama"), Lora(target_modules=("proj",)))


def test_a_model_without_linear_layers_is_an_error_and_not_a_run_that_learns_nothing() -> None:
    with pytest.raises(RecipeError, match="full"):
        lora.prepare(tiny("gpt2"), Lora(), seed=0)


# ---- what learns -----------------------------------------------------------------------------------------------------


def digests(model: Any, learnt: bool) -> dict[str, str]:
    return {
        name: hashlib.sha256(parameter.detach().numpy().tobytes()).hexdigest()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad == learnt
    }


def check_just_the_update_learns(kind: str, settings: Lora, kernels: bool) -> None:
    """Within two steps every learnt parameter has had a gradient and has moved; nothing else has (row 32)."""
    model = prepared(kind, settings, drawn=False, kernels=kernels).train()
    frozen, start = digests(model, learnt=False), digests(model, learnt=True)
    reached = set()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        out = model(IDS).logits.flatten(0, -2)
        cross_entropy(out, torch.arange(len(out)) % 3).backward()
        reached |= {name for name, p in model.named_parameters() if p.grad is not None and p.grad.count_nonzero()}
        optimizer.step()
        optimizer.zero_grad()
    assert reached == set(start), f"reached by no gradient, or by one too many: {sorted(reached ^ set(start))}"
    assert digests(model, learnt=False) == frozen
    assert not set(digests(model, learnt=True).items()) & set(start.items())
    owned = {name for name in start if not name.endswith((".lora_A", ".lora_B"))}
    heads = lora_files.new_heads(model)
    assert owned == {f"{head}.{name}" for head, module in heads.items() for name, _ in module.named_parameters()}


@pytest.mark.parametrize("kernels", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_within_two_steps_all_that_learns_has_moved_and_nothing_else(kind: str, kernels: bool) -> None:
    check_just_the_update_learns(kind, Lora(r=4), kernels)


def unfrozen(model: Any, settings: Any, seed: int, prepare: Any = lora.prepare) -> None:
    prepare(model, settings, seed)
    model.get_input_embeddings().weight.requires_grad_(True)


def cut_off(self: LoraLinear, x: torch.Tensor) -> torch.Tensor:
    return linear(x, self.weight, self.bias) + linear(linear(x, self.lora_A).detach(), self.lora_B)


def test_the_check_sees_a_base_that_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora, "prepare", unfrozen)
    with pytest.raises(AssertionError):
        check_just_the_update_learns("llama", Lora(r=4), kernels=False)


def test_the_check_sees_an_update_that_no_gradient_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LoraLinear, "forward", cut_off)
    with pytest.raises(AssertionError, match="lora_A"):
        check_just_the_update_learns("llama", Lora(r=4), kernels=False)


def test_gradients_do_not_depend_on_how_an_update_is_laid_out() -> None:
    model = prepared("mistral", Lora(r=4), dtype=torch.float64)
    given = examples([5, 1, 9], prefix=6)
    assert enable_packing(model, given)
    found = []
    for parts in (
        [pad([example], 0) for example in given],
        [pad(given, 0)],
        [pack(given, share_prefix=False)],
        [pack(given, share_prefix=True)],
    ):
        model.zero_grad()
        for made in parts:
            losses = cross_entropy(learnt_logits(model, made), made.targets, reduction="none")
            (losses * made.weights).sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad]))
    for other in found[1:]:
        assert (other - found[0]).norm() / found[0].norm() < 1e-10


def test_the_kernel_computes_the_plain_forms_gradients() -> None:
    grads = []
    for kernels in (False, True):
        model = prepared("qwen2", Lora(r=4), kernels=kernels).train()
        model(IDS).logits.logsumexp(-1).sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad]))
    assert (grads[1] - grads[0]).norm() / grads[0].norm() < 1e-5


# ---- dropout ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernels", [False, True])
def test_dropout_acts_in_training_alone(kernels: bool) -> None:
    quiet, noisy = (prepared("llama", Lora(r=4, lora_dropout=p), kernels=kernels) for p in (0.0, 0.5))
    assert not any(module.training for module in noisy.modules()), "a layer is in training in a model that is not"
    assert torch.equal(logits(noisy), logits(quiet))
    assert not has_dropout(quiet) and has_dropout(noisy)
    assert torch.equal(logits(quiet.train()), logits(quiet))
    assert not torch.equal(logits(noisy.train()), logits(noisy))


def test_dropout_is_on_the_updates_input() -> None:
    (module, *_) = layers(prepared("llama", Lora(r=4, lora_dropout=0.5)).train()).values()
    x = torch.ones(4000, 32)
    base = linear(x, module.weight, module.bias)
    added = module(x) - base
    torch.testing.assert_close(added.mean(0), linear(x[:1], module.delta_weight())[0], rtol=0, atol=0.05)
    assert added.std(0).min() > 0.01


# ---- on disk ---------------------------------------------------------------------------------------------------------


def check_every_learnt_weight_is_saved(model: Any, folder: Path) -> None:
    """Each parameter that learns stands in the file under PEFT's name, to the bit (row 22)."""
    lora.save(model, Lora(r=4), folder, base="some/model")
    saved = load_file(folder / "adapter_model.safetensors")
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = f"base_model.model.{name}" + (".weight" if name.endswith((".lora_A", ".lora_B")) else "")
            assert key in saved, f"{name} is not saved"
            assert torch.equal(saved[key], parameter)


@pytest.mark.parametrize("kind", KINDS)
def test_every_learnt_weight_is_saved(kind: str, tmp_path: Path) -> None:
    check_every_learnt_weight_is_saved(prepared(kind, Lora(r=4)), tmp_path)


def test_the_check_sees_a_head_that_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = prepared("distilbert", Lora(r=4))
    real = on_disk.new_heads
    # bug: the names that are usual, and not those that this model has
    monkeypatch.setattr(
        on_disk, "new_heads", lambda m: {n: h for n, h in real(m).items() if n in ("classifier", "score")}
    )
    with pytest.raises(AssertionError, match="pre_classifier"):
        check_every_learnt_weight_is_saved(model, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_comes_back_to_the_bit(kind: str, tmp_path: Path) -> None:
    settings = Lora(r=4, lora_alpha=3.5, use_rslora=True)
    model, fresh = prepared(kind, settings), built(kind)
    lora.save(model, settings, tmp_path, base="some/model")
    for head in lora_files.new_heads(fresh).values():
        torch.nn.init.normal_(next(head.parameters()))
    lora.restore(fresh, settings, tmp_path)
    for one, other in zip(layers(model).values(), layers(fresh).values(), strict=True):
        assert torch.equal(one.delta_weight(), other.delta_weight())
    assert torch.equal(logits(model), logits(fresh))


def check_restore_is_strict(folder: Path, damage: Any) -> None:
    model = prepared("distilbert", Lora(r=4))
    lora.save(model, Lora(r=4), folder, base="some/model")
    file = folder / "adapter_model.safetensors"
    save_file(damage(load_file(file)), file)
    try:
        lora.restore(built("distilbert"), Lora(r=4), folder)
    except RecipeError as error:
        assert error.where == str(folder)
        return
    raise AssertionError("a tensor was passed over in silence")


def lost(part: str) -> Any:
    return lambda saved: {name: tensor for name, tensor in saved.items() if part not in name}


DAMAGE = {
    "an A lost": lost("layer.0.attention.q_lin.lora_A"),
    "a B lost": lost("layer.0.attention.q_lin.lora_B"),
    "a head lost": lost("pre_classifier"),
    "a tensor too many": lambda saved: saved | {"base_model.model.other.weight": torch.zeros(2)},
    "a layer of another model": lambda saved: {name.replace("layer.0", "layer.9"): t for name, t in saved.items()},
    "a rank of one": lambda saved: {n: t[:1].clone() if n.endswith("lora_A.weight") else t for n, t in saved.items()},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_restore_is_strict(damage: str, tmp_path: Path) -> None:
    """A rank of one would fit every other by broadcasting."""
    check_restore_is_strict(tmp_path, DAMAGE[damage])


def test_the_check_sees_a_tensor_that_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora, "restore", lambda model, settings, folder: lora.prepare(model, settings, 0))
    with pytest.raises(AssertionError, match="silence"):
        check_restore_is_strict(tmp_path, DAMAGE["a head lost"])


def test_a_folder_without_an_adapter_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        lora.restore(built("llama"), Lora(), tmp_path)
