"""New tokens: where their rows start, that they alone learn, and that they come back (INVARIANTS rows 20 and 21)."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import pegbox
from pegbox.errors import RecipeError
from pegbox.methods import METHODS, lora, lora_files
from pegbox.methods import saved as on_disk
from pegbox.models import new_tokens
from pegbox.models.load import load_model, load_tokenizer
from pegbox.models.new_tokens import NewEmbeddings, NewRows, join, new_rows
from pegbox.recipe import Adapter, Lora
from tiny_folder import causal_folder, chat_recipe, encoder_decoder_folder, encoder_folder, write_rows

TOKENS = ("<order>", "<the price>")
SETTINGS: dict[str, Any] = {"lora": Lora(r=4), "adapter": Adapter(bottleneck_size=4)}
HEADS = {"llama": "causal_lm", "untied": "causal_lm"}


def folder_of(kind: str, root: Path) -> Path:
    if kind in ("bert", "t5", "bart"):
        return encoder_folder(root) if kind == "bert" else encoder_decoder_folder(root, kind)
    folder = causal_folder(root, spread=0.3)
    if kind == "untied":
        model = AutoModelForCausalLM.from_pretrained(folder)
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().flip(0).clone())
        model.save_pretrained(folder)
    return folder


def grown(folder: Path, kind: str, *, apart: bool, tokens: tuple[str, ...] = TOKENS, **options: Any) -> Any:
    labels = () if kind in HEADS else ("no", "yes")
    head = HEADS.get(kind, "sequence_classification")
    return load_model(folder, head, labels=labels, add_tokens=tokens, apart=apart, **options)


def ids_with(folder: Path, text: str = "two <order> one <the price> end") -> torch.Tensor:
    tokenizer = load_tokenizer(folder, TOKENS)
    ids = [*tokenizer(text)["input_ids"]]
    assert sum(token in ids for token in tokenizer.convert_tokens_to_ids(list(TOKENS))) == 2
    return torch.tensor(
        [ids + [tokenizer.eos_token_id] * (tokenizer.eos_token_id is not None and ids[-1] != tokenizer.eos_token_id)]
    )


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model(ids).logits
    return out


KINDS = ["llama", "untied", "bert", "t5", "bart"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_token_starts_at_the_mean_of_its_pieces_and_old_ones_stay(kind: str, tmp_path: Path) -> None:
    folder = folder_of(kind, tmp_path)
    plain, model, before = (
        grown(folder, kind, apart=False, tokens=()),
        grown(folder, kind, apart=False),
        load_tokenizer(folder),
    )
    old, new = plain.get_input_embeddings().weight, model.get_input_embeddings().weight
    assert torch.equal(new[: len(before)], old[: len(before)])
    for row, token in enumerate(TOKENS, start=len(before)):
        pieces = before.encode(token, add_special_tokens=False)
        torch.testing.assert_close(new[row], old[pieces].mean(0), rtol=0, atol=1e-7)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("kind", ["llama", "untied"])
def test_tied_weights_stay_tied_and_others_apart(kind: str, apart: bool, tmp_path: Path) -> None:
    model = grown(folder_of(kind, tmp_path), kind, apart=apart)
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    tied = kind == "llama"
    assert (inputs.weight is outputs.weight) is tied is model.config.tie_word_embeddings
    if apart:
        assert (inputs.rows is outputs.rows) is tied and len(new_rows(model)) == (1 if tied else 2)
    if not tied:
        tokenizer = load_tokenizer(tmp_path)
        pieces = tokenizer.encode(TOKENS[0], add_special_tokens=False)
        torch.testing.assert_close(outputs.weight[len(tokenizer)], outputs.weight[pieces].mean(0))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_held_apart_compute_the_same(kind: str, tmp_path: Path) -> None:
    folder = folder_of(kind, tmp_path)
    ids = ids_with(folder)
    torch.testing.assert_close(
        logits(grown(folder, kind, apart=True), ids), logits(grown(folder, kind, apart=False), ids), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("kind", ["llama", "untied", "bart"])
def test_the_gradient_of_the_rows_is_that_of_the_whole_matrix(kind: str, tmp_path: Path) -> None:
    folder = folder_of(kind, tmp_path)
    ids, whole, parted = ids_with(folder), grown(folder, kind, apart=False), grown(folder, kind, apart=True)
    for model in (whole, parted):
        model(ids).logits.logsumexp(-1).sum().backward()
    for name, layer in new_rows(parted).items():
        weight = whole.get_submodule(name).weight.grad
        torch.testing.assert_close(layer.rows.grad, weight[layer.first : layer.first + 2], rtol=1e-4, atol=1e-6)
        assert layer.rows.grad.abs().max() > 0


def trained(folder: Path, kind: str, method: str) -> Any:
    """Two steps, in which just what shall learn does."""
    model = grown(folder, kind, apart=True, seed=4)
    METHODS[method].prepare(model, SETTINGS[method], 0)
    learnt = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {f"{name}.rows" for name in new_rows(model)} <= learnt.keys()
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if name not in learnt}
    optimizer = torch.optim.SGD(learnt.values(), lr=0.05)
    ids, before = ids_with(folder), {name: p.detach().clone() for name, p in learnt.items()}
    for _ in range(2):
        model(ids).logits.logsumexp(-1).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all(torch.equal(model.get_parameter(name), tensor) for name, tensor in frozen.items())
    for name in new_rows(model):
        assert not torch.equal(learnt[f"{name}.rows"], before[f"{name}.rows"])
    return model


def check_rows_come_back(kind: str, method: str, root: Path) -> None:
    """To the bit, and in a file far smaller than the embeddings."""
    folder = folder_of(kind, root / "base")
    model, ids = trained(folder, kind, method), ids_with(folder)
    METHODS[method].save(model, SETTINGS[method], root / "saved", str(folder))
    again = grown(folder, kind, apart=True, seed=9)
    METHODS[method].restore(again, None, root / "saved")
    assert torch.equal(logits(again, ids), logits(model, ids))
    stored = {n: t for file in (root / "saved").glob("*.safetensors") for n, t in load_file(file).items()}
    whole = len(model.get_input_embeddings().weight)
    assert not [name for name, tensor in stored.items() if len(tensor) == whole]


@pytest.mark.parametrize("method", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_were_learnt_come_back(kind: str, method: str, tmp_path: Path) -> None:
    check_rows_come_back(kind, method, tmp_path)


def test_the_check_sees_rows_that_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_disk, "loose_weights", lambda model: {})
    with pytest.raises(AssertionError):
        check_rows_come_back("llama", "lora", tmp_path)


def test_the_check_sees_an_adapter_that_balloons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = lora_files.peft_names
    monkeypatch.setattr(lora_files, "peft_names", lambda m: real(m) | {"all": m.get_input_embeddings().weight.data})
    with pytest.raises(AssertionError):
        check_rows_come_back("llama", "lora", tmp_path)


@pytest.mark.filterwarnings("ignore:::peft")
@pytest.mark.parametrize("kind", ["llama", "untied", "bert"])
def test_peft_loads_our_rows_over_a_model_of_the_same_size(kind: str, tmp_path: Path) -> None:
    folder = folder_of(kind, tmp_path / "base")
    model, ids = trained(folder, kind, "lora"), ids_with(folder)
    lora.save(model, SETTINGS["lora"], tmp_path / "saved", str(folder))
    auto = AutoModelForCausalLM if kind in HEADS else AutoModelForSequenceClassification
    base = auto.from_pretrained(folder, **({} if kind in HEADS else {"num_labels": 2}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        base.resize_token_embeddings(len(load_tokenizer(folder, TOKENS)), mean_resizing=False)
        theirs = PeftModel.from_pretrained(base, str(tmp_path / "saved")).eval()
    torch.testing.assert_close(logits(theirs, ids), logits(model, ids), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:::peft")
def test_we_load_rows_that_peft_has_trained(tmp_path: Path) -> None:
    folder = folder_of("llama", tmp_path / "base")
    tokenizer, ids = load_tokenizer(folder, TOKENS), ids_with(folder)
    base = grown(folder, "llama", apart=False, kernels=False)
    new = tokenizer.convert_tokens_to_ids(list(TOKENS))
    config = LoraConfig(
        r=3, lora_alpha=5, target_modules=["q_proj"], trainable_token_indices=new, task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = get_peft_model(base, config)
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.3)
        theirs.save_pretrained(str(tmp_path / "saved"), save_embedding_layers=False)
    ours = grown(folder, "llama", apart=True)
    lora.restore(ours, None, tmp_path / "saved")
    torch.testing.assert_close(logits(ours, ids), logits(theirs.eval(), ids), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "untied", "bart"])
def test_a_merged_model_holds_the_rows_in_its_own_weights(kind: str, tmp_path: Path) -> None:
    folder = folder_of(kind, tmp_path / "base")
    model, ids = trained(folder, kind, "lora"), ids_with(folder)
    said = logits(model, ids)
    lora.merge(model, SETTINGS["lora"])
    assert not [module for module in model.modules() if isinstance(module, NewRows)]
    torch.testing.assert_close(logits(model, ids), said, rtol=0, atol=1e-5)
    model.save_pretrained(tmp_path / "whole")
    auto = AutoModelForCausalLM if kind in HEADS else AutoModelForSequenceClassification
    again = auto.from_pretrained(tmp_path / "whole").eval()
    assert torch.allclose(logits(again, ids), said, rtol=0, atol=1e-5)
    tied = again.get_input_embeddings().weight is getattr(again.get_output_embeddings(), "weight", None)
    assert tied is (kind == "llama") and join(model) is None


def test_a_token_that_is_known_is_refused(tmp_path: Path) -> None:
    folder = causal_folder(tmp_path)
    with pytest.raises(RecipeError, match="already") as refusal:
        load_tokenizer(folder, ("<new>", load_tokenizer(folder).eos_token))
    assert refusal.value.where == "model.add_tokens"


def test_new_rows_of_an_embedding_that_scales_are_scaled() -> None:
    class Scaled(torch.nn.Embedding):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return super().forward(ids) * 3

    base = Scaled(6, 2, padding_idx=5)
    layer = NewEmbeddings(base, torch.nn.Parameter(torch.ones(2, 2)), first=4)
    assert torch.equal(
        layer(torch.tensor([4, 0, 5])), torch.stack([torch.full((2,), 3.0), base.weight[0] * 3, torch.full((2,), 3.0)])
    )


# ---- whole runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", [{"kind": "lora", "r": 4}, "full", {"kind": "adapter"}, {"kind": "freeze", "parts": ["embeddings"]}]
)
def test_a_run_learns_to_say_a_new_token(method: Any, tmp_path: Path) -> None:
    """Its answers, from the saved folder, hold what no old token could be; in tokens it is one."""
    model = causal_folder(tmp_path / "model", spread=0.3)
    rows = [{"prompt": f"say {n}", "completion": "<order> <the price>"} for n in range(60)]
    recipe = chat_recipe(model, write_rows(tmp_path / "rows.jsonl", rows), method=method)
    recipe |= {"model": {"name": str(model), "add_tokens": list(TOKENS)}}
    recipe["data"] |= {"allow": ["near_duplicate"]}
    recipe["train"] |= {"num_train_epochs": 8, "learning_rate": 3e-2 if method != "full" else 1e-2, "report_to": []}
    run = pegbox.train(recipe, run_dir=tmp_path / "run")
    said = [line["answers"]["tuned"] for line in run.folder.read_lines("predictions.jsonl")]
    assert said.count("<order> <the price>") > 0.8 * len(said)
    assert len(run.task.renderer.tokenizer.encode("<order>", add_special_tokens=False)) == 1


@pytest.mark.parametrize("method", ["freeze", {"kind": "peft", "peft_type": "IA3"}])
def test_new_tokens_that_would_not_learn_are_refused(method: Any, tmp_path: Path) -> None:
    recipe = {"model": {"name": "m", "add_tokens": ["<x>"]}, "task": "chat", "data": "/rows", "method": method}
    with pytest.raises(RecipeError, match="would not learn"):
        pegbox.recipe.load(recipe)


def test_the_means_of_pieces_are_not_the_means_of_other_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that was drawn at random, as Transformers has it, is seen."""
    monkeypatch.setattr(
        new_tokens, "grow", lambda model, before, after, apart: model.resize_token_embeddings(len(after))
    )
    with pytest.raises(AssertionError):
        test_a_new_token_starts_at_the_mean_of_its_pieces_and_old_ones_stay("llama", tmp_path)


def test_a_token_of_white_space_starts_at_the_mean_of_all(tmp_path: Path) -> None:
    """Many tokenizers drop it: there are no pieces, and a mean of nothing is not a number."""
    folder = folder_of("bert", tmp_path)
    before = load_tokenizer(folder)
    assert before.encode("\n", add_special_tokens=False) == []
    weight = grown(folder, "bert", apart=False, tokens=("\n",)).get_input_embeddings().weight
    torch.testing.assert_close(weight[len(before)], weight[: len(before)].mean(0))
