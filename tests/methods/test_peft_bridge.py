"""Every method of PEFT that changes layers, on the model itself: what learns, what is saved, PEFT's word on it."""

from __future__ import annotations

import contextlib
import copy
import gc
import hashlib
import json
import re
import sys
import warnings
import weakref
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import peft as oracle
import peft.utils.save_and_load as peft_files
import pytest
import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftModel, PromptLearningConfig, get_peft_config
from peft.tuners.ia3 import IA3Layer
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForTokenClassification,
    BartConfig,
    BartForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

import pegbox
from pegbox.errors import RecipeError
from pegbox.finished import Run
from pegbox.kernels import linear as fast_linear
from pegbox.methods import METHODS, peft, peft_settings
from pegbox.models import new_tokens, quantization
from pegbox.models.generation import generate
from pegbox.models.heads import head_weights, loose_weights, new_heads
from pegbox.models.load import load_model
from pegbox.models.packing import enable_packing
from pegbox.recipe import Peft
from tiny_folder import causal_folder, chat_recipe, sums, write_rows
from tiny_models import examples, rows, save_tokenizer, tiny, tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore:::peft")
IDS = torch.tensor(rows([9, 9]))
KINDS = ["llama", "bert", "masked bert", "t5", "bart"]
TUNERS = sorted(
    str(kind.value)
    for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()
    if kind.value not in peft_settings.REFUSED and not issubclass(config, PromptLearningConfig)
)
OPTIONS: Mapping[str, dict[str, Any]] = {  # where the defaults are too large for a tiny model
    "ADAPTION_PROMPT": {"adapter_len": 4, "adapter_layers": 2},
    "C3A": {"block_size": 8},
    "FOURIERFT": {"n_frequency": 50},
    "MISS": {"r": 8},
    "PSOFT": {"r": 8},
    "ROAD": {"group_size": 16},
    "SHIRA": {"r": 4},
    "TRAINABLE_TOKENS": {"token_indices": [3, 4, int(IDS[0, 0])]},
    "VBLORA": {"vector_length": 16, "num_vectors": 8},
    "WAVEFT": {"n_frequency": 50},
}
ELSEWHERE = {
    "C3A",
    "FOURIERFT",
    "UNILORA",
    "VBLORA",
    "WAVEFT",
}  # methods that do not promise to start where the model was
NO_MERGE = {"ADAPTION_PROMPT": "no merge", "BEFT": "no bias"}  # on a llama


def settings(peft_type: str, **options: Any) -> Peft:
    return Peft(peft_type=peft_type, **{**OPTIONS.get(peft_type, {}), **options})


