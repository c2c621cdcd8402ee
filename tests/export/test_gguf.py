"""A folder written to GGUF is the same model to every reader of GGUF, or is refused with a reason."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Form
from gguf import GGUFReader, LlamaFileType
from gguf.quants import dequantize, quantize
from gguf_folders import CONFIGS, IDS, WINDOW, byte_level, change_config, folder_of
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from pegbox.errors import RecipeError
from pegbox.export import gguf as export
from pegbox.export.gguf_config import FAMILIES, family_of, rope_divisors
from pegbox.models import gguf as reader

READ_BY_TRANSFORMERS = [family for family in CONFIGS if family != "gemma"]
OFFSET = ("gemma", "gemma2", "gemma3")
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 500.0,
    "factor": 2.0,
    "original_max_position_embeddings": 64,
    "beta_fast": 16.0,
}


def exported(folder: Path, kind: str = "f32") -> Path:
    export.write(folder, folder / "model.gguf", kind)
    return folder / "model.gguf"


def keys_of(path: Path) -> dict[str, Any]:
    return {key: field.contents() for key, field in GGUFReader(path).fields.items()}


def tensors_of(path: Path) -> dict[str, tuple[Form, np.ndarray]]:
    return {t.name: (t.tensor_type, np.array(dequantize(t.data, t.tensor_type))) for t in GGUFReader(path).tensors}


def shortest(value: float) -> float:
    return float(str(np.float32(value)))


@torch.no_grad()
def logits(folder: Path, **where: Any) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", **where)
    return model.eval()(IDS).logits


# ---- the same function -----------------------------------------------------------------------------------------------


def check_transformers_reads_the_same_model(folder: Path, kind: str, tolerance: float) -> None:
    """Transformers' own reader of GGUF, which knows nothing of ours, gives the folder's logits."""
    exported(folder, kind)
    ours, theirs = logits(folder), logits(folder, gguf_file="model.gguf")
    assert (theirs - ours).abs().max() <= tolerance * ours.abs().max(), "the file holds another model"


@pytest.mark.parametrize("family", READ_BY_TRANSFORMERS)
def test_transformers_reads_the_same_model(tmp_path: Path, family: str) -> None:
    check_transformers_reads_the_same_model(folder_of(tmp_path, family), "f32", 1e-5)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_half_precision_is_close(tmp_path: Path, kind: str) -> None:
    check_transformers_reads_the_same_model(folder_of(tmp_path, "llama"), kind, 1e-2)
    with pytest.raises(AssertionError):
        check_transformers_reads_the_same_model(tmp_path, kind, 1e-5)


@pytest.mark.parametrize("settings", [{"tie_word_embeddings": True}, {"head_dim": 32}, {"num_key_value_heads": 4}])
def test_transformers_reads_the_same_llama(tmp_path: Path, settings: dict[str, Any]) -> None:
    check_transformers_reads_the_same_model(folder_of(tmp_path, "llama", **settings), "f32", 1e-5)


def test_the_check_sees_query_and_key_in_the_hubs_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "permute", lambda weight, heads, head_dim: weight)
    with pytest.raises(AssertionError, match="another model"):
        check_transformers_reads_the_same_model(folder_of(tmp_path, "llama"), "f32", 1e-2)


def test_the_check_sees_an_order_that_qwen_does_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "family_of", lambda told: replace(family_of(told), permuted=True))
    with pytest.raises(AssertionError, match="another model"):
        check_transformers_reads_the_same_model(folder_of(tmp_path, "qwen3"), "f32", 1e-2)


@pytest.mark.parametrize("family", ["gemma2", "gemma3"])
def test_the_check_sees_norms_without_their_offset(
    tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "family_of", lambda told: replace(family_of(told), norm_offset=0.0))
    with pytest.raises(AssertionError, match="another model"):
        check_transformers_reads_the_same_model(folder_of(tmp_path, family), "f32", 1e-2)


def expected_tensors(folder: Path, family: str) -> dict[str, np.ndarray]:
    """The names of the GGUF specification, from the hub's by replacing words; weights row by row."""
    words = {
        "model.layers.": "blk.",
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "self_attn.o_proj": "attn_output",
        "self_attn.": "attn_",
        "mlp.": "ffn_",
        "_proj": "",
        "input_layernorm": "attn_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
        "post_attention_layernorm": "post_attention_norm" if family in ("gemma2", "gemma3") else "ffn_norm",
    }
    made = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        weight = tensor.float().numpy()
        for theirs, ours in words.items():
            name = name.replace(theirs, ours)
        if family in OFFSET and name.endswith("norm.weight"):
            weight = weight + 1
        if family in ("llama", "mistral") and ("attn_q." in name or "attn_k." in name):
            half = 8  # of heads of 16
            weight = weight[[16 * (r // 16) + (r % 2) * half + r % 16 // 2 for r in range(len(weight))]]
        made[name] = weight
    return made


@pytest.mark.parametrize("family", CONFIGS)
def test_every_tensor_has_its_name_and_its_numbers(tmp_path: Path, family: str) -> None:
    folder = folder_of(tmp_path, family)
    found, expected = tensors_of(exported(folder)), expected_tensors(folder, family)
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert np.array_equal(found[name][1], weight), name


@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_quantised_matrices_are_rounded_as_the_gguf_package_rounds(tmp_path: Path, kind: str) -> None:
    folder = folder_of(tmp_path, "qwen2")
    found, expected = tensors_of(exported(folder, kind)), expected_tensors(folder, "qwen2")
    for name, weight in expected.items():
        form = Form.F32 if weight.ndim == 1 else Form.Q8_0 if name == "output.weight" else Form[kind.upper()]
        assert found[name][0] == form, name
        assert np.array_equal(found[name][1], dequantize(quantize(weight, form), form)), name
    assert np.abs(found["blk.0.ffn_up.weight"][1] - expected["blk.0.ffn_up.weight"]).max() > 0


@pytest.mark.parametrize("kind", export.KINDS)
def test_norms_and_biases_are_float32_and_matrices_the_kind(tmp_path: Path, kind: str) -> None:
    found = tensors_of(exported(folder_of(tmp_path, "qwen2"), kind))
    assert {form for form, weight in found.values() if weight.ndim == 1} == {Form.F32}
    body = {form for name, (form, weight) in found.items() if weight.ndim == 2 and name.startswith("blk.")}
    assert body == {Form[kind.upper()]}
    assert (
        keys_of(tmp_path / "model.gguf")["general.file_type"]
        == {
            "f32": LlamaFileType.ALL_F32,
            "f16": LlamaFileType.MOSTLY_F16,
            "bf16": LlamaFileType.MOSTLY_BF16,
            "q8_0": LlamaFileType.MOSTLY_Q8_0,
            "q4_0": LlamaFileType.MOSTLY_Q4_0,
        }[kind]
    )


def test_a_tied_output_matrix_is_left_out_and_keeps_eight_bits(tmp_path: Path) -> None:
    found = tensors_of(exported(folder_of(tmp_path, "llama", tie_word_embeddings=True), "q4_0"))
    assert "output.weight" not in found
    assert found["token_embd.weight"][0] == Form.Q8_0


def test_an_output_matrix_that_is_said_to_be_tied_and_is_not_is_written(tmp_path: Path) -> None:
    folder = change_config(folder_of(tmp_path, "llama"), tie_word_embeddings=True)
    assert "output.weight" in tensors_of(exported(folder))
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone()}, folder / "model.safetensors")
    assert "output.weight" not in tensors_of(exported(folder))


def test_rows_that_no_block_fits_are_float16_and_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pegbox"):
        found = tensors_of(exported(folder_of(tmp_path, "llama", intermediate_size=80), "q8_0"))
    odd = [name for name, (form, _) in found.items() if form == Form.F16]
    assert odd == ["blk.0.ffn_down.weight", "blk.1.ffn_down.weight"]
    assert "2 matrices are stored as float16" in caplog.text and "blk.1.ffn_down.weight" in caplog.text


# ---- back by our own reader ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"tie_word_embeddings": True, "head_dim": 32}], ids=["plain", "tied"])
def test_our_own_reader_gives_the_folder_back(tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = folder_of(tmp_path / "in", "llama", **settings)
    reader.convert(exported(folder), tmp_path / "out")
    ours, back = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "out"))
    assert ours.keys() == back.keys()
    assert all(torch.equal(ours[name], back[name]) for name in ours)
    there, here = (json.loads((path / "config.json").read_text()) for path in (tmp_path / "out", folder))
    assert {key: here[key] for key in there.keys() & here.keys()} == {key: there[key] for key in there.keys() & here}
    stops = (json.loads((path / "generation_config.json").read_text()) for path in (tmp_path / "out", folder))
    assert len({str(told["eos_token_id"]) for told in stops}) == 1


