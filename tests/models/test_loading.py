"""From a folder to a model and back: no weight is random unnoticed (INVARIANTS rows 12, 20, 22)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    BertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from pegbox.errors import RecipeError
from pegbox.kernels.linear import FastLinear
from pegbox.models import load
from pegbox.models.batch import pad
from pegbox.models.load import load_model, load_tokenizer, load_weights
from pegbox.models.packing import enable_packing
from tiny_folder import causal_folder
from tiny_models import examples, save_tokenizer, tiny, tiny_classifier

LABELS = ("no", "perhaps", "yes")


def saved(model: Any, folder: Path) -> Path:
    """The folder with the model and a tokenizer in it."""
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Change the tensors of a saved model."""
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})


def without(*names: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda held: {name: tensor for name, tensor in held.items() if not any(part in name for part in names)}


def same_weights(one: Any, other: Any) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---- what the folder holds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_model_is_loaded_to_the_bit_with_the_ties_that_its_config_says(name: str, tied: bool, tmp_path: Path) -> None:
    model = tiny(name, tie_word_embeddings=tied)
    loaded = load_model(saved(model, tmp_path), "causal_lm")
    assert same_weights(model, loaded)
    shared = loaded.get_input_embeddings().weight.data_ptr() == loaded.get_output_embeddings().weight.data_ptr()
    assert shared == tied


def test_a_loaded_model_is_quiet_and_on_its_device(tmp_path: Path) -> None:
    folder = saved(tiny("llama"), tmp_path)
    for kernels in (False, True):
        model = load_model(folder, "causal_lm", device=torch.device("meta"), kernels=kernels, dtype=torch.bfloat16)
        assert not any(module.training for module in model.modules())
        assert model.device.type == "meta" and model.dtype == torch.bfloat16
        assert any(isinstance(module, FastLinear) for module in model.modules()) == kernels


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "bloom", "mistral"])
def test_kernels_do_not_change_what_a_model_says(name: str, tmp_path: Path) -> None:
    folder, given = saved(tiny(name), tmp_path), pad(examples([7, 3]), 0).inputs
    with torch.no_grad():
        fast, plain = (load_model(folder, "causal_lm", kernels=kernels)(**given).logits for kernels in (True, False))
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-5)


def test_the_receipt_is_told_which_kernels_compute(tmp_path: Path) -> None:
    folder = saved(tiny("llama"), tmp_path)
    assert load.kernels_of(load_model(folder, "causal_lm", kernels=False)) == {"attention": "sdpa", "linear": "plain"}
    model = load_model(folder, "causal_lm")
    assert load.kernels_of(model)["linear"] == ("onednn" if torch.backends.mkldnn.is_available() else "plain")
    assert enable_packing(model, examples([9, 5]))
    assert load.kernels_of(model)["attention"] == "packed" and "dropout" not in load.kernels_of(model)
    noisy = saved(tiny("gpt2", resid_pdrop=0.1), tmp_path / "noisy")
    assert load.kernels_of(load_model(noisy, "causal_lm"))["dropout"] == "16 bits"
    assert "dropout" not in load.kernels_of(load_model(noisy, "causal_lm", kernels=False))


def check_nothing_is_random(folder: Path, head: str, labels: tuple[str, ...] = ()) -> None:
    """The folder is refused, or every weight of the model but a new head's is the same whatever the seed."""
    try:
        one, other = (load_model(folder, head, labels=labels, seed=seed) for seed in (1, 2))
    except RecipeError as error:
        assert error.exit_code == 2 and error.cure
        return
    differing = [n for n, p in one.named_parameters() if not torch.equal(p, other.get_parameter(n))]
    stray = [name for name in differing if not (labels and load.is_head(one, name))]
    assert not stray, f"drawn at random: {stray}"


LACKING = [
    ("llama", ("layers.1.mlp.up_proj",), "causal_lm", ()),
    ("llama", ("lm_head",), "causal_lm", ()),
    ("llama", ("norm.weight",), "sequence_classification", LABELS),
    ("bert", ("layer.0.attention",), "sequence_classification", LABELS),
    ("bert", ("embeddings",), "sequence_classification", LABELS),
]


