"""The head of a masked language model: drawn whole or brought along, learnt whole or by updates, tied as it was.

INVARIANTS rows 20, 21 and 22.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForMaskedLM, BertForPreTraining

from pegbox.errors import RecipeError
from pegbox.methods import METHODS, lora
from pegbox.methods import saved as on_disk
from pegbox.models import heads
from pegbox.models.heads import head_weights
from pegbox.models.load import heads_of, load_model
from pegbox.recipe import Full, Lora
from tiny_masked import masked
from tiny_models import rows, save_tokenizer

KINDS = ("bert", "roberta", "mpnet", "distilbert", "modernbert", "albert", "electra", "deberta")
IDS = torch.tensor(rows([11, 11]))
SETTINGS = {"full": Full(), "lora": Lora(r=4, lora_alpha=6)}


def base_of(kind: str, folder: Path, **options: Any) -> Path:
    """A checkpoint without a head."""
    model = masked(kind, **options).float()
    type(model.base_model)(model.config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def with_head(kind: str, folder: Path) -> Path:
    masked(kind).float().save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def is_tied(model: Any) -> bool:
    return bool(model.get_output_embeddings().weight is model.get_input_embeddings().weight)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(IDS).logits
    return found


def learn(model: Any, steps: int = 3) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(steps):
        torch.nn.functional.cross_entropy(model(IDS).logits.flatten(0, 1), IDS.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_head_follows_the_seed_and_nothing_else_does(kind: str, tmp_path: Path) -> None:
    base = base_of(kind, tmp_path)
    one, same, other = (load_model(base, "masked_lm", seed=seed) for seed in (1, 1, 2))
    assert is_tied(one) and head_weights(one)
    assert all(torch.equal(p, same.get_parameter(n)) for n, p in one.named_parameters())
    differing = {n for n, p in one.named_parameters() if not torch.equal(p, other.get_parameter(n))}
    assert differing and differing <= head_weights(one).keys()
    untouched = AutoModel.from_pretrained(base)
    for name, tensor in untouched.state_dict().items():
        if "pooler" not in name:
            assert torch.equal(tensor, one.base_model.state_dict()[name])


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_that_comes_along_is_kept_to_the_bit_and_is_not_new(kind: str, tmp_path: Path) -> None:
    folder = with_head(kind, tmp_path)
    model = load_model(folder, "masked_lm", seed=3)
    assert torch.equal(logits(model), logits(AutoModelForMaskedLM.from_pretrained(folder)))
    assert heads_of(folder) == {"masked_lm"} and head_weights(model) == {} == heads.new_heads(model)
    updated = lora.targets(model, Lora())
    inside = {name for name in updated if not name.startswith(f"{model.base_model_prefix}.")}
    assert inside, "the head's own linear layers get an update, as a language model's do"
    assert not any(model.get_submodule(name) is model.get_output_embeddings() for name in updated)


def test_a_head_is_found_whatever_class_it_was_saved_by(tmp_path: Path) -> None:
    BertForPreTraining(masked("bert").config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    assert heads_of(tmp_path) == {"masked_lm"} and head_weights(load_model(tmp_path, "masked_lm")) == {}


@pytest.mark.parametrize("lost", ["transform.dense", "predictions.bias", "encoder.layer.0"])
def test_half_a_head_is_refused(lost: str, tmp_path: Path) -> None:
    folder = with_head("bert", tmp_path)
    held = load_file(folder / "model.safetensors")
    save_file({n: t for n, t in held.items() if lost not in n}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(RecipeError, match="random"):
        load_model(folder, "masked_lm")


def saved(kind: str, method: str, root: Path, unused: str = "", **options: Any) -> tuple[Path, Path, Any]:
    """The base's folder, the trained model's folder, and the trained model; all new weights learnt but the unused."""
    base = base_of(kind, root / "base", **options)
    model = load_model(base, "masked_lm", seed=4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    METHODS[method].prepare(model, SETTINGS[method], 0)
    frozen = model.get_input_embeddings().weight
    learn(model)
    if method == "lora":
        moved = {n for n, t in model.state_dict().items() if n in before and not torch.equal(t, before[n])}
        assert head_weights(model).keys() - {unused} <= moved, "every new weight learns"
        assert not frozen.requires_grad and torch.equal(frozen, before[embeddings(model)])
    METHODS[method].save(model, SETTINGS[method], root / "model", str(base))
    return base, root / "model", model


def embeddings(model: Any) -> str:
    return next(f"{name}.weight" for name, module in model.named_modules() if module is model.get_input_embeddings())


def check_what_was_saved_comes_back(kind: str, method: str, root: Path) -> None:
    """By pegbox to the bit; by plain Transformers and PEFT up to the order of summation; nothing tied is stored twice."""
    base, folder, model = saved(kind, method, root)
    again = load_model(base, "masked_lm", seed=9)
    METHODS[method].restore(again, None, folder)
    assert torch.equal(logits(again), logits(model))
    assert is_tied(again) == is_tied(model) is True
    if method == "full":
        plain, stored = AutoModelForMaskedLM.from_pretrained(folder), load_file(folder / "model.safetensors")
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            plain = PeftModel.from_pretrained(AutoModelForMaskedLM.from_pretrained(base), str(folder))
        stored = load_file(folder / "adapter_model.safetensors")
    torch.testing.assert_close(logits(plain.eval()), logits(model), rtol=0, atol=1e-5)
    vocabulary = [
        name for name, tensor in stored.items() if tensor.ndim == 2 and len(tensor) == model.config.vocab_size
    ]
    assert len(vocabulary) == (method == "full"), vocabulary


@pytest.mark.filterwarnings("ignore:::peft")
@pytest.mark.parametrize("method", SETTINGS)
@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "modernbert"])
def test_a_trained_head_is_saved_and_comes_back(kind: str, method: str, tmp_path: Path) -> None:
    check_what_was_saved_comes_back(kind, method, tmp_path)


def test_the_check_sees_a_bias_that_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_disk, "loose_weights", lambda model: {})
    with pytest.raises(AssertionError):
        check_what_was_saved_comes_back("bert", "lora", tmp_path)


def test_the_check_sees_an_output_layer_that_is_saved_with_the_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "head_weights", lambda model: dict(model.named_parameters()))  # bug: ties are not seen
    with pytest.raises(AssertionError):
        check_what_was_saved_comes_back("bert", "lora", tmp_path)


@pytest.mark.filterwarnings("ignore:::peft")
def test_an_output_layer_that_is_not_tied_learns_and_is_saved(tmp_path: Path) -> None:
    unused = "cls.predictions.bias"  # Transformers ties it to the layer's own bias only where all is tied
    base, folder, model = saved("bert", "lora", tmp_path, unused, tie_word_embeddings=False)
    assert not is_tied(model) and list(heads.new_heads(model)) == ["cls"] and heads.loose_weights(model) == {}
    again = load_model(base, "masked_lm", seed=9)
    lora.restore(again, None, folder)
    assert torch.equal(logits(again), logits(model))
    plain = PeftModel.from_pretrained(AutoModelForMaskedLM.from_pretrained(base), str(folder)).eval()
    torch.testing.assert_close(logits(plain), logits(model), rtol=0, atol=1e-5)