# ---- hyper-parameters ------------------------------------------------------------------------------------------------

SIZES = {
    "context_length": 128,
    "embedding_length": 64,
    "feed_forward_length": 96,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "rope.freq_base": 500.0,
}
KEYS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"rope.dimension_count": 16}),
    "mistral": ("llama", {"rope.dimension_count": 16}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "gemma": ("gemma", {}),
    "gemma2": (
        "gemma2",
        {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "attention.sliding_window": WINDOW},
    ),
    "gemma3": (
        "gemma3",
        {"rope.freq_base": 900.0, "rope.freq_base_swa": 10000.0, "attention.sliding_window": WINDOW},
    ),
}
HEADS = {"qwen3": (2, 1, 128), "gemma": (4, 2, 32), "gemma2": (2, 1, 256), "gemma3": (2, 1, 256)}


@pytest.mark.parametrize("family", CONFIGS)
def test_every_hyper_parameter_is_in_the_file_and_no_other(tmp_path: Path, family: str) -> None:
    keys = keys_of(exported(folder_of(tmp_path, family)))
    architecture, more = KEYS[family]
    heads, kv_heads, size = HEADS.get(family, (4, 2, 16))
    expected = SIZES | more
    expected |= {"attention.head_count": heads, "attention.head_count_kv": kv_heads}
    expected |= {"attention.key_length": size, "attention.value_length": size}
    expected |= {"block_count": 7 if family == "gemma3" else 2, "vocab_size": len(keys["tokenizer.ggml.tokens"])}
    found = {key: value for key, value in keys.items() if key.startswith(f"{architecture}.")}
    assert keys["general.architecture"] == architecture
    assert {key.partition(".")[2]: shortest(v) if isinstance(v, float) else v for key, v in found.items()} == expected


