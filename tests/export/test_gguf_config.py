"""What a config says is in the GGUF file in llama.cpp's words, or the model is refused by the setting's name."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Form
from gguf_folders import (
    CONFIGS,
    IDS,
    WINDOW,
    change_config,
    check_transformers_reads_the_same_model,
    exported,
    folder_of,
    keys_of,
    tensors_of,
)
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from pegbox.errors import RecipeError
from pegbox.export import gguf as export
from pegbox.export.gguf_config import FAMILIES, rope_divisors

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


def shortest(value: float) -> float:
    return float(str(np.float32(value)))


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
    ("llama", {"rope_parameters": LLAMA_3 | {"low_freq_factor": None}}, "does not read"),
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
