"""Going on from what earlier training left: a run, a checkpoint, a folder of PEFT's; never an update on an update."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import pegbox
from pegbox.errors import RecipeError
from pegbox.finished import Run, continuing, whole
from pegbox.finished.continuing import resolve
from pegbox.finished.verifying import verify
from pegbox.methods import lora_layers
from pegbox.models.load import load_tokenizer
from tiny_folder import chat_home, chat_recipe, encoder_folder

pytestmark = pytest.mark.filterwarnings("ignore:::peft")
IDS = torch.tensor([[5, 9, 23, 8, 40]])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model.eval()(IDS).logits
    return out


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEGBOX_CACHE", str(tmp_path_factory.mktemp("cache")))


def trained(home: Path, name: str, method: Any, model: str | None = None, **train: Any) -> Run:
    """The run of a method, made once."""
    if not (home / name).exists():
        recipe = chat_recipe(Path(model or home / "model"), home / "rows.jsonl", method=method)
        recipe["train"] = {"max_steps": 4, "batch_size": 8, "learning_rate": 1e-2, "report_to": [], **train}
        recipe["evaluate"] = {"max_new_tokens": 2, "few_shot": 0, "max_rows": 4}
        pegbox.train(recipe, run_dir=home / name)
    return Run(home / name)


METHODS: dict[str, Any] = {
    "lora": {"kind": "lora", "r": 4},
    "dora": {"kind": "lora", "r": 4, "use_dora": True},
    "pissa": {"kind": "lora", "r": 4, "init_lora_weights": "pissa", "use_rslora": True},
}


def check_the_merged_model_is_the_run(run: Run) -> None:
    found = resolve(str(run.path))
    assert found.source == "run, merged"
    plain = AutoModelForCausalLM.from_pretrained(found.path)
    torch.testing.assert_close(logits(plain), logits(run.load_tuned()), rtol=0, atol=1e-5)
    assert (logits(plain) - logits(run.load_base())).abs().max() > 1e-3
    tokenizer = load_tokenizer(found.path)
    assert tokenizer.chat_template == run.task.renderer.tokenizer.chat_template


@pytest.mark.parametrize("method", METHODS)
def test_an_update_is_merged_into_its_base(method: str, home: Path) -> None:
    check_the_merged_model_is_the_run(trained(home, method, METHODS[method]))


def test_the_check_sees_a_merge_that_forgets_the_update(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(home, "lora", METHODS["lora"])
    monkeypatch.setattr(lora_layers.LoraLinear, "merged_weight", lambda self: self.weight.detach())
    with pytest.raises(AssertionError):
        check_the_merged_model_is_the_run(run)


def test_a_run_is_merged_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(home, "lora", METHODS["lora"])
    first = resolve(str(run.path))
    monkeypatch.setattr(whole, "merged", None)
    assert resolve(str(run.path / "model")).path == first.path


@pytest.mark.parametrize("method", [METHODS["lora"], "full", {"kind": "adapter"}])
def test_a_run_goes_on_from_an_update_and_that_never_stands_on_another(method: Any, home: Path, tmp_path: Path) -> None:
    first = trained(home, "lora", METHODS["lora"])
    recipe = chat_recipe(first.path, home / "rows.jsonl", method=method)
    recipe["train"] = {"max_steps": 2, "batch_size": 8, "report_to": []}
    recipe["evaluate"] = {"max_new_tokens": 2, "few_shot": 0, "max_rows": 4}
    second = pegbox.train(recipe, run_dir=tmp_path / "second")
    assert second.receipt["model"]["source"] == "run, merged"
    torch.testing.assert_close(logits(second.load_base()), logits(first.load_tuned()), rtol=0, atol=1e-5)
    layers = [module for module in second.load_base().modules() if isinstance(module, lora_layers.LoraLinear)]
    assert layers == [], "the base is a plain model"
    assert (logits(second.load_tuned()) - logits(first.load_tuned())).abs().max() > 0
    checks = {check["check"]: check["ok"] for check in verify(second.path)["checks"]}
    assert checks["base model"] and checks["answers"]


def test_a_third_run_goes_on_from_the_second(home: Path, tmp_path: Path) -> None:
    second = trained(home, "again", METHODS["lora"], model=str(trained(home, "lora", METHODS["lora"]).path))
    found = resolve(str(second.path))
    plain = AutoModelForCausalLM.from_pretrained(found.path)
    torch.testing.assert_close(logits(plain), logits(second.load_tuned()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_checkpoint_is_the_model_as_it_was_then(method: str, home: Path) -> None:
    settings = METHODS.get(method, method)
    run = trained(home, f"{method} saved", settings, save_steps=2, eval_steps=4)
    early, last = (resolve(str(run.folder.checkpoints / f"step-{step}")) for step in (2, 4))
    assert early.source == "checkpoint, merged"
    models = [AutoModelForCausalLM.from_pretrained(found.path) for found in (early, last)]
    torch.testing.assert_close(logits(models[1]), logits(run.load_tuned()), rtol=0, atol=1e-5)
    assert (logits(models[0]) - logits(models[1])).abs().max() > 1e-4


def test_a_damaged_checkpoint_is_refused(home: Path, tmp_path: Path) -> None:
    run = trained(home, "lora saved", METHODS["lora"], save_steps=2, eval_steps=4)
    shutil.copytree(run.path, tmp_path / "copy")
    folder = tmp_path / "copy" / "checkpoints" / "step-2"
    (folder / "trainable.safetensors").write_bytes((folder / "trainable.safetensors").read_bytes()[:-1])
    with pytest.raises(RecipeError, match="damaged"):
        resolve(str(folder))


def test_what_cannot_be_merged_is_refused_with_the_way_out(home: Path) -> None:
    run = trained(home, "bottleneck", {"kind": "adapter"})
    with pytest.raises(RecipeError, match="not linear") as refusal:
        resolve(str(run.path))
    assert refusal.value.where == "model" and refusal.value.cure


def test_a_licence_travels_with_what_is_merged(home: Path) -> None:
    from pegbox.models.licences import licence_of

    run = trained(home, "lora", METHODS["lora"])
    known = {"id": "apache-2.0", "source": "told"}
    run.folder.write_json("receipt.json", run.receipt | {"model": run.receipt["model"] | {"licence": known}})
    licence = licence_of(resolve(str(run.path)))
    assert licence is not None and licence["id"] == "apache-2.0"


# ---- folders that PEFT wrote -----------------------------------------------------------------------------------------


def by_peft(base: Path, folder: Path, config: Any, auto: Any = AutoModelForCausalLM, **options: Any) -> torch.Tensor:
    """A folder of PEFT's, and the logits of what it holds."""
    model = get_peft_model(auto.from_pretrained(base, **options), config)
    torch.manual_seed(5)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    return logits(model)


