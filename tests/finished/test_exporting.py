"""An export is the model that was measured, as another program loads it; or it is not kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import pegbox
from pegbox.errors import ChangedError, RecipeError
from pegbox.export import compare, reload
from pegbox.export.probe import Job, Said
from pegbox.finished import Run, exporting, whole
from pegbox.finished.exporting import export
from pegbox.finished.forms import FORMATS, Format
from tiny_folder import causal_folder, chat_recipe, encoder_folder, sums, write_rows
from tiny_tasks import MODELS, by_heart

pytestmark = pytest.mark.filterwarnings("ignore:::peft")
LABELS = ("light", "timer", "fox")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    causal_folder(folder / "model", spread=0.2)
    encoder_folder(folder / "encoder", spread=0.3)
    write_rows(folder / "rows.jsonl", sums(80))
    texts = [{"text": f"the {LABELS[n % 3]} {'and the dog ' * (n % 5)}{n}", "label": LABELS[n % 3]} for n in range(90)]
    write_rows(folder / "texts.jsonl", texts)
    return folder


def trained(home: Path, name: str) -> Run:
    """The run of that name, made once: a method, of a chat or (`labels`) a classification."""
    if not (home / name).exists():
        chats = "labels" not in name
        model, rows = ("model", "rows.jsonl") if chats else ("encoder", "texts.jsonl")
        recipe = chat_recipe(home / model, home / rows, method=RUNS[name])
        recipe["train"] = {"max_steps": 6, "batch_size": 8, "learning_rate": 1e-2, "report_to": []}
        recipe["data"] |= {"allow": ["near_duplicate"]}
        recipe["evaluate"] = {"max_new_tokens": 3, "few_shot": 0}
        bits = next((bits for bits in ("nf4", "int8") if bits in name), None)
        recipe |= {"model": {"name": str(home / model), "quantization": bits}}
        pegbox.train(recipe | ({} if chats else {"task": "classification"}), run_dir=home / name)
    return Run(home / name)


RUNS: dict[str, Any] = {
    "lora": {"kind": "lora", "r": 4},
    "full": "full",
    "bottleneck": {"kind": "adapter", "bottleneck_size": 4},
    "lora labels": {"kind": "lora", "r": 4},
    "full labels": "full",
    "nf4": {"kind": "lora", "r": 4},
    "int8 bottleneck": {"kind": "adapter", "bottleneck_size": 4},
}


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What loads an export works in this process: the same code, without the seconds that a new one takes to begin."""

    def ask(job: Job, work: Path) -> Said:
        job.write(work)
        reload.main(work)
        return Said.read(work)

    monkeypatch.setattr(exporting, "_ask", ask)


GOOD = [
    *(("lora", name) for name in FORMATS if name != "onnx"),
    *(("full", name) for name in ("merged", "gguf")),
    ("bottleneck", "adapter"),
    *(("lora labels", name) for name in ("adapter", "merged", "merged-f16", "onnx")),
    *(("full labels", name) for name in ("merged", "onnx")),
    *(("nf4", name) for name in ("adapter", "merged", "gguf")),
    ("int8 bottleneck", "adapter"),
]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("run", "name"), GOOD)
def test_an_export_says_what_the_run_said(run: str, name: str, home: Path, tmp_path: Path) -> None:
    told = export(trained(home, run), [name], tmp_path / "out")["formats"][name]
    assert told["checked"]["rows"] == 16 and told["checked"]["places"] >= 16
    form = FORMATS[name]
    if form.mean_kl is not None:
        assert told["checked"]["mean_kl"] <= form.mean_kl
    if form.exact:
        assert told["checked"]["largest_difference"] < 1e-4 and "score" not in told
    else:
        assert told["checked"]["largest_difference"] > 1e-6, "nothing was rounded"
        assert told["score"]["rows"] == trained(home, run).evaluation["rows"]
        assert told["score"]["loss"]["low"] <= told["score"]["loss"]["difference"] <= told["score"]["loss"]["high"]
    assert told["checked"]["answers"] == (0 if "labels" in run else 16)
    files = {file.name for file in (tmp_path / "out" / name).iterdir()}
    assert files == told["files"].keys() and {f.name for f in (tmp_path / "out").iterdir()} == {name, "export.json"}
    assert json.loads((tmp_path / "out" / "export.json").read_text())["formats"][name] == told