def built(kind: str) -> Any:
    if kind == "masked bert":
        return tiny("bert", head=AutoModelForMaskedLM)
    if kind not in ("t5", "bart"):
        return tiny_classifier(kind, num_labels=3) if kind in ("bert", "distilbert") else tiny(kind)
    sizes = {"d_model": 32, "vocab_size": 64, "dropout_rate": 0.0, "dropout": 0.0, "eos_token_id": 2, "num_labels": 3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "t5":
            sizes |= {"d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
            return T5ForConditionalGeneration(T5Config(**sizes)).eval()
        sizes |= {f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
        sizes |= {f"{side}_ffn_dim": 48 for side in ("encoder", "decoder")} | {"max_position_embeddings": 64}
        return BartForSequenceClassification(BartConfig(**sizes, init_std=0.1)).eval()


def given(kind: str) -> dict[str, torch.Tensor]:
    ids = IDS.clone()
    ids[:, -1] = 2  # where BART's classifier pools
    return {"input_ids": ids} | ({"decoder_input_ids": IDS[:, :4]} if kind == "t5" else {})


@torch.no_grad()
def logits(model: Any, kind: str = "llama") -> torch.Tensor:
    out: torch.Tensor = model(**given(kind)).logits
    return out


def prepared(kind: str, peft_type: str, **options: Any) -> Any:
    model = built(kind)
    peft.prepare(model, settings(peft_type, **options), seed=3)
    return model


def trained(kind: str, peft_type: str, **options: Any) -> tuple[Any, set[str]]:
    """The model after two steps, and the names of the parameters that a gradient has reached."""
    model, reached = prepared(kind, peft_type, **options).train(), set[str]()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        out = model(**given(kind)).logits.flatten(0, -2)
        cross_entropy(out, torch.arange(len(out)) % 3).backward()
        reached |= {name for name, p in model.named_parameters() if p.grad is not None and p.grad.count_nonzero()}
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), reached


@cache
def once(kind: str, peft_type: str) -> tuple[Any, set[str]]:
    """`trained`, for tests that only look."""
    return trained(kind, peft_type)


def saved(model: Any, folder: Path) -> Path:
    peft.save(model, settings("IA3"), folder, base="some/model")
    return folder


def drawn_anew(kind: str) -> Any:
    """A base model whose heads are other ones, so that what comes back is seen."""
    model = built(kind)
    for head in new_heads(model).values():
        torch.nn.init.normal_(next(head.parameters()))
    return model


SOME = [(kind, name) for kind in KINDS[1:] for name in ("IA3", "LN_TUNING", "VERA")]
ALL = [("llama", name) for name in TUNERS] + SOME

# ---- at the start ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "peft_type"), [pair for pair in ALL if pair[1] not in ELSEWHERE])
def test_the_model_starts_as_it_was(kind: str, peft_type: str) -> None:
    torch.testing.assert_close(logits(prepared(kind, peft_type), kind), logits(built(kind), kind), rtol=0, atol=1e-6)


@pytest.mark.parametrize("peft_type", ["LOHA", "GRALORA", "PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING"])
def test_the_start_follows_the_seed_and_leaves_the_callers_generator_alone(peft_type: str) -> None:
    state, drawn = torch.get_rng_state(), []
    for seed in (1, 1, 2):
        model = built("llama")
        peft.prepare(model, settings(peft_type), seed)
        drawn.append(torch.cat([p.flatten() for p in model.parameters() if p.requires_grad]))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_what_learns_is_at_least_float32() -> None:
    for kind in ("llama", "bert"):
        for peft_type in ("IA3", "LN_TUNING", "VERA", "PROMPT_TUNING", "PREFIX_TUNING"):
            model = built(kind).bfloat16()
            peft.prepare(model, settings(peft_type), seed=0)
            assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
            with torch.autocast("cpu", dtype=torch.bfloat16):
                model(IDS).logits.float().logsumexp(-1).sum().backward()
            assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_the_fast_kernels_stay_in_place() -> None:
    for peft_type in ("IA3", "VERA", "PREFIX_TUNING"):
        plain, fast = built("llama"), built("llama")
        fast_linear.install(fast)
        for model in (plain, fast):
            peft.prepare(model, settings(peft_type), seed=0)
        assert any(isinstance(module, fast_linear.FastLinear) for module in fast.modules())
        torch.testing.assert_close(logits(fast), logits(plain), rtol=0, atol=1e-5)


# ---- what learns -----------------------------------------------------------------------------------------------------


def digests(model: Any) -> dict[str, str]:
    return {name: hashlib.sha256(p.detach().numpy().tobytes()).hexdigest() for name, p in model.named_parameters()}


def check_just_the_method_learns(kind: str, peft_type: str) -> None:
    """Two steps reach every parameter that learns, heads too, and leave every weight of the base as it was."""
    model, reached = trained(kind, peft_type)
    learnt = {name for name, p in model.named_parameters() if p.requires_grad}
    assert reached == learnt, f"reached by no gradient, or by one too many: {sorted(reached ^ learnt)}"
    heads = set(head_weights(model))
    assert heads <= learnt
    start, now = digests(built(kind)), digests(model)
    same = {name for name in now if now[name] in start.values()}
    assert not same & learnt, "what learns has not moved"
    frozen = {digest for name, digest in start.items() if name not in heads}
    kept = {digest for name, digest in now.items() if name not in learnt}
    gone = frozen - kept
    assert not gone or peft_type == "OSF", f"{len(gone)} weights of the base have moved"  # which takes them apart


@pytest.mark.parametrize(("kind", "peft_type"), ALL)
def test_within_two_steps_all_that_learns_has_moved_and_nothing_else(kind: str, peft_type: str) -> None:
    check_just_the_method_learns(kind, peft_type)


def test_the_check_sees_a_base_that_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    right = peft._insert
    monkeypatch.setattr(
        peft, "_insert", lambda m, *rest: [right(m, *rest), m.get_input_embeddings().requires_grad_(True)]
    )
    with pytest.raises(AssertionError, match="moved"):
        check_just_the_method_learns("llama", "IA3")


def test_the_check_sees_a_head_that_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peft, "let_new_parts_learn", lambda model: None)
    with pytest.raises(AssertionError):
        check_just_the_method_learns("bert", "IA3")


def peft_made(kind: str, peft_type: str, **options: Any) -> Any:
    """PEFT's own model with the targets of ours."""
    base, ours = built(kind), once(kind, peft_type)[0]
    chosen = vars(ours)[peft.KEPT].peft_config["default"]
    told = {"peft_type": peft_type, "inference_mode": False, **OPTIONS.get(peft_type, {})}
    told |= {name: value for name in ("target_modules", "feedforward_modules") if (value := vars(chosen).get(name))}
    if "modules_to_save" in vars(chosen):
        told["modules_to_save"] = list(new_heads(base)) or None
    torch.manual_seed(3)
    return PeftModel(base, get_peft_config(told | options)).eval()


@pytest.mark.parametrize(("kind", "peft_type"), ALL)
def test_as_many_numbers_learn_as_in_peft(kind: str, peft_type: str) -> None:
    """PEFT trains a copy of each head, and no weight that stands alone."""
    ours = once(kind, peft_type)[0]
    loose = sum(weight.numel() for weight in loose_weights(ours).values())
    learnt = sum(p.numel() for p in ours.parameters() if p.requires_grad)
    assert learnt - loose == peft_made(kind, peft_type).get_nb_trainable_parameters()[0]


@pytest.mark.parametrize("peft_type", TUNERS)
def test_the_usual_targets_are_pefts(peft_type: str) -> None:
    if peft_type in peft_settings.OWN_TARGETS:
        return
    theirs = PeftModel(
        built("llama"), get_peft_config({"peft_type": peft_type, "inference_mode": False, **OPTIONS.get(peft_type, {})})
    )
    ours = vars(prepared("llama", peft_type))[peft.KEPT]
    assert ours.base_model.targeted_module_names == theirs.base_model.targeted_module_names


TARGETS: dict[str, tuple[str, str, dict[str, Any], Any]] = {
    "an architecture that PEFT does not know": (
        "distilbert",
        "LOHA",
        {},
        {"q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"},
    ),
    "norms that PEFT does not know": ("bert", "LN_TUNING", {}, {"LayerNorm"}),
    "all linear layers": ("llama", "LOHA", {"target_modules": "all-linear"}, {*"qkvo"}),
    "names": (
        "llama",
        "LOHA",
        {"target_modules": ["q_proj", "layers.1.mlp.up_proj"]},
        {"q_proj", "layers.1.mlp.up_proj"},
    ),
    "a pattern": ("llama", "OFT", {"target_modules": r".*\.1\..*[qv]_proj"}, r".*\.1\..*[qv]_proj"),
    "names that heads have, too": ("bert", "LOHA", {"target_modules": ["dense"]}, None),
}


@pytest.mark.parametrize("case", TARGETS)
def test_targets_keep_their_short_names_and_are_no_heads(case: str) -> None:
    kind, peft_type, options, names = TARGETS[case]
    model = prepared(kind, peft_type, **options)
    config, hit = (
        vars(model)[peft.KEPT].peft_config["default"],
        set(vars(model)[peft.KEPT].base_model.targeted_module_names),
    )
    linears = {name for name, part in built(kind).named_modules() if isinstance(part, torch.nn.Linear)}
    if case == "all linear layers":
        assert hit == linears - {"lm_head"} and len(config.target_modules) == 7
    elif names is None:
        assert (
            hit
            == config.target_modules
            == {name for name in linears if name.endswith("dense") and "pooler" not in name}
        )
    else:
        assert config.target_modules == names
    assert not any(name.startswith(("classifier", "pre_classifier", "lm_head")) or "pooler" in name for name in hit)


def test_ia3_scales_the_input_of_what_ends_a_feed_forward_block() -> None:
    for kind, name in {
        "llama": "down_proj",
        "bert": "output.dense",
        "distilbert": "lin2",
        "t5": "wo",
        "bart": "fc2",
    }.items():
        layers = {n: m for n, m in prepared(kind, "IA3").named_modules() if isinstance(m, IA3Layer)}
        assert (
            {n for n, m in layers.items() if m.is_feedforward} == {n for n in layers if n.endswith(f".{name}")} != set()
        )
    chosen = prepared("llama", "IA3", target_modules=["k_proj", "up_proj"], feedforward_modules=["up_proj"])
    layers = {n: m for n, m in chosen.named_modules() if isinstance(m, IA3Layer)}
    assert len(layers) == 4 and all(m.is_feedforward == n.endswith("up_proj") for n, m in layers.items())
    none = prepared("llama", "IA3", target_modules=["k_proj"])
    assert not any(m.is_feedforward for m in none.modules() if isinstance(m, IA3Layer))


# ---- on disk ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "peft_type"), ALL)
def test_what_was_learnt_comes_back_to_the_bit(kind: str, peft_type: str, tmp_path: Path) -> None:
    model, fresh = once(kind, peft_type)[0], drawn_anew(kind)
    peft.restore(fresh, None, saved(model, tmp_path))
    assert torch.equal(logits(fresh, kind), logits(model, kind))
    learnt = {name: p for name, p in model.named_parameters() if p.requires_grad}
    back = {name: p for name, p in fresh.named_parameters() if p.requires_grad}
    assert learnt.keys() == back.keys() and all(torch.equal(p, back[name]) for name, p in learnt.items())
    assert not torch.equal(logits(model, kind), logits(built(kind), kind))


def check_peft_reads_ours(kind: str, peft_type: str, folder: Path) -> None:
    model = once(kind, peft_type)[0]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        theirs = PeftModel.from_pretrained(built(kind), str(saved(model, folder))).eval()
    torch.testing.assert_close(logits(theirs, kind), logits(model, kind), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "peft_type"), ALL)