@pytest.mark.parametrize("file", ["my-run.gguf", "my-run-q8_0.gguf", "my-run.q8_0.gguf"])
def test_the_model_is_named_as_the_file_is(tmp_path: Path, file: str) -> None:
    export.write(folder_of(tmp_path, "llama"), tmp_path / "out" / file, "q8_0")
    keys = keys_of(tmp_path / "out" / file)
    assert (keys["general.name"], keys["general.quantization_version"]) == ("my-run", 2)


def test_the_licence_travels_where_the_config_tells_it(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "llama")
    assert "general.license" not in keys_of(exported(folder))
    assert keys_of(exported(change_config(folder, license="apache-2.0")))["general.license"] == "apache-2.0"


@pytest.mark.parametrize(
    ("family", "ropes", "expected"),
    [
        ("llama", {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}, {"type": "linear", "factor": 4.0}),
        ("gemma2", {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}, {"type": "linear", "factor": 4.0}),
        (
            "qwen2",
            YARN,
            {"type": "yarn", "factor": 2.0, "original_context_length": 64, "yarn_beta_fast": 16.0},
        ),
        (
            "gemma3",
            {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 900.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 70.0},
            },
            {"type": "linear", "factor": 8.0},
        ),
    ],
    ids=["llama-linear", "gemma2-linear", "qwen2-yarn", "gemma3-linear"],
)
def test_scaled_rotary_positions_have_their_keys(
    tmp_path: Path, family: str, ropes: dict[str, Any], expected: dict[str, Any]
) -> None:
    keys = keys_of(exported(folder_of(tmp_path, family, rope_parameters=ropes)))
    start = f"{family}.rope.scaling."
    assert {key.removeprefix(start): value for key, value in keys.items() if key.startswith(start)} == expected
    if family == "gemma3":
        assert keys["gemma3.rope.freq_base_swa"] == 70.0


