"""A model written to GGUF as llama.cpp writes it comes back as the same model, or is refused with a reason."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize
from tiny_gguf import KINDS, MERGES, SPECIAL, TEMPLATE, TOKENS, quantised, tiny_llama, write_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig

from pegbox.errors import RecipeError
from pegbox.models import gguf

IDS = torch.tensor([[5, 40, 7, 100, 260, 3, 77, 31, 8, 9]])


def converted(tmp_path: Path, model: Any, **how: Any) -> Path:
    out = tmp_path / "out"
    gguf.convert(write_gguf(tmp_path / "model.gguf", model, **how), out)
    return out


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(IDS).logits


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": False},
        {"num_key_value_heads": 4},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 100000.0}, "rms_norm_eps": 1e-2},
    ],
    ids=["tied", "untied", "no-grouped-heads", "rope-and-eps"],
)
def test_a_model_comes_back_with_the_same_logits(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = tiny_llama(**changes)
    assert torch.equal(logits(load(converted(tmp_path, model))), logits(model))


@pytest.mark.parametrize("kind", [Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1], ids=lambda kind: kind.name)
def test_quantised_matrices_come_back_as_they_were_rounded(tmp_path: Path, kind: Kind) -> None:
    model = tiny_llama()
    back = load(converted(tmp_path, model, kind=kind))
    exact = logits(model)
    assert torch.equal(logits(back), logits(quantised(model, kind)))
    assert not torch.equal(logits(back), exact)


def test_q4_1_is_dequantised_as_its_block_format_says() -> None:
    """A block: scale and minimum as fp16, then 16 bytes; low halves are values 0-15, high halves values 16-31."""
    rng = np.random.default_rng(0)
    scale, low = np.float16(0.125), np.float16(-1.5)
    packed = rng.integers(0, 256, 16, dtype=np.uint8)
    block = np.concatenate([np.array([scale, low]).view(np.uint8), packed])
    expected = [float(scale) * int(n) + float(low) for n in [*(packed & 15), *(packed >> 4)]]
    assert dequantize(block[None], Kind.Q4_1)[0].tolist() == expected


def test_query_and_key_left_as_llama_cpp_orders_them_would_be_noticed(tmp_path: Path, monkeypatch: Any) -> None:
    model = tiny_llama()
    monkeypatch.setattr(gguf, "_unpermute", lambda weight, heads, head_dim: weight)
    assert (logits(load(converted(tmp_path, model))) - logits(model)).abs().max() > 0.1


def test_transformers_own_reader_of_gguf_gives_the_same_weights(tmp_path: Path) -> None:
    out = converted(tmp_path, tiny_llama(), kind=Kind.Q8_0)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32).state_dict()
    ours = load(out).state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)


def test_the_configuration_is_the_models_own(tmp_path: Path) -> None:
    model = tiny_llama(rms_norm_eps=1e-5)
    theirs, ours = model.config, LlamaConfig.from_pretrained(converted(tmp_path, model))
    for name in ("vocab_size", "head_dim", "max_position_embeddings", "rms_norm_eps", "rope_parameters", "hidden_act"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert (ours.bos_token_id, ours.eos_token_id, ours.pad_token_id) == (1, 2, 2)
    assert ours.dtype == torch.float32


def test_a_head_size_of_its_own_is_kept(tmp_path: Path) -> None:
    model = tiny_llama(head_dim=32)
    sizes = {"llama.attention.key_length": 32, "llama.attention.value_length": 32}
    assert torch.equal(logits(load(converted(tmp_path, model, metadata=sizes))), logits(model))


def test_the_tokenizer_has_its_special_tokens_and_template(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(converted(tmp_path, tiny_llama()))
    roles = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token)
    assert roles == ("<|im_start|>", "<|im_end|>", "<|im_end|>", "<|endoftext|>")
    assert tokenizer.chat_template == TEMPLATE
    assert tokenizer.extra_special_tokens == ["<|im_start|>", "<|im_end|>"]
    assert tokenizer.model_max_length == 128
    ids = tokenizer("<|im_start|>the<unused>").input_ids
    assert ids == [1, TOKENS.index("the"), SPECIAL.index("<unused>")]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the"


def test_generation_stops_at_the_end_of_turn_too_where_it_is_another_token(tmp_path: Path) -> None:
    out = converted(
        tmp_path, tiny_llama(), metadata={"tokenizer.ggml.eos_token_id": 0, "tokenizer.ggml.eot_token_id": 2}
    )
    assert GenerationConfig.from_pretrained(out).eos_token_id == [0, 2]
    assert json.loads((out / "config.json").read_text())["eos_token_id"] == 0


def test_no_name_of_a_special_token_is_made_up(tmp_path: Path) -> None:
    absent = dict.fromkeys(("bos", "eos", "padding", "unknown"))
    out = converted(tmp_path, tiny_llama(), metadata={f"tokenizer.ggml.{role}_token_id": None for role in absent})
    assert json.loads((out / "generation_config.json").read_text()) == {}
    assert AutoTokenizer.from_pretrained(out).eos_token is None


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"metadata": {"general.architecture": "qwen2"}}, "architecture 'qwen2'"),
    ({"metadata": {"llama.rope.scaling.type": "linear"}}, "llama.rope.scaling.type"),
    ({"metadata": {"llama.expert_count": 8}}, "llama.expert_count"),
    ({"metadata": {"llama.attention.head_count": [4, 4]}}, "llama.attention.head_count"),
    ({"metadata": {"llama.rope.dimension_count": 8}}, "llama.rope.dimension_count 8"),
    ({"metadata": {"llama.attention.layer_norm_rms_epsilon": None}}, "layer_norm_rms_epsilon"),
    ({"metadata": {"tokenizer.ggml.pre": "default"}}, "pre-tokenizer 'default'"),
    ({"metadata": {"tokenizer.ggml.pre": "made-up"}}, "pre-tokenizer 'made-up'"),
    ({"metadata": {"tokenizer.ggml.pre": None}}, "pre-tokenizer None"),
    ({"metadata": {"tokenizer.ggml.model": "llama"}}, "kind 'llama'"),
    ({"metadata": {"tokenizer.ggml.merges": [*MERGES, "zz yy"]}}, "merges that do not fit"),
    ({"metadata": {"tokenizer.ggml.tokens": [*TOKENS[:3], "!", *TOKENS[4:]]}}, "the same token twice"),
    ({"metadata": {"tokenizer.ggml.tokens": TOKENS[:-1], "tokenizer.ggml.token_type": KINDS[:-1]}}, "merges"),
    ({"metadata": {"tokenizer.ggml.token_type": KINDS[:-1]}}, "token_type"),
    ({"metadata": {"tokenizer.ggml.tokens": [*TOKENS, "xx"], "tokenizer.ggml.token_type": [*KINDS, 1]}}, "embeddings"),
    ({"metadata": {"tokenizer.ggml.eos_token_id": 9999}}, "9999 as its eos"),
    ({"metadata": {"tokenizer.ggml.bos_token_id": None, "tokenizer.ggml.add_bos_token": True}}, "names none"),
    ({"without": "blk.1.ffn_up.weight"}, "blk.1.ffn_up.weight"),
    ({"extra": {"rope_freqs.weight": np.ones(8, dtype=np.float32)}}, "rope_freqs.weight"),
    ({"extra": {"blk.0.attn_q.bias": np.ones(64, dtype=np.float32)}}, "blk.0.attn_q.bias"),
]


@pytest.mark.parametrize(("how", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_what_cannot_be_carried_over_exactly_is_refused(tmp_path: Path, how: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        converted(tmp_path, tiny_llama(), **how)
    assert reason in refusal.value.what
    assert refusal.value.where == str(tmp_path / "model.gguf")
    assert "smollm" in str(refusal.value.cure) and "llama" in str(refusal.value.cure)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("length", [0, 3, 20, 300, 5000, 60_000], ids=lambda n: f"{n}-bytes")
def test_a_file_cut_short_is_refused(tmp_path: Path, length: int) -> None:
    whole = write_gguf(tmp_path / "model.gguf", tiny_llama()).read_bytes()
    assert length < len(whole)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[:length])
    with pytest.raises(RecipeError, match="not a whole one"):
        gguf.convert(cut, tmp_path / "out")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"PK\x03\x04" * 1000)
    with pytest.raises(RecipeError, match="no GGUF file"):
        gguf.convert(tmp_path / "x.gguf", tmp_path / "out")


def test_without_the_gguf_package_the_cure_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    path = write_gguf(tmp_path / "model.gguf", tiny_llama())
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(RecipeError) as refusal:
        gguf.convert(path, tmp_path / "out")
    assert refusal.value.cure == "pip install 'pegbox[gguf]'"