def test_peft_loads_our_folder_and_says_the_same(kind: str, peft_type: str, tmp_path: Path) -> None:
    check_peft_reads_ours(kind, peft_type, tmp_path)


def test_the_check_sees_a_head_that_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once("bert", "IA3")
    monkeypatch.setattr(peft, "_heads", lambda model: {})
    with pytest.raises((AssertionError, KeyError)):
        check_peft_reads_ours("bert", "IA3", tmp_path)


@pytest.mark.parametrize(("kind", "peft_type"), ALL)
def test_we_load_a_folder_that_peft_wrote(kind: str, peft_type: str, tmp_path: Path) -> None:
    if kind == "masked bert":
        return  # whose loose bias PEFT does not save
    theirs, ours = peft_made(kind, peft_type), drawn_anew(kind)
    for index, (_, p) in enumerate((n, p) for n, p in theirs.named_parameters() if p.requires_grad):
        p.data += torch.randn(p.shape, generator=torch.Generator().manual_seed(index)) / 100
    theirs.save_pretrained(str(tmp_path))
    peft.restore(ours, None, tmp_path)
    torch.testing.assert_close(logits(ours, kind), logits(theirs, kind), rtol=0, atol=1e-5)


def test_the_files_are_the_same_each_time(tmp_path: Path) -> None:
    """The order of a set hangs on the process; what stands in the file must not."""
    first, second = (saved(trained("llama", "IA3")[0], tmp_path / name) for name in ("first", "second"))
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    told = json.loads((first / "adapter_config.json").read_text())
    assert told["target_modules"] == sorted(told["target_modules"]) and told["inference_mode"]
    assert told["base_model_name_or_path"] == "some/model" and told["task_type"] == "CAUSAL_LM"


