"""GGUF -> a folder in the hub's layout: config, weights, tokenizer, chat template, generation config.

Weights are dequantised to float32, which holds every value of the 4- to 8-bit formats and of bf16 and fp16 exactly:
four bytes a weight on disk (538 MB for SmolLM2-135M from a 98 MB file), all of it in memory for a moment.

llama.cpp rotates neighbouring pairs of a head's components, Transformers pairs component i with i + d/2; so llama.cpp's
converter reorders the rows of the query and key weights of each head, and here that is undone:

    rows of one head in GGUF: 0, d/2, 1, d/2 + 1, ...   ->   0, 1, ..., d - 1

No output matrix means that it is the embedding matrix (tied). Only the Llama architecture is read, and every key and
every tensor must be one that is known: a key left unread (scaled rotary positions, experts) changes the model silently.

Layout: the GGUF specification (ggml, docs/gguf.md). The tensors are read with the `gguf` package; Transformers' own
reader of GGUF gives the same weights (tested) but GPT-2's pre-tokenizer to every BPE model, and is not used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pegbox.errors import RecipeError
from pegbox.models.gguf_tokenizer import PRE_RULES, NotConvertible, build_tokenizer, special_id, tokenizer_settings

if TYPE_CHECKING:
    from gguf import GGUFReader
    from numpy.typing import NDArray

CURE = (
    "give the model's own folder or hub name instead; of GGUF, pegbox reads the architecture 'llama' without scaled"
    f" rotary positions or experts, with a byte-level BPE tokenizer cut as one of: {', '.join(PRE_RULES)}"
)
SIZES = {
    "num_hidden_layers": "block_count",
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
}
KNOWN_KEYS = {
    *SIZES.values(),
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
    "vocab_size",
}
LAYER_TENSORS: Mapping[str, str] = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def convert(gguf_path: Path, out: Path) -> None:
    """Write the model in `gguf_path` into the folder `out`, to be loaded by Transformers as any other.

    Raises RecipeError for a file that is not GGUF or holds something that cannot be carried over exactly, OSError where
    the folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        reader, fields = _open(gguf_path)
        config = _config(fields, tied=all(tensor.name != "output.weight" for tensor in reader.tensors))
        tokenizer = build_tokenizer(fields)
        settings = tokenizer_settings(fields, config["max_position_embeddings"])
        weights = _weights(reader, config)
    except NotConvertible as refusal:
        raise RecipeError(f"the file {refusal}", where=str(gguf_path), cure=CURE) from refusal
    out.mkdir(parents=True, exist_ok=True)
    try:
        save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    except SafetensorError as error:  # a full disk, say
        raise OSError(str(error)) from error
    (out / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    _write_json(out / "config.json", config)
    _write_json(out / "tokenizer_config.json", settings)
    _write_json(out / "generation_config.json", _generation_config(fields))
    # safetensors writes its file for the owner alone; a cache may be shared
    (out / "model.safetensors").chmod((out / "config.json").stat().st_mode)


def general_keys(path: Path) -> dict[str, Any]:
    """The keys of a GGUF file that tell of the model as a whole (`general.*`), with their values. Raises RecipeError."""
    try:
        fields = _open(path)[1]
    except NotConvertible as refusal:
        raise RecipeError(f"the file {refusal}", where=str(path), cure=CURE) from refusal
    return {key: value for key, value in fields.items() if key.startswith("general.")}


def require_package(where: str) -> None:
    """Raises RecipeError where the extra `gguf` is not installed."""
    try:
        import gguf  # noqa: F401
    except ModuleNotFoundError as error:
        raise RecipeError("GGUF needs the package gguf", where=where, cure="pip install 'pegbox[gguf]'") from error


def _open(path: Path) -> tuple[GGUFReader, dict[str, Any]]:
    """The file, and its keys with their values."""
    require_package(str(path))
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        return reader, {key: field.contents() for key, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, OverflowError) as error:  # UnicodeDecodeError is a ValueError
        raise NotConvertible(f"is no GGUF file, or not a whole one ({error})") from error


def _config(fields: Mapping[str, Any], *, tied: bool) -> dict[str, Any]:
    """config.json of a Llama model, as Transformers 5 writes it."""
    if (architecture := fields.get("general.architecture")) != "llama":
        raise NotConvertible(f"holds a model of the architecture {architecture!r}")
    unknown = {key for key in fields if key.startswith("llama.")} - {f"llama.{key}" for key in KNOWN_KEYS}
    if unknown:
        raise NotConvertible(f"has keys that are not known here: {', '.join(sorted(unknown))}")
    sizes = {name: _whole(fields, key) for name, key in SIZES.items()}
    heads = sizes["num_attention_heads"]
    head_dim = _whole(fields, "attention.key_length", sizes["hidden_size"] // heads)
    for key in ("rope.dimension_count", "attention.value_length"):
        if _whole(fields, key, head_dim) != head_dim:
            raise NotConvertible(f"has heads of {head_dim} components but llama.{key} {fields[f'llama.{key}']}")
    roles = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": len(fields.get("tokenizer.ggml.tokens") or ()),
        **sizes,
        "num_key_value_heads": _whole(fields, "attention.head_count_kv", heads),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": _decimal(fields, "attention.layer_norm_rms_epsilon"),
        "rope_parameters": {"rope_type": "default", "rope_theta": _decimal(fields, "rope.freq_base", 10000.0)},
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        **{name: special_id(fields, role) for name, role in roles.items()},
    }


def _weights(reader: GGUFReader, config: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Every tensor under its hub name, float32, query and key rows in Transformers' order."""
    from gguf.quants import dequantize

    names = tensor_names(config["num_hidden_layers"], tied=config["tie_word_embeddings"])
    found = {tensor.name: tensor for tensor in reader.tensors}
    if found.keys() != names.keys():
        wrong = ", ".join(sorted(found.keys() ^ names.keys())[:4])
        raise NotConvertible(f"lacks tensors, or has some that are not known here: {wrong}")
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    weights = {}
    for name, tensor in found.items():
        try:
            weight = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        except NotImplementedError as error:
            raise NotConvertible(
                f"is quantised as {tensor.tensor_type.name}, which the gguf package cannot undo"
            ) from error
        kind = name.split(".")[2:3]
        if kind and kind[0] in heads:
            weight = _unpermute(weight, heads[kind[0]], config["head_dim"])
        weights[names[name]] = np.ascontiguousarray(weight)
    if len(weights["model.embed_tokens.weight"]) != config["vocab_size"]:
        raise NotConvertible("has more or fewer embeddings than tokens")
    return weights


def tensor_names(
    layers: int, *, tied: bool, layer_tensors: Mapping[str, str] = LAYER_TENSORS, biases: Sequence[str] = ()
) -> dict[str, str]:
    """GGUF's name of each tensor -> the hub's. `biases`: the tensors of a layer that have one besides their weight."""
    names = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    if not tied:
        names["output.weight"] = "lm_head.weight"
    for layer in range(layers):
        for theirs, ours in layer_tensors.items():
            for part in ("weight", "bias") if theirs in biases else ("weight",):
                names[f"blk.{layer}.{theirs}.{part}"] = f"model.layers.{layer}.{ours}.{part}"
    return names


def permute(weight: NDArray[np.float32], heads: int, head_dim: int) -> NDArray[np.float32]:
    """`weight` [heads * head_dim, hidden]: rows of each head from two halves to interleaved pairs."""
    return _reordered(weight, (heads, 2, head_dim // 2))


def _unpermute(weight: NDArray[np.float32], heads: int, head_dim: int) -> NDArray[np.float32]:
    """`weight` [heads * head_dim, hidden]: rows of each head from interleaved pairs to two halves."""
    return _reordered(weight, (heads, head_dim // 2, 2))


def _reordered(weight: NDArray[np.float32], order: tuple[int, int, int]) -> NDArray[np.float32]:
    """The rows of each head as a table of the last two numbers of `order`, read column by column."""
    if weight.ndim != 2 or len(weight) != np.prod(order):
        heads, *table = order
        raise NotConvertible(f"has a query or key matrix of shape {weight.shape} for {heads} heads of {np.prod(table)}")
    return weight.reshape(*order, -1).swapaxes(1, 2).reshape(weight.shape)


def _generation_config(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Generation ends at the end-of-sequence token and, where the file names another, at the end-of-turn token."""
    ids = {role: special_id(fields, role) for role in ("bos", "eos", "eot", "padding")}
    stops = sorted({token_id for role in ("eos", "eot") if (token_id := ids[role]) is not None})
    settings = {
        "bos_token_id": ids["bos"],
        "eos_token_id": stops[0] if len(stops) == 1 else stops,
        "pad_token_id": ids["padding"],
    }
    return {name: value for name, value in settings.items() if value not in (None, [])}


def _whole(fields: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = fields.get(f"llama.{key}", default)
    if not isinstance(value, int) or value < 1:
        raise NotConvertible(f"has no usable number llama.{key}")
    return value


def _decimal(fields: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """The shortest decimal that is the file's float32: 1e-05, as published, for 9.999999747378752e-06."""
    value = fields.get(f"llama.{key}", default)
    if not isinstance(value, float) or not value > 0:
        raise NotConvertible(f"has no usable number llama.{key}")
    return float(str(np.float32(value)))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
