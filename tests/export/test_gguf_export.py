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
from gguf import LlamaFileType
from gguf.quants import dequantize, quantize
from gguf_folders import (
    CONFIGS,
    byte_level,
    change_config,
    check_transformers_reads_the_same_model,
    exported,
    folder_of,
    keys_of,
    tensors_of,
)
from safetensors.torch import load_file, save_file

from pegbox.errors import RecipeError
from pegbox.export import gguf as export
from pegbox.export.gguf_config import family_of
from pegbox.models import gguf as reader

READ_BY_TRANSFORMERS = [family for family in CONFIGS if family != "gemma"]
OFFSET = ("gemma", "gemma2", "gemma3")


# ---- the same function -----------------------------------------------------------------------------------------------


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