TASKS = {"llama": "CAUSAL_LM", "bert": "SEQ_CLS", "masked bert": None, "t5": "SEQ_2_SEQ_LM", "bart": "SEQ_CLS"}


def test_the_task_is_told_in_pefts_words() -> None:
    assert {kind: peft_settings.task_type(built(kind)) for kind in KINDS} == TASKS
    assert peft_settings.task_type(tiny("bert", head=AutoModelForTokenClassification)) == "TOKEN_CLS"


def check_nothing_is_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*args: Any, **options: Any) -> Any:
        raise AssertionError("the hub was asked")

    for place in (peft_files, oracle.config):
        for name in {"check_file_exists_on_hf_hub", "hf_hub_download", "file_exists"} & vars(place).keys():
            monkeypatch.setattr(place, name, asked)
    model = trained("llama", "IA3")[0]
    vars(model)[peft.KEPT].peft_config["default"].base_model_name_or_path = "some/model"
    peft.restore(built("llama"), None, saved(model, folder))


def test_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_nothing_is_fetched(tmp_path, monkeypatch)


def test_the_check_sees_a_look_at_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bug: PEFT is let decide whether the embeddings have to be saved, for which it asks how large they were."""
    right = peft_files.get_peft_model_state_dict
    monkeypatch.setattr(oracle, "get_peft_model_state_dict", lambda model, save_embedding_layers: right(model))
    with pytest.raises(AssertionError, match="asked"):
        check_nothing_is_fetched(tmp_path, monkeypatch)


DAMAGE: dict[str, Any] = {
    "a vector lost": lambda told: {n: t for n, t in told.items() if "layer.0.attention.self.key" not in n},
    "a head lost": lambda told: {n: t for n, t in told.items() if "classifier" not in n},
    "a tensor too many": lambda told: told | {"base_model.model.other.weight": torch.zeros(2)},
    "another width": lambda told: {n: t[:1].clone() if "ia3" in n else t for n, t in told.items()},
}


def check_restore_is_strict(damage: Any, folder: Path) -> None:
    file = saved(once("bert", "IA3")[0], folder) / "adapter_model.safetensors"
    save_file(damage(load_file(file)), file)
    try:
        peft.restore(built("bert"), None, folder)
    except RecipeError as error:
        assert error.where == str(folder) and "does not fit" in error.what
        return
    raise AssertionError("a tensor was passed over in silence")


@pytest.mark.parametrize("damage", DAMAGE)
def test_restore_is_strict(damage: str, tmp_path: Path) -> None:
    check_restore_is_strict(DAMAGE[damage], tmp_path)


def test_the_check_sees_a_tensor_that_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once("bert", "IA3")
    monkeypatch.setattr(peft, "restore", lambda model, chosen, folder: peft.prepare(model, settings("IA3"), 0))
    with pytest.raises(AssertionError, match="silence"):
        check_restore_is_strict(DAMAGE["a head lost"], tmp_path)


def test_folders_that_hold_no_such_adapter_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        peft.restore(built("llama"), None, tmp_path)
    file = saved(once("llama", "LOHA")[0], tmp_path) / "adapter_config.json"
    told = json.loads(file.read_text())
    for change, message in (
        ({"of_the_future": 1}, "of_the_future"),
        ({"peft_type": "LORA"}, "kind: lora"),
        ({"peft_type": "NOTHING"}, "NOTHING"),
        ({"target_modules": ["elsewhere"]}, "no module of the model"),
        ({"target_modules": ["embed_tokens"]}, "PEFT refuses"),
    ):
        file.write_text(json.dumps(told | change))
        with pytest.raises(RecipeError, match=message):
            peft.restore(built("llama"), None, tmp_path)


def test_a_model_that_nobody_holds_is_let_go_of_at_once() -> None:
    gc.collect()
    gc.disable()
    try:
        for peft_type in ("IA3", "VERA", "PROMPT_TUNING", "PREFIX_TUNING"):
            model = prepared("llama", peft_type)
            logits(model)
            seen = weakref.ref(model)
            del model
            assert seen() is None, f"{peft_type}: a ring of references holds the weights"
    finally:
        gc.enable()


# ---- merging ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "peft_type"), ALL)
def test_a_merged_model_says_what_the_adapter_says_and_is_plain(kind: str, peft_type: str, tmp_path: Path) -> None:
    model, fresh = once(kind, peft_type)[0], drawn_anew(kind)
    peft.restore(fresh, None, saved(model, tmp_path))
    if kind == "llama" and peft_type in NO_MERGE:
        with pytest.raises(RecipeError, match=NO_MERGE[peft_type]) as refused:
            peft.merge(fresh, None)
        assert refused.value.cure
        return
    peft.merge(fresh, None)
    torch.testing.assert_close(logits(fresh, kind), logits(model, kind), rtol=0, atol=1e-5)
    assert [type(part) for part in fresh.modules()] == [type(part) for part in built(kind).modules()]
    if peft_type not in ("IA3", "LN_TUNING"):
        return
    fresh.save_pretrained(tmp_path / "merged")
    again = type(fresh).from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(logits(again, kind), logits(fresh, kind), rtol=0, atol=1e-6)


# ---- over quantized layers -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    pytest.importorskip("bitsandbytes")
    folder = tmp_path_factory.mktemp("base")
    tiny("llama", hidden_size=64, intermediate_size=64).save_pretrained(folder)
    save_tokenizer(folder)
    return {bits: load_model(folder, "causal_lm", quantization=bits) for bits in ("nf4", "int8")}


@pytest.mark.parametrize(
    ("peft_type", "bits"),
    [*((name, "nf4") for name in sorted(peft_settings.OVER_QUANTIZED)), ("IA3", "int8"), ("SHIRA", "int8")],
)
def test_over_quantized_layers_a_method_is_what_it_is_over_the_same_weights_in_full(
    peft_type: str, bits: str, quantized: dict[str, Any], tmp_path: Path
) -> None:
    model, full, again = (copy.deepcopy(quantized[bits]) for _ in range(3))
    peft.prepare(model, settings(peft_type), seed=0)
    model(IDS).logits.logsumexp(-1).sum().backward()
    for p in model.parameters():
        if p.requires_grad:
            assert p.grad is not None
            p.data -= 0.1 * p.grad / (p.grad.norm() + 1e-9)
    quantization.expand(full)
    for other in (full, again):
        peft.restore(other, None, saved(model, tmp_path))
    assert torch.equal(logits(again), logits(model))
    torch.testing.assert_close(logits(full), logits(model), rtol=0, atol=1e-5)
    with contextlib.suppress(RecipeError):  # where it has no merge
        peft.merge(again, None)
        torch.testing.assert_close(logits(again), logits(model), rtol=0, atol=1e-5)
        assert not any(map(quantization.is_quantized, again.modules()))


def test_over_quantized_layers_other_methods_are_refused(quantized: dict[str, Any]) -> None:
    for peft_type in ("LOHA", "HRA", "UNILORA"):  # of which the last learns nothing there, and says nothing either
        with pytest.raises(RecipeError, match="4 or 8 bits") as refused:
            peft.prepare(copy.deepcopy(quantized["int8"]), settings(peft_type), seed=0)
        assert refused.value.where == "model.quantization" and "IA3" in str(refused.value.cure)


# ---- use -------------------------------------------------------------------------------------------------------------


def test_answers_are_those_of_peft(tmp_path: Path) -> None:
    model = once("llama", "IA3")[0]
    theirs = PeftModel.from_pretrained(built("llama"), str(saved(model, tmp_path))).eval()
    prompts = rows([3, 9, 1], prefix=4)
    found = generate(model, prompts, stop_ids=frozenset({2}), max_new_tokens=6)
    for prompt, answer in zip(prompts, found, strict=True):
        options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": 2, "pad_token_id": 0}
        out = theirs.generate(input_ids=torch.tensor([prompt]), **options)[0, len(prompt) :].tolist()
        assert [token for token in out if token != 2] == answer.input_ids


def check_a_token_hangs_on_those_before_it_alone(peft_type: str) -> None:
    """Neither on the rows beside its own nor on later tokens: else an answer in a batch is not the answer alone."""
    model = once("llama", peft_type)[0]
    with torch.no_grad():
        torch.testing.assert_close(model(IDS[:1, :5]).logits, model(IDS).logits[:1, :5], rtol=0, atol=1e-5)


@pytest.mark.parametrize("peft_type", TUNERS)
def test_a_token_hangs_on_those_before_it_alone(peft_type: str) -> None:
    check_a_token_hangs_on_those_before_it_alone(peft_type)


def test_the_check_sees_lily_which_is_refused_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peft_settings, "REFUSED", {})
    with pytest.raises(AssertionError):
        check_a_token_hangs_on_those_before_it_alone("LILY")


@pytest.mark.parametrize("peft_type", ["IA3", "LOHA", "VERA", "LN_TUNING"])
def test_rows_may_still_be_packed(peft_type: str) -> None:
    assert enable_packing(prepared("llama", peft_type), examples([5, 1, 9], prefix=6))


# ---- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "chosen", "where", "told"),
    [
        ("llama", {"peft_type": "IA33"}, "peft_type", "did you mean 'IA3'"),
        ("llama", {"peft_type": "nothing like it"}, "peft_type", "known are ADAMSS, .*IA3"),
        ("llama", {"peft_type": "ADALORA"}, "peft_type", "moves ranks between layers"),
        ("llama", {"peft_type": "xlora"}, "peft_type", "trained before"),
        ("llama", {"peft_type": "LOHA", "zzz": 8}, "zzz", "known are .*rank_dropout"),
        ("llama", {"peft_type": "LOHA", "rank_dropuot": 0.1}, "rank_dropuot", "did you mean 'rank_dropout'"),
        ("llama", {"peft_type": "LOHA", "r": "eight"}, "r", "'eight' is no value"),
        ("llama", {"peft_type": "LOHA", "target_modules": 3}, "target_modules", "3 is no value"),
        ("llama", {"peft_type": "LOHA", "target_modules": "(q_proj"}, "target_modules", "is no pattern"),
        ("llama", {"peft_type": "PROMPT_TUNING", "prompt_tuning_init": "TXET"}, "prompt_tuning_init", "'TEXT'"),
        ("llama", {"peft_type": "PROMPT_TUNING", "prompt_tuning_init": "TEXT"}, "", "prompt_tuning_init='TEXT'"),
        ("llama", {"peft_type": "LOHA", "modules_to_save": ["lm_head"]}, "modules_to_save", "set by pegbox"),
        ("llama", {"peft_type": "LOHA", "base_model_name_or_path": "x"}, "base_model_name_or_path", "set by pegbox"),
        (
            "llama",
            {"peft_type": "LOHA", "target_modules": ["q_proj", "nix"]},
            "target_modules",
            "called nix\n.*down_proj",
        ),
        ("llama", {"peft_type": "LOHA", "target_modules": ["lm_head"]}, "target_modules", "called lm_head"),
        ("llama", {"peft_type": "LOHA", "target_modules": "nix.*"}, "target_modules", "choose among"),
        (
            "llama",
            {"peft_type": "IA3", "feedforward_modules": ["up_proj"]},
            "feedforward_modules",
            "the targets: down_proj",
        ),
        ("llama", {"peft_type": "ADAMSS", "use_asa": True}, "use_asa", "more than gradients"),
        ("llama", {"peft_type": "TRAINABLE_TOKENS"}, "", "needs token_indices"),
        ("llama", {"peft_type": "TRAINABLE_TOKENS", "token_indices": [999]}, "", "PEFT refuses this"),
        ("llama", {"peft_type": "ADAPTION_PROMPT", "adapter_len": 2}, "", "needs adapter_layers"),
        ("llama", {"peft_type": "LOHA", "r": -1}, "", "PEFT refuses this"),
        ("llama", {"peft_type": "MISS", "r": 64}, "", "PEFT refuses this: `r`"),
        ("llama", {"peft_type": "LOHA", "layers_pattern": "h", "layers_to_transform": None}, "", "PEFT refuses"),
        ("llama", {"peft_type": "LOHA", "target_modules": ["embed_tokens"]}, "", "PEFT refuses this: Target module"),
    ],
)
def test_mistakes_are_told_with_their_place_and_a_cure(
    kind: str, chosen: dict[str, Any], where: str, told: str
) -> None:
    with pytest.raises(RecipeError) as refused:
        peft.prepare(built(kind), Peft(**chosen), seed=0)
    assert refused.value.where == f"method.{where}".rstrip(".")
    assert re.search(told, str(refused.value), re.DOTALL), str(refused.value)
    assert refused.value.cure


def test_a_method_that_asks_for_more_with_each_row_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peft_settings, "REFUSED", {})  # as a method that PEFT may gain is none of those
    for peft_type in ("POLY", "XLORA", "SHADOW"):
        with pytest.raises(RecipeError, match="PEFT refuses"):
            prepared("llama", peft_type)
    with pytest.raises(RecipeError, match="not known here"):
        prepared("llama", "CARTRIDGE")


def test_an_unknown_feed_forward_block_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peft_settings, "DOWN", ())
    with pytest.raises(RecipeError, match="not known which layers") as refused:
        prepared("distilbert", "IA3")
    assert "lin2" in str(refused.value.cure)
    prepared("distilbert", "IA3", feedforward_modules=["lin2"])


def test_without_peft_the_cure_is_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    for use in (lambda: prepared("llama", "IA3"), lambda: peft.restore(built("llama"), None, tmp_path)):
        with pytest.raises(RecipeError, match="package peft") as refused:
            use()
        assert refused.value.cure == "pip install 'pegbox[peft]'"


def test_new_tokens_are_refused(tmp_path: Path) -> None:
    model, before, after = built("llama"), save_tokenizer(tmp_path), save_tokenizer(tmp_path)
    new_tokens.add(after, ["brandnew"])
    new_tokens.grow(model, before, after, apart=True)
    with pytest.raises(RecipeError, match="new tokens") as refused:
        peft.prepare(model, settings("IA3"), seed=0)
    assert refused.value.where == "model.add_tokens"


def test_rates_are_those_of_the_papers_and_alike_for_all_that_learns() -> None:
    assert peft.learning_rate(Peft(peft_type="ia3")) == 3e-3
    assert peft.learning_rate(Peft(peft_type="PROMPT_TUNING")) == 3e-2
    assert peft.learning_rate(Peft(peft_type="LOHA")) == 1e-3
    assert peft.rate_factor(Peft(peft_type="IA3"), "any.name") == 1.0
    assert peft.RATES.keys() <= {str(kind.value) for kind in PEFT_TYPE_TO_CONFIG_MAPPING}
    assert peft.FREEZES


# ---- a whole run -----------------------------------------------------------------------------------------------------


def test_a_whole_run_answers_as_peft_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "peft", sys.modules["pegbox.methods.peft"])
    folder, file = causal_folder(tmp_path / "model"), write_rows(tmp_path / "rows.jsonl", sums(60))
    method = {"kind": "peft", "peft_type": "IA3"}
    train = {"max_steps": 3, "batch_size": 8}
    run = pegbox.train(chat_recipe(folder, file, method=method, train=train), run_dir=tmp_path / "run")
    assert run.recipe.train.learning_rate == 3e-3 and run.receipt["plan"]["packed"]
    lines = list(run.folder.read_lines("predictions.jsonl"))[:4]
    assert Run(run.path).predict([{"prompt": line["input"]} for line in lines]) == [
        line["answers"]["tuned"] for line in lines
    ]
    tuned = PeftModel.from_pretrained(load_model(folder, "causal_lm", kernels=False), str(run.folder.model)).eval()
    ids = torch.tensor([run.prompt(lines[0]["input"])])
    with torch.no_grad():
        torch.testing.assert_close(run.model(ids).logits, tuned(input_ids=ids).logits, rtol=0, atol=1e-5)