def test_it_is_loaded_in_a_process_of_its_own(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In which nothing of this one is changed: here even the code that loads is."""
    monkeypatch.setattr(reload, "main", None)
    found = export(trained(home, "lora"), ["merged", "gguf-q8_0"], tmp_path)["formats"]
    assert found["merged"]["checked"]["answers_that_differ"] == 0
    assert found["gguf-q8_0"]["bytes"] < 0.6 * found["merged"]["bytes"]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    "form", ["multilabel", "regression", "token_classification", "masked_lm", "plain text", "seq2seq", "pairs"]
)
def test_every_task_can_be_exported(form: str, tmp_path: Path) -> None:
    kinds = {"masked_lm": "masked bert with its head", "plain text": "llama", "seq2seq": "t5 that writes"}
    kind, last = kinds.get(form, "bert"), {"plain text": ["gguf"], "seq2seq": []}.get(form, ["onnx"])
    recipe = by_heart(form, MODELS[kind](tmp_path / "model"), "lora", tmp_path, max_steps=3, learning_rate=1e-2)
    run = pegbox.train(recipe, run_dir=tmp_path / "run")
    formats = ["adapter", "merged", "merged-f16", *last]
    found = export(run, formats, tmp_path / "out")["formats"]
    assert list(found) == formats and found["merged"]["checked"]["mean_kl"] < 1e-6
    assert "score" in found["merged-f16"]


@pytest.mark.usefixtures("at_once")
def test_what_the_reader_of_gguf_passes_over_is_taken_from_the_base(home: Path, tmp_path: Path) -> None:
    """Llama 3's scaled rotary positions stand in the file, and Transformers does not look there."""
    shutil.copytree(home / "model", tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    scaled = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    }
    config = json.loads(file.read_text())
    config["rope_parameters"] = scaled | {"original_max_position_embeddings": 64}
    file.write_text(json.dumps(config))
    recipe = chat_recipe(tmp_path / "model", home / "rows.jsonl", train={"max_steps": 3, "report_to": []})
    recipe |= {"model": {"name": str(tmp_path / "model"), "add_tokens": ["<a>"]}}
    run = pegbox.train(recipe | {"evaluate": {"max_new_tokens": 3, "few_shot": 0}}, run_dir=tmp_path / "run")
    assert export(run, ["gguf"], tmp_path / "out")["formats"]["gguf"]["checked"]["mean_kl"] < 1e-4


# ---- an export that is another model is not kept ---------------------------------------------------------------------


def scaled(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    save_file({name: t * 1.05 if "down_proj" in name else t for name, t in tensors.items()}, file, {"format": "pt"})


def other_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")


def other_stop(folder: Path) -> None:
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": [1]}))


def other_tokens(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([" and"])
    tokenizer.save_pretrained(folder)


DAMAGE = {"diverge": scaled, "template": other_template, "other tokens": other_tokens, "end at": other_stop}


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("fault", DAMAGE)
def test_another_model_is_not_kept(fault: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, real = trained(home, "lora"), FORMATS["merged"]

    def spoilt(run: Run, out: Path) -> Path:
        loaded = real.write(run, out)
        DAMAGE[fault](out)
        return loaded

    monkeypatch.setitem(FORMATS, "merged", Format(spoilt, real.way, real.mean_kl, real.exact))  # type: ignore[arg-type]
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(ChangedError, match=fault) as refusal:
        export(run, ["merged"], tmp_path)
    assert refusal.value.exit_code == 3
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_an_export_that_cannot_be_loaded_is_not_kept(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FORMATS["merged"]

    def broken(run: Run, out: Path) -> Path:
        loaded = real.write(run, out)
        (out / "model.safetensors").write_bytes(b"nothing")
        return loaded

    monkeypatch.setitem(FORMATS, "merged", Format(broken, real.way, real.mean_kl, real.exact))  # type: ignore[arg-type]
    with pytest.raises(ChangedError, match="cannot be loaded"):
        export(trained(home, "lora"), ["merged"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def logits(rows: list[list[float]]) -> Said:
    return Said([torch.tensor(rows)])


SHIFTED = [
    ("regression", [[1.0]], [[1000.0]]),
    ("multi_label_classification", [[0.0, 1.0]], [[5.0, 6.0]]),
    (None, [[0.0, 1.0]], [[1.0, 0.0]]),
]


@pytest.mark.parametrize(("outputs", "measured", "exported"), SHIFTED)
def test_what_an_output_means_decides_what_a_difference_is(outputs: Any, measured: Any, exported: Any) -> None:
    kl = compare.OUTPUTS.get(outputs, compare.categorical)
    found = compare.difference(logits(measured), logits(exported), (), kl)
    assert compare.fault(found, 1e-3, exact=False) is not None
    same = compare.difference(logits(measured), logits(measured), (), kl)
    assert same.mean_kl == 0 and compare.fault(same, 1e-6, exact=True) is None


@pytest.mark.usefixtures("at_once")
def test_a_model_that_has_changed_since_is_not_exported(home: Path, tmp_path: Path) -> None:
    shutil.copytree(trained(home, "lora").path, tmp_path / "run")
    file = tmp_path / "run" / "model" / "adapter_model.safetensors"
    save_file({name: tensor * 3 for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    with pytest.raises(ChangedError, match="has changed"):
        export(Run(tmp_path / "run"), ["merged"], tmp_path / "out")


@pytest.mark.usefixtures("at_once")
def test_a_report_that_is_not_ours_is_kept(home: Path, tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text('{"formats": {"mine": {}}}')
    with pytest.raises(RecipeError, match="none of pegbox's"):
        export(trained(home, "lora"), ["merged", "merged"], tmp_path)
    assert (tmp_path / "export.json").read_text() == '{"formats": {"mine": {}}}'


@pytest.mark.usefixtures("at_once")
def test_each_format_says_of_which_run_it_is(home: Path, tmp_path: Path) -> None:
    export(trained(home, "lora"), ["adapter", "adapter"], tmp_path)
    export(trained(home, "full"), ["merged"], tmp_path)
    told = json.loads((tmp_path / "export.json").read_text())["formats"]
    assert {name: Path(one["run"]).name for name, one in told.items()} == {"adapter": "lora", "merged": "full"}


# ---- what is refused before anything is written ----------------------------------------------------------------------

REFUSED = [
    ("lora", "pickle", "no such format"),
    ("full", "adapter", "no adapter"),
    ("bottleneck", "merged", "not linear"),
    ("bottleneck", "gguf", "not linear"),
    ("lora labels", "gguf", "writes no text"),
    ("lora", "onnx", "writes text"),
]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("run", "name", "said"), REFUSED)
def test_what_cannot_be_is_refused_and_nothing_is_left(
    run: str, name: str, said: str, home: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=said) as refusal:
        export(trained(home, run), [name], tmp_path / "out")
    assert refusal.value.cure
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("at_once")
def test_nothing_is_overwritten_and_what_was_told_stays(home: Path, tmp_path: Path) -> None:
    run = trained(home, "lora")
    export(run, ["merged"], tmp_path)
    before = (tmp_path / "merged" / "model.safetensors").read_bytes()
    with pytest.raises(RecipeError, match="exists already"):
        export(run, ["adapter", "merged"], tmp_path)
    assert not (tmp_path / "adapter").exists()
    assert (tmp_path / "merged" / "model.safetensors").read_bytes() == before
    export(run, ["adapter"], tmp_path)
    assert json.loads((tmp_path / "export.json").read_text())["formats"].keys() == {"merged", "adapter"}


# ---- what plain libraries make of it ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("at_once")
def test_tied_weights_are_stored_once_and_shards_load(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole.save, "__kwdefaults__", {**whole.save.__kwdefaults__, "max_shard_size": "50KB"})
    run = trained(home, "lora")
    run.export(tmp_path)
    shards = sorted((tmp_path / "merged").glob("*.safetensors"))
    assert len(shards) > 1 and (tmp_path / "merged" / "model.safetensors.index.json").is_file()
    assert "lm_head.weight" not in {name for shard in shards for name in load_file(shard)}
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert plain.lm_head.weight is plain.model.embed_tokens.weight and plain.dtype == torch.float32


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("name", "dtype"), [("merged-bf16", torch.bfloat16), ("merged-f16", torch.float16)])
def test_the_dtype_is_the_one_asked_for(name: str, dtype: torch.dtype, home: Path, tmp_path: Path) -> None:
    export(trained(home, "lora"), [name], tmp_path)
    stored = load_file(tmp_path / name / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {dtype}
    assert json.loads((tmp_path / name / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")


@pytest.mark.usefixtures("at_once")
def test_an_adapter_that_was_exported_loads_by_peft(home: Path, tmp_path: Path) -> None:
    export(trained(home, "lora"), ["adapter"], tmp_path)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(home / "model"), tmp_path / "adapter")
    assert model.peft_config["default"].r == 4


@pytest.mark.usefixtures("at_once")
def test_rows_that_are_gone_are_asked_as_far_as_predictions_show_them(home: Path, tmp_path: Path) -> None:
    run = trained(home, "lora")
    hidden = (home / "rows.jsonl").rename(home / "hidden.jsonl")
    try:
        told = export(run, ["merged", "merged-f16"], tmp_path)["formats"]
    finally:
        hidden.rename(home / "rows.jsonl")
    assert told["merged"]["checked"]["rows"] == 16
    assert "score" not in told["merged-f16"], "a score needs the rows themselves"