def test_llama_3s_divisors_give_its_frequencies(tmp_path: Path) -> None:
    """Against Transformers' own frequencies: low ones are divided by the factor, high ones by one, some in between."""
    folder = folder_of(tmp_path, "llama", rope_parameters=LLAMA_3, head_dim=32)
    form, divisors = tensors_of(exported(folder))["rope_freqs.weight"]
    config = AutoConfig.from_pretrained(folder)
    frequencies = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))[0].numpy()
    plain = 500.0 ** -(np.arange(0, 32, 2) / 32)
    np.testing.assert_allclose(plain / divisors, frequencies, rtol=1e-6)
    assert form == Form.F32 and divisors.min() == 1 and divisors.max() == 8
    assert ((divisors > 1.01) & (divisors < 7.99)).any()
    assert rope_divisors(AutoConfig.from_pretrained(folder_of(tmp_path / "plain", "llama"))) is None


@pytest.mark.parametrize(
    ("family", "settings", "context"),
    [
        ("mistral", {"sliding_window": 24}, 24),
        ("mistral", {"sliding_window": 4096}, 128),
        ("qwen2", {"sliding_window": 24, "use_sliding_window": True, "max_window_layers": 1}, 24),
        ("qwen2", {"sliding_window": 24, "use_sliding_window": True, "max_window_layers": 2}, 128),
        ("qwen3", {"sliding_window": 24}, 128),
    ],
    ids=["mistral", "wider-than-the-context", "qwen2", "qwen2-in-no-layer", "qwen3-off"],
)
def test_a_window_that_llama_cpp_lacks_cuts_the_context_and_that_is_said(
    tmp_path: Path, family: str, settings: dict[str, Any], context: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "pegbox"):
        keys = keys_of(exported(folder_of(tmp_path, family, **settings)))
    assert keys[f"{keys['general.architecture']}.context_length"] == context
    assert ("cut to the window, 24 tokens" in caplog.text) is (context == 24)


def test_within_the_cut_context_the_window_makes_no_difference(tmp_path: Path) -> None:
    """Its length is the window's, to the token: one more token, and the last would no longer see the first."""
    check_transformers_reads_the_same_model(
        folder_of(tmp_path / "same", "mistral", sliding_window=IDS.shape[1]), "f32", 1e-5
    )
    with pytest.raises(AssertionError, match="another model"):
        check_transformers_reads_the_same_model(
            folder_of(tmp_path / "less", "mistral", sliding_window=IDS.shape[1] - 1), "f32", 1e-5
        )


@pytest.mark.parametrize(("family", "layers"), [("gemma2", 46), ("gemma3", 62)])
def test_the_scalar_of_the_27b_models_is_the_one_that_llama_cpp_takes(family: str, layers: int) -> None:
    config = CONFIGS[family](num_hidden_layers=layers, head_dim=128, hidden_size=64, query_pre_attn_scalar=32)
    hub = "gemma3_text" if family == "gemma3" else family
    assert export.hyper_parameters(config, FAMILIES[hub])["attention.key_length"] == 128
    config.query_pre_attn_scalar = 128
    with pytest.raises(export.NotConvertible, match="query_pre_attn_scalar: 128, where llama.cpp takes 32"):
        export.hyper_parameters(config, FAMILIES[hub])