@pytest.mark.parametrize(("name", "lost", "head", "labels"), LACKING, ids=lambda value: str(value))
def test_a_checkpoint_that_lacks_weights_is_refused(
    name: str, lost: tuple[str, ...], head: str, labels: tuple[str, ...], tmp_path: Path
) -> None:
    model = tiny(name, tie_word_embeddings=False) if name == "llama" else tiny(name, head=AutoModel)
    rewrite(saved(model, tmp_path), without(*lost))
    with pytest.raises(RecipeError, match=lost[0].split(".")[-1]):
        load_model(tmp_path, head, labels=labels)


def test_a_tied_output_layer_need_not_be_stored(tmp_path: Path) -> None:
    model = tiny("llama", tie_word_embeddings=True)
    saved(model, tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    assert same_weights(load_model(tmp_path, "causal_lm"), model)


def test_an_encoder_is_no_language_model(tmp_path: Path) -> None:
    saved(tiny("bert", head=AutoModel), tmp_path)
    with pytest.raises(RecipeError, match="random"):
        load_model(tmp_path, "causal_lm")


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "mpnet", "llama", "gpt2"])
def test_a_new_head_follows_the_seed_and_nothing_else_does(name: str, tmp_path: Path) -> None:
    folder = saved(tiny(name, head=AutoModel), tmp_path)
    check_nothing_is_random(folder, "sequence_classification", LABELS)
    model = load_model(folder, "sequence_classification", labels=LABELS, seed=1)
    assert same_weights(model, load_model(folder, "sequence_classification", labels=LABELS, seed=1))
    assert not same_weights(model, load_model(folder, "sequence_classification", labels=LABELS, seed=2))
    assert model.config.id2label == dict(enumerate(LABELS)) and model.config.num_labels == 3


def test_the_pooler_belongs_to_the_head_where_the_checkpoint_has_none(tmp_path: Path) -> None:
    model = BertModel(tiny("bert", head=AutoModel).config, add_pooling_layer=False)
    check_nothing_is_random(saved(model, tmp_path), "sequence_classification", LABELS)
    with pytest.raises(RecipeError, match=r"classifier|pooler"):
        load_model(tmp_path, "sequence_classification")


def test_a_masked_language_models_own_head_is_no_obstacle(tmp_path: Path) -> None:
    check_nothing_is_random(saved(tiny("bert", head=AutoModelForMaskedLM), tmp_path), "sequence_classification", LABELS)


def test_the_check_sees_a_head_that_is_taken_for_granted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite(saved(tiny("bert", head=AutoModel), tmp_path), without("layer.0.attention"))
    check_nothing_is_random(tmp_path, "sequence_classification", LABELS)
    real = load._load
    monkeypatch.setattr(load, "_load", lambda *given: (real(*given)[0], [], []))  # bug: nobody looks what was lacking
    with pytest.raises(AssertionError, match="attention"):
        check_nothing_is_random(tmp_path, "sequence_classification", LABELS)


def test_a_trained_classifier_is_kept_where_the_classes_are_as_many(tmp_path: Path) -> None:
    trained = tiny_classifier("bert", num_labels=3)
    saved(trained, tmp_path)
    assert same_weights(load_model(tmp_path, "sequence_classification", labels=LABELS), trained)
    assert same_weights(load_model(tmp_path, "sequence_classification"), trained)


def test_a_trained_classifier_of_other_classes_is_drawn_anew(tmp_path: Path) -> None:
    trained = tiny_classifier("bert", num_labels=5)
    check_nothing_is_random(saved(trained, tmp_path), "sequence_classification", LABELS)
    model = load_model(tmp_path, "sequence_classification", labels=LABELS)
    assert model.classifier.weight.shape == (3, 32)
    assert torch.equal(model.get_input_embeddings().weight, trained.get_input_embeddings().weight)


def test_loading_draws_nothing_from_the_callers_generator(tmp_path: Path) -> None:
    folder = saved(tiny("bert", head=AutoModel), tmp_path)
    state = torch.get_rng_state()
    load_model(folder, "sequence_classification", labels=LABELS, seed=3)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("break_it", ["cut", "shape", "config", "weights"])
def test_a_damaged_folder_is_a_clear_error(break_it: str, tmp_path: Path) -> None:
    folder = saved(tiny("llama"), tmp_path)
    weights = folder / "model.safetensors"
    if break_it == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif break_it == "shape":
        rewrite(folder, lambda held: held | {"model.norm.weight": torch.ones(7)})
    elif break_it == "config":
        (folder / "config.json").write_text("{}")
    else:
        weights.rename(folder / "pytorch_model.bin")  # a pickle: never read
    with pytest.raises(RecipeError) as error:
        load_model(folder, "causal_lm")
    assert error.value.where == "model"