CONFIGS = {
    "lora": LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM"),
    "dora": LoraConfig(r=3, use_dora=True, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    "ia3": IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_an_adapter_of_pefts_is_merged_into_its_base(name: str, home: Path, tmp_path: Path) -> None:
    said = by_peft(home / "model", tmp_path / "theirs", CONFIGS[name])
    found = resolve(str(tmp_path / "theirs"))
    assert found.source == "adapter, merged"
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(found.path)), said, rtol=0, atol=1e-5)


def test_a_classifier_of_pefts_keeps_its_head(tmp_path: Path) -> None:
    base = encoder_folder(tmp_path / "base", spread=0.3)
    config = LoraConfig(r=3, target_modules=["query"], task_type="SEQ_CLS")
    said = by_peft(base, tmp_path / "theirs", config, AutoModelForSequenceClassification, num_labels=4)
    model = AutoModelForSequenceClassification.from_pretrained(resolve(str(tmp_path / "theirs")).path)
    torch.testing.assert_close(logits(model), said, rtol=0, atol=1e-5)


def test_another_base_under_the_same_adapter_is_another_model(home: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(home / "model", base)
    by_peft(base, tmp_path / "theirs", CONFIGS["lora"])
    first = resolve(str(tmp_path / "theirs")).path
    weights = load_file(base / "model.safetensors")
    save_file({name: tensor + 0.01 for name, tensor in weights.items()}, base / "model.safetensors", {"format": "pt"})
    second = resolve(str(tmp_path / "theirs")).path
    assert first != second
    plain = AutoModelForCausalLM.from_pretrained(base)
    theirs = PeftModel.from_pretrained(plain, tmp_path / "theirs")
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(second)), logits(theirs), rtol=0, atol=1e-5)