# ---- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_folder_in_shards_gives_the_same_bytes(tmp_path: Path, dtype: torch.dtype) -> None:
    whole = folder_of(tmp_path / "whole", "llama", dtype=dtype)
    shards = folder_of(tmp_path / "shards", "llama", dtype=dtype, shards="20KB")
    assert len(list(shards.glob("model-*.safetensors"))) > 2
    assert exported(whole).read_bytes() == exported(shards).read_bytes()


def test_only_one_matrix_at_a_time_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tensor is read when the one before it is in the file already."""
    folder, sizes, read = folder_of(tmp_path, "llama"), [], export._tensor

    def watched(file: Any, name: str) -> Any:
        sizes.append((folder / "model.gguf.part").stat().st_size)
        return read(file, name)

    monkeypatch.setattr(export, "_tensor", watched)
    exported(folder)
    assert len(sizes) == 21 and sizes == sorted(sizes) and len(set(sizes)) > 5


def change_weight(folder: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor | None]) -> Path:
    weights = load_file(folder / "model.safetensors")
    changed = change(weights.pop(name))
    save_file(weights | ({} if changed is None else {name: changed}), folder / "model.safetensors")
    return folder


def filled(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda weight: weight.clone().index_fill_(0, torch.tensor([1]), value)


WEIGHTS: list[tuple[str, Callable[[torch.Tensor], torch.Tensor | None], str]] = [
    ("model.layers.1.mlp.up_proj.weight", lambda weight: None, "lacks tensors.*up_proj"),
    ("model.layers.0.mlp.up_proj.weight", filled(math.nan), "not finite"),
    ("model.layers.0.mlp.up_proj.weight", filled(70000.0), "too large for float16.*bf16"),
    ("model.layers.0.mlp.up_proj.weight", lambda weight: weight.to(torch.int8), "torch.int8"),
    ("model.embed_tokens.weight", lambda weight: weight[:-1].clone(), "embeddings for"),
    ("model.layers.0.self_attn.q_proj.weight", lambda weight: weight[:-2].clone(), "query or key matrix"),
]


@pytest.mark.parametrize(("name", "change", "reason"), WEIGHTS, ids=[reason for *_, reason in WEIGHTS])
def test_a_checkpoint_that_is_not_the_configs_model_is_refused(
    tmp_path: Path, name: str, change: Any, reason: str
) -> None:
    folder = change_weight(folder_of(tmp_path, "llama"), name, change)
    with pytest.raises(RecipeError, match=reason):
        exported(folder, "f16")
    assert not list(folder.glob("*.gguf*")), "half a file was left behind"


def test_a_file_of_weights_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    file = folder_of(tmp_path, "llama") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(RecipeError, match="cannot be read"):
        exported(tmp_path)


def test_an_index_that_names_what_is_not_there_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "llama", shards="20KB")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    index["weight_map"]["model.norm.weight"] = (
        files[0] if index["weight_map"]["model.norm.weight"] != files[0] else files[1]
    )
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(RecipeError, match="cannot be read.*model.norm.weight"):
        exported(folder)


def test_a_tensor_that_llama_cpp_does_not_know_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "llama")
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"model.layers.0.self_attn.q_norm.weight": torch.ones(16)}, folder / "model.safetensors")
    with pytest.raises(RecipeError, match="q_norm"):
        exported(folder)
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    save_file(weights | old, folder / "model.safetensors")
    assert "rope_freqs.weight" not in tensors_of(exported(folder))


# ---- refusals --------------------------------------------------------------------------------------------------------

LOCAL = {"full_attention": LLAMA_3 | {"rope_type": "default"}, "sliding_attention": YARN}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"model_type": "gpt_neox"}, "'gpt_neox'"),
    ("llama", {"attention_bias": True}, "attention_bias: True"),
    ("llama", {"mlp_bias": True}, "mlp_bias: True"),
    ("llama", {"num_local_experts": 8}, "num_local_experts: 8"),
    ("llama", {"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
    ("llama", {"auto_map": {"AutoModel": "modeling.Mine"}}, "auto_map"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor: 0.5"),
    ("llama", {"some_new_switch": 1}, "some_new_switch: 1"),
    ("llama", {"auto_map": None}, "Transformers does not read"),
    ("llama", {"hidden_size": "wide"}, "Transformers does not read"),
    ("llama", {"is_causal": False}, "is_causal: False"),
    ("llama", {"hidden_act": "gelu"}, "hidden_act: gelu"),
    ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 500.0}}, "dynamic"),
    ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 1.0, "mrope_section": [1]}}, "mrope_section"),
    ("llama", {"rope_parameters": YARN | {"attention_factor": 1.5}}, "'attention_factor': 1.5"),
    ("llama", {"rope_parameters": YARN | {"truncate": False}}, "'truncate': False"),
    ("llama", {"rope_parameters": YARN | {"mscale": 0.7}}, "'mscale': 0.7"),
    ("llama", {"rope_parameters": YARN | {"partial_rotary_factor": 0.5}}, "'partial_rotary_factor': 0.5"),
    ("llama", {"rope_parameters": YARN | {"factor": None}}, "'factor': None"),
    ("llama", {"rope_parameters": LLAMA_3 | {"low_freq_factor": None}}, "'low_freq_factor': None"),
    ("qwen2", {"rope_parameters": LLAMA_3}, "llama3"),
    ("qwen2", {"head_dim": 32}, "4 heads of 32"),
    ("qwen3", {"attention_bias": True}, "attention_bias: True"),
    ("gemma", {"tie_word_embeddings": False}, "lm_head.weight|output matrix of its own"),
    ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention: True"),
    ("gemma2", {"rope_parameters": YARN}, "yarn"),
    ("gemma2", {"query_pre_attn_scalar": 224}, "query_pre_attn_scalar: 224, where llama.cpp takes 256"),
    ("gemma2", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
    ("gemma2", {"attn_logit_softcapping": None}, "soft cap that is off"),
    ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping: 50.0"),
    ("gemma3", {"sliding_window": None}, "sliding_window None"),
    ("gemma3", {"rope_parameters": LOCAL}, "yarn"),
]


@pytest.mark.parametrize(("family", "changes", "reason"), REFUSED, ids=[f"{f}-{r}" for f, _, r in REFUSED])
def test_what_llama_cpp_would_not_compute_is_refused_by_its_name(
    tmp_path: Path, family: str, changes: dict[str, Any], reason: str
) -> None:
    folder = change_config(folder_of(tmp_path, family), **changes)
    with pytest.raises(RecipeError, match=reason) as refusal:
        exported(folder)
    assert refusal.value.where == str(folder)
    assert all(name in str(refusal.value.cure) for name in FAMILIES)
    assert not list(folder.glob("*.gguf*"))


def test_settings_that_are_off_or_of_training_do_not_matter(tmp_path: Path) -> None:
    changes = {"num_local_experts": 0, "quantization_config": None, "attention_dropout": 0.1, "is_llama_config": True}
    exported(change_config(folder_of(tmp_path, "llama"), **changes))


def test_another_kind_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="q4_k_m") as refusal:
        exported(folder_of(tmp_path, "llama"), "q4_k_m")
    assert "f32, f16, bf16, q8_0, q4_0" in str(refusal.value.cure)


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_that_lacks_a_file_is_refused(tmp_path: Path, lost: str) -> None:
    folder = folder_of(tmp_path, "llama")
    (folder / lost).unlink()
    with pytest.raises(RecipeError):
        exported(folder)


def test_without_the_gguf_package_the_cure_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(RecipeError) as refusal:
        export.write(tmp_path, tmp_path / "x.gguf", "f16")
    assert refusal.value.cure == "pip install 'pegbox[gguf]'"


def test_a_file_that_is_there_already_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "llama", made=byte_level("gpt-2"))
    before = exported(folder).read_bytes()
    with pytest.raises(RecipeError):
        exported(change_weight(folder, "model.layers.1.mlp.down_proj.weight", filled(math.inf)))
    assert (folder / "model.gguf").read_bytes() == before