# ---- tokenizer -------------------------------------------------------------------------------------------------------


def test_a_tokenizer_without_padding_pads_with_its_end(tmp_path: Path) -> None:
    made = save_tokenizer(tmp_path)
    assert load_tokenizer(tmp_path).pad_token_id == made.pad_token_id == 0
    made._tokenizer.no_padding()
    bare = PreTrainedTokenizerFast(tokenizer_object=made._tokenizer, eos_token="</s>")
    bare.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).pad_token_id == 2
    PreTrainedTokenizerFast(tokenizer_object=made._tokenizer).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="padding"):
        load_tokenizer(tmp_path)


def test_a_folder_without_a_tokenizer_is_a_clear_error(tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="tokenizer"):
        load_tokenizer(tmp_path)


def check_prediction_ignores_padding(folder: Path) -> None:
    """A row's class scores are the same alone, in a batch, and behind more padding on the right."""
    model, pad_id = load_model(folder, "sequence_classification"), load_tokenizer(folder).pad_token_id
    given = [example for example in examples([4, 9, 1])]
    with torch.no_grad():
        batched = model(**pad(given, pad_id).inputs).logits
        for example, row in zip(given, batched, strict=True):
            torch.testing.assert_close(model(**pad([example], pad_id).inputs).logits[0], row, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
@pytest.mark.parametrize("wrong", [None, 9], ids=["no padding token", "another padding token"])
def test_a_classifier_pools_at_the_last_real_token(name: str, wrong: int | None, tmp_path: Path) -> None:
    """Decoders are pooled by the padding id of the *config*, which may be absent or not the tokenizer's."""
    folder = saved(tiny_classifier(name, num_labels=3), tmp_path)
    config = json.loads((folder / "config.json").read_text()) | {"pad_token_id": wrong}
    (folder / "config.json").write_text(json.dumps(config))
    check_prediction_ignores_padding(folder)


def test_the_check_sees_a_classifier_that_pools_padding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tiny_classifier("llama", num_labels=3), tmp_path)
    real = load_model

    def pooled_elsewhere(*args: Any, **options: Any) -> Any:
        model = real(*args, **options)
        model.config.pad_token_id = 9
        return model

    monkeypatch.setitem(globals(), "load_model", pooled_elsewhere)
    with pytest.raises(AssertionError):
        check_prediction_ignores_padding(folder)


# ---- weights put back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shard", ["1GB", "10KB"])
def test_saved_weights_come_back_to_the_bit(tied: bool, shard: str, tmp_path: Path) -> None:
    learnt, model = (tiny("llama", tie_word_embeddings=tied, seed=seed) for seed in (1, 2))
    learnt.save_pretrained(tmp_path, max_shard_size=shard)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard == "10KB")
    load_weights(model, tmp_path)
    assert same_weights(model, learnt)
    shared = model.get_input_embeddings().weight.data_ptr() == model.get_output_embeddings().weight.data_ptr()
    assert shared == tied


# ---- memory of its own -----------------------------------------------------------------------------------------------


def mapped(model: PreTrainedModel, folder: Path) -> set[str]:
    """The names of weights that lie in a mapping of a file of the folder, so that they change when it is rewritten."""
    spans = []
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        if str(folder) in line:
            begin, end = line.split()[0].split("-")
            spans.append((int(begin, 16), int(end, 16)))
    return {
        name
        for name, weight in model.named_parameters()
        if any(begin <= weight.data_ptr() < end for begin, end in spans)
    }


def check_weights_have_memory_of_their_own(folder: Path) -> None:
    model = load.load_model(folder, "causal_lm")
    assert mapped(model, folder) == set()
    assert {weight.data_ptr() % 64 for weight in model.parameters()} == {0}
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight  # type: ignore[union-attr]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_weights_have_memory_of_their_own_and_tied_ones_stay_tied(tmp_path: Path) -> None:
    check_weights_have_memory_of_their_own(causal_folder(tmp_path / "model"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_weights_that_are_a_view_of_their_file_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_copy_out", lambda model: None)
    with pytest.raises(AssertionError):
        check_weights_have_memory_of_their_own(causal_folder(tmp_path / "model"))
