"""A Llama of a few thousand random weights, as Transformers holds it and as llama.cpp would write it to GGUF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from bpe_oracle import LETTERS
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize
from transformers import LlamaConfig, LlamaForCausalLM

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unused>"]
MERGES = ["Ġ Ġ", "Ċ Ċ", "t h", "th e", "Ġ the", "1 2", "Ġ 1", "i n", "Ġ in", "e r", "r e", "0 2", "ĠĠ ĠĠ"]
TOKENS = [*SPECIAL, *LETTERS.values(), *(merge.replace(" ", "") for merge in MERGES)]
KINDS = [3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL))
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
TENSORS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def tiny_llama(**changes: Any) -> LlamaForCausalLM:
    """Random weights, large enough that every part of the model shows in the logits."""
    settings: dict[str, Any] = {
        "vocab_size": len(TOKENS),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
        "tie_word_embeddings": True,
        "initializer_range": 0.3,
    }
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**(settings | changes))).eval()


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from two halves to interleaved pairs, row by row as llama.cpp's runtime wants them."""
    size = len(weight) // heads
    order = [head * size + i + half for head in range(heads) for i in range(size // 2) for half in (0, size // 2)]
    return weight[order]


def write_gguf(
    path: Path,
    model: LlamaForCausalLM,
    *,
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
    metadata: dict[str, Any] | None = None,
    without: str = "",
    extra: dict[str, np.ndarray] | None = None,
) -> Path:
    """`model` as a GGUF file; `kind` for the matrices. `metadata` adds or replaces keys, None leaves one out."""
    config = model.config
    keys: dict[str, Any] = {
        "llama.block_count": config.num_hidden_layers,
        "llama.context_length": config.max_position_embeddings,
        "llama.embedding_length": config.hidden_size,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads,
        "llama.attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "llama.rope.freq_base": float(config.rope_parameters["rope_theta"]),
        "llama.rope.dimension_count": config.head_dim,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": KINDS,
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }
    architecture = (metadata or {}).get("general.architecture", "llama")
    writer = GGUFWriter(path, architecture)
    for key, value in (keys | (metadata or {})).items():
        if value is not None and key != "general.architecture":
            _add(writer, key, value)
    for name, weight in (_tensors(model) | (extra or {})).items():
        if name != without:
            used = kind if weight.ndim == 2 else GGMLQuantizationType.F32
            writer.add_tensor(name, quantize(weight, used), raw_dtype=used)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def quantised(model: LlamaForCausalLM, kind: GGMLQuantizationType) -> LlamaForCausalLM:
    """`model` with every matrix rounded as `kind` rounds it (rows are rounded alone, so their order is free)."""
    for parameter in model.parameters():
        if parameter.ndim == 2:
            rounded = dequantize(quantize(parameter.detach().numpy(), kind), kind)
            parameter.data = torch.from_numpy(np.array(rounded))
    return model


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _tensors(model: LlamaForCausalLM) -> dict[str, np.ndarray]:
    state = {name: weight.detach().numpy() for name, weight in model.state_dict().items()}
    tensors = {
        "token_embd.weight": state["model.embed_tokens.weight"],
        "output_norm.weight": state["model.norm.weight"],
    }
    if not model.config.tie_word_embeddings:
        tensors["output.weight"] = state["lm_head.weight"]
    heads = {"attn_q": model.config.num_attention_heads, "attn_k": model.config.num_key_value_heads}
    for layer in range(model.config.num_hidden_layers):
        for theirs, ours in TENSORS.items():
            weight = state[f"model.layers.{layer}.{theirs}.weight"]
            tensors[f"blk.{layer}.{ours}.weight"] = permute(weight, heads[ours]) if ours in heads else weight
    return tensors
