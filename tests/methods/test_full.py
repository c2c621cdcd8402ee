"""Full fine-tuning: every weight learns, every weight is saved, and exactly those come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, load_model, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from pegbox.errors import RecipeError
from pegbox.kernels import linear
from pegbox.kernels.attention import IMPLEMENTATION
from pegbox.methods import full
from pegbox.models.packing import enable_packing
from pegbox.recipe import Full
from tiny_models import examples, rows, tiny, tiny_classifier

SETTINGS = Full()
IDS = torch.tensor(rows([9]))


def trained(model: Any, steps: int = 2) -> Any:
    """The model after a few steps on random rows, with kernels and packed attention in use as in a run."""
    linear.install(model)
    if model.can_generate():
        assert enable_packing(model, examples([9, 5, 7]))
    full.prepare(model, SETTINGS, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        model(IDS).logits.logsumexp(-1).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def built(kind: str, seed: int = 0) -> Any:
    if kind == "bert":
        return tiny_classifier("bert", num_labels=3, seed=seed)
    return tiny("llama", tie_word_embeddings=kind == "tied", seed=seed)


KINDS = ["tied", "untied", "bert"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_learns(kind: str) -> None:
    model = built(kind).requires_grad_(False)
    full.prepare(model, SETTINGS, seed=0)
    assert all(parameter.requires_grad for parameter in model.parameters())


def check_every_learnt_weight_is_saved(model: Any, folder: Path) -> None:
    full.save(model, SETTINGS, folder, base="")
    saved = {name: t for file in folder.glob("*.safetensors") for name, t in load_file(file).items()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert name in saved, f"{name} is not saved"
            assert torch.equal(saved[name], parameter)


@pytest.mark.parametrize("kind", KINDS)
def test_every_learnt_weight_is_saved(kind: str, tmp_path: Path) -> None:
    check_every_learnt_weight_is_saved(trained(built(kind)), tmp_path)


def test_the_check_sees_a_head_that_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full, "save", lambda model, settings, folder, base: model.base_model.save_pretrained(folder))
    with pytest.raises(AssertionError, match="not saved"):
        check_every_learnt_weight_is_saved(trained(built("bert")), tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_plain_transformers_loads_what_was_trained_and_nothing_of_ours(kind: str, tmp_path: Path) -> None:
    model = trained(built(kind))
    full.save(model, SETTINGS, tmp_path, base="")
    told = (tmp_path / "config.json").read_text()
    assert IMPLEMENTATION not in told and "attn_implementation" not in told
    assert not [file for file in tmp_path.iterdir() if file.suffix not in (".json", ".safetensors")]
    auto = AutoModelForSequenceClassification if kind == "bert" else AutoModelForCausalLM
    loaded, info = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS).logits, model.eval()(IDS).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_restore_gives_back_the_trained_model_to_the_bit(kind: str, tmp_path: Path) -> None:
    model, fresh = trained(built(kind)), built(kind)
    full.save(model, SETTINGS, tmp_path, base="")
    linear.install(fresh)
    full.restore(fresh, SETTINGS, tmp_path)
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in fresh.state_dict().items())
    with torch.no_grad():
        assert torch.equal(fresh(IDS).logits, model.eval()(IDS).logits)


def check_restore_is_strict(folder: Path) -> None:
    """A weight too few or too many in the folder is an error, never passed over."""
    full.save(trained(built("untied")), SETTINGS, folder, base="")
    whole = load_file(folder / "model.safetensors")
    lacking = {name: tensor for name, tensor in whole.items() if "layers.1.mlp.up_proj" not in name}
    for tensors in (lacking, whole | {"model.layers.7.mlp.up_proj.weight": torch.zeros(3)}):
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        try:
            full.restore(built("untied"), SETTINGS, folder)
        except RecipeError as error:
            assert "up_proj" in str(error) and error.where == str(folder)
            continue
        raise AssertionError("weights were passed over in silence")


def test_restore_is_strict(tmp_path: Path) -> None:
    check_restore_is_strict(tmp_path)


def test_the_check_sees_weights_that_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lenient(model: Any, settings: Any, folder: Path) -> None:
        for file in sorted(folder.glob("*.safetensors")):
            load_model(model, file, strict=False)

    monkeypatch.setattr(full, "restore", lenient)
    with pytest.raises(AssertionError, match="silence"):
        check_restore_is_strict(tmp_path)


def test_a_damaged_file_is_a_clear_error(tmp_path: Path) -> None:
    full.save(built("tied"), SETTINGS, tmp_path, base="")
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(RecipeError, match="cannot be loaded"):
        full.restore(built("tied"), SETTINGS, tmp_path)