def test_an_adapter_that_cannot_be_read_is_a_clear_error(home: Path, tmp_path: Path) -> None:
    by_peft(home / "model", tmp_path, CONFIGS["lora"])
    told = json.loads((tmp_path / "adapter_config.json").read_text())
    for changed in ({"base_model_name_or_path": None}, {"task_type": "QUESTION_ANS"}, {"lora_alpha": "much"}):
        (tmp_path / "adapter_config.json").write_text(json.dumps(told | changed))
        with pytest.raises(RecipeError) as refusal:
            resolve(str(tmp_path))
        assert refusal.value.cure
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(RecipeError, match="cannot be read"):
        resolve(str(tmp_path))
    assert continuing.CURE


def test_an_adapter_that_does_not_fit_is_refused(home: Path, tmp_path: Path) -> None:
    """PEFT warns of it, and draws anew what is missing."""
    by_peft(home / "model", tmp_path, CONFIGS["lora"])
    file = tmp_path / "adapter_model.safetensors"
    whole_one = load_file(file)
    half = {name: tensor for name, tensor in whole_one.items() if "layers.1" not in name}
    for tensors in (half, {name.replace("q_proj", "z_proj"): tensor for name, tensor in whole_one.items()}):
        save_file(tensors, file, {"format": "pt"})
        with pytest.raises(RecipeError, match="does not fit"):
            resolve(str(tmp_path))


def test_pickled_weights_are_never_read(home: Path, tmp_path: Path) -> None:
    by_peft(home / "model", tmp_path, CONFIGS["lora"])
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(RecipeError, match="has no adapter_model.safetensors"):
        resolve(str(tmp_path))


def test_an_adapter_on_itself_is_refused(home: Path, tmp_path: Path) -> None:
    by_peft(home / "model", tmp_path, CONFIGS["lora"])
    told = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(told | {"base_model_name_or_path": str(tmp_path)}))
    with pytest.raises(RecipeError, match="names no base model"):
        resolve(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text(json.dumps(told | {"base_model_name_or_path": "./gone"}))
    with pytest.raises(RecipeError, match="the base of the adapter"):
        resolve(str(tmp_path))


def test_half_a_merged_model_is_never_kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where one process of several writes for all, and this is another."""
    run = trained(home, "lora", METHODS["lora"])
    real = whole.save
    monkeypatch.setattr(whole, "save", lambda model, tokenizer, stops, out: tokenizer.save_pretrained(out))
    with pytest.raises(RecipeError, match="has no config.json"):
        resolve(str(run.path))
    monkeypatch.setattr(whole, "save", real)
    check_the_merged_model_is_the_run(run)


@pytest.mark.parametrize("bits", ["nf4", "int8"])
@pytest.mark.parametrize("method", [METHODS["lora"], {"kind": "peft", "peft_type": "IA3"}], ids=["lora", "ia3"])
def test_a_quantized_base_is_dequantized_before_a_merge(bits: str, method: Any, home: Path) -> None:
    name = f"{method['kind']} {bits}"
    if not (home / name).exists():
        recipe = chat_recipe(home / "model", home / "rows.jsonl", method=method)
        recipe |= {"model": {"name": str(home / "model"), "quantization": bits}}
        recipe["train"] = {"max_steps": 3, "batch_size": 8, "learning_rate": 1e-2, "report_to": []}
        recipe["evaluate"] = {"max_new_tokens": 2, "few_shot": 0, "max_rows": 4}
        pegbox.train(recipe, run_dir=home / name)
    run = Run(home / name)
    plain = AutoModelForCausalLM.from_pretrained(resolve(str(run.path)).path)
    torch.testing.assert_close(logits(plain), logits(run.load_tuned()), rtol=0, atol=1e-4)
    assert plain.dtype == torch.float32 and "quantization_config" not in plain.config.to_dict()


def test_a_run_outlives_the_checkpoint_that_it_went_on_from(home: Path, tmp_path: Path) -> None:
    run = trained(home, "lora saved", METHODS["lora"], save_steps=2, eval_steps=4)
    shutil.copytree(run.path, tmp_path / "first")
    recipe = chat_recipe(tmp_path / "first" / "checkpoints" / "step-2", home / "rows.jsonl", method=METHODS["lora"])
    recipe["train"] = {"max_steps": 1, "batch_size": 8, "report_to": []}
    recipe["evaluate"] = {"max_new_tokens": 2, "few_shot": 0, "max_rows": 4}
    second = pegbox.train(recipe, run_dir=tmp_path / "second")
    shutil.rmtree(tmp_path / "first")
    assert Run(second.path).predict([{"prompt": "1 and 2"}])
