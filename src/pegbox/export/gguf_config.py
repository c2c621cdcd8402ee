"""A hub config -> GGUF's architecture and its keys, or the reason why the model cannot be written.

llama.cpp computes what its architecture of that name computes: a key that it does not read, or one that was left out,
changes the model without a word. So every setting of config.json is one that is carried over, one that only training or
loading takes notice of, or off; anything else is refused by its name.

What llama.cpp lacks is written otherwise where the function stays the same, and refused where it does not:

- A sliding window under `llama` and `qwen`: those attend to everything. The context length is cut down to the window,
  within which both are the same.
- `query_pre_attn_scalar` of Gemma 2 and 3: no key is read; llama.cpp divides by sqrt(head_dim), and at the depth of
  the 27B models by sqrt(hidden_size / heads). Any other scalar is refused.
- Llama 3's scaled rotary positions: no key, but the tensor `rope_freqs.weight` [head_dim / 2], the number that each
  frequency is divided by. With w_i = 2 pi theta^(2 i / d), the wave length, and L the original context length:

      s_i = clip((L / w_i - low) / (high - low), 0, 1),        1 / rope_freqs_i = (1 - s_i) / factor + s_i

Keys: the GGUF specification (ggml, docs/gguf.md), and what llama.cpp's loaders of these architectures read
(src/models, 2026). Transformers' own reader of GGUF takes no notice of scaled rotary positions, of Gemma's soft caps
and scalar, nor of Qwen 3's head size: it loads such models with the defaults of their class.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import PreTrainedConfig

from pegbox.models.gguf import LAYER_TENSORS, SIZES
from pegbox.models.gguf_tokenizer import NotConvertible

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger("pegbox")

SILU, GELU = "silu", "gelu_pytorch_tanh"
QUERY_KEY_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
FOUR_NORMS = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


@dataclass(frozen=True)
class Family:
    """What llama.cpp's architecture of this name computes.

    layer_tensors: GGUF's name of a layer's tensor -> the hub's; those of `biases` have a bias, too. permuted: query and
    key rows are in llama.cpp's order. norm_offset: added to the weights of norms, which the hub stores without it.
    ropes: the kinds of scaled rotary positions. window_every: of so many layers the last attends to everything, the
    others through the sliding window. deep: so many layers make it the model with the other attention scale. settings:
    what config.json may hold besides what all have. own_output: it reads an output matrix that is not the embedding.
    """

    architecture: str
    activation: tuple[str, str] = ("hidden_act", SILU)
    layer_tensors: Mapping[str, str] = field(default_factory=lambda: LAYER_TENSORS)
    biases: tuple[str, ...] = ()
    permuted: bool = False
    norm_offset: float = 0.0
    ropes: tuple[str, ...] = ("default", "linear", "yarn")
    window_every: int = 0
    deep: int = 0
    settings: frozenset[str] = frozenset()
    own_output: bool = True


LLAMA_ROPES, GEMMA_ROPES = ("default", "linear", "yarn", "llama3"), ("default", "linear")
WINDOWS = frozenset({"sliding_window", "layer_types", "use_sliding_window", "max_window_layers"})
SCALES = frozenset({"query_pre_attn_scalar", "sliding_window", "layer_types", "final_logit_softcapping"})
FAMILIES: Mapping[str, Family] = {
    "llama": Family("llama", permuted=True, ropes=LLAMA_ROPES),
    "mistral": Family("llama", permuted=True, ropes=LLAMA_ROPES, settings=frozenset({"sliding_window"})),
    "qwen2": Family("qwen2", biases=("attn_q", "attn_k", "attn_v"), settings=WINDOWS),
    "qwen3": Family("qwen3", layer_tensors={**LAYER_TENSORS, **QUERY_KEY_NORMS}, settings=WINDOWS),
    "gemma": Family("gemma", ("hidden_act", GELU), norm_offset=1.0, ropes=GEMMA_ROPES, own_output=False),
    "gemma2": Family(
        "gemma2",
        ("hidden_activation", GELU),
        {**LAYER_TENSORS, **FOUR_NORMS},
        norm_offset=1.0,
        ropes=GEMMA_ROPES,
        window_every=2,
        deep=46,
        settings=SCALES | {"attn_logit_softcapping"},
        own_output=False,
    ),
    "gemma3_text": Family(
        "gemma3",
        ("hidden_activation", GELU),
        {**LAYER_TENSORS, **FOUR_NORMS, **QUERY_KEY_NORMS},
        norm_offset=1.0,
        ropes=GEMMA_ROPES,
        window_every=6,
        deep=62,
        settings=SCALES | {"sliding_window_pattern", "_sliding_window_pattern", "rope_local_base_freq"},
    ),
}
CARRIED = {*SIZES, "num_key_value_heads", "head_dim", "rms_norm_eps", "vocab_size", "tie_word_embeddings", "license"}
CARRIED |= {"hidden_act", "hidden_activation", "rope_theta", "rope_scaling", "rope_parameters", "is_causal"}
CARRIED |= {"architectures", "model_type", "bos_token_id", "eos_token_id", "pad_token_id"}
# What training, loading or another head takes notice of, and a forward pass does not.
PASSED_OVER = {"dtype", "torch_dtype", "transformers_version", "_name_or_path", "use_cache", "initializer_range"}
PASSED_OVER |= {"attention_dropout", "classifier_dropout", "pretraining_tp", "cache_implementation", "return_dict"}
PASSED_OVER |= {"id2label", "label2id", "problem_type", "is_llama_config", "transformers.js_config", "tokenizer_class"}
PASSED_OVER |= {"unsloth_version", "unsloth_fixed", "_attn_implementation", "_attn_implementation_autoset"}
# By kind of rotary positions, the settings that it needs and those that it may have.
ROPE_SETTINGS: Mapping[str, tuple[set[str], set[str]]] = {
    "default": (set(), set()),
    "linear": ({"factor"}, set()),
    "yarn": (
        {"factor", "original_max_position_embeddings"},
        {"attention_factor", "beta_fast", "beta_slow", "truncate"},
    ),
    "llama3": ({"factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"}, set()),
}


def family_of(told: Mapping[str, Any]) -> Family:
    """The family of the model whose config.json is `told`. Raises NotConvertible where it holds what GGUF cannot say."""
    family = FAMILIES.get(str(told.get("model_type")))
    if family is None:
        raise NotConvertible(f"is of the architecture {told.get('model_type')!r}")
    known = CARRIED | PASSED_OVER | family.settings
    odd = [f"{key}: {str(value)[:60]}" for key, value in sorted(told.items()) if value and key not in known]
    if told.get("is_causal") is False:
        odd.append("is_causal: False")
    if odd:
        raise NotConvertible(f"has settings that llama.cpp's architecture cannot follow: {', '.join(odd)}")
    return family


def hyper_parameters(config: PreTrainedConfig, family: Family) -> dict[str, Any]:
    """GGUF's keys of the architecture, without its name before them. Raises NotConvertible."""
    named, known = family.activation
    if (activation := getattr(config, named)) != known:
        raise NotConvertible(f"has {named}: {activation}, where llama.cpp computes {known}")
    heads, head_dim = int(config.num_attention_heads), head_size(config)
    if family.architecture == "qwen2" and heads * head_dim != config.hidden_size:
        raise NotConvertible(f"has {heads} heads of {head_dim}, which llama.cpp's qwen2 cannot have")
    keys = {key: int(getattr(config, name)) for name, key in SIZES.items()} | {
        "attention.head_count_kv": int(config.num_key_value_heads),
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "vocab_size": int(config.vocab_size),
    }
    if family.permuted:
        keys["rope.dimension_count"] = head_dim
    return keys | _rope(config, family) | _window(config, family) | _scores(config, family, head_dim)


def head_size(config: PreTrainedConfig) -> int:
    """The components of one head; Qwen 2's config has no name for it."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def rope_divisors(config: PreTrainedConfig) -> NDArray[np.float32] | None:
    """Llama 3's scaled rotary positions: what each frequency is divided by, [head_dim / 2]; None for other kinds."""
    told = config.rope_parameters
    if told.get("rope_type") != "llama3":
        return None
    size, low, high = head_size(config), told["low_freq_factor"], told["high_freq_factor"]
    lengths = 2 * math.pi * told["rope_theta"] ** (np.arange(0, size, 2) / size)
    share = np.clip((told["original_max_position_embeddings"] / lengths - low) / (high - low), 0, 1)
    return np.asarray(1 / ((1 - share) / told["factor"] + share), dtype=np.float32)


def _rope(config: PreTrainedConfig, family: Family) -> dict[str, Any]:
    told = config.rope_parameters
    if "full_attention" not in told:
        return _scaling(told, family)
    full, local = told["full_attention"], told["sliding_attention"]
    _scaling(local, Family(family.architecture, ropes=("default",)))  # no key scales them
    return _scaling(full, family) | {"rope.freq_base_swa": float(local["rope_theta"])}


def _scaling(told: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """The keys of one kind of rotary positions; each setting must be known, and heads be rotated whole."""
    kind = told["rope_type"]
    needed, optional = ROPE_SETTINGS.get(kind, (set(), set()))
    given = {key: value for key, value in told.items() if value and (key, value) != ("partial_rotary_factor", 1.0)}
    odd = given.keys() - {"rope_type", "type", "rope_theta"} - needed - optional
    if kind not in family.ropes or odd or needed - given.keys():
        raise NotConvertible(
            f"has rotary positions that llama.cpp's {family.architecture} does not compute: {dict(told)}"
        )
    keys: dict[str, Any] = {"rope.freq_base": float(told["rope_theta"])}
    if kind in ("linear", "yarn"):
        keys |= {"rope.scaling.type": kind, "rope.scaling.factor": float(told["factor"])}
    return keys | _yarn(told) if kind == "yarn" else keys


def _yarn(told: Mapping[str, Any]) -> dict[str, Any]:
    """YaRN (Peng et al. 2023, arXiv 2309.00071), whose scale of the attention llama.cpp always takes from the factor."""
    usual = 0.1 * math.log(told["factor"]) + 1
    if not math.isclose(told.get("attention_factor") or usual, usual, rel_tol=1e-6) or told.get("truncate") is False:
        raise NotConvertible(f"has rotary positions that llama.cpp does not compute: {dict(told)}")
    keys: dict[str, Any] = {"rope.scaling.original_context_length": int(told["original_max_position_embeddings"])}
    given = {f"rope.scaling.yarn_{name}": told.get(name) for name in ("beta_fast", "beta_slow")}
    return keys | {key: float(value) for key, value in given.items() if value}


def _window(config: PreTrainedConfig, family: Family) -> dict[str, Any]:
    """The sliding window, or where llama.cpp knows none in this architecture, a context that is no longer than it."""
    window, types = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    if family.window_every:
        layers = range(1, config.num_hidden_layers + 1)
        usual = ["sliding_attention" if i % family.window_every else "full_attention" for i in layers]
        if types != usual or not window:
            what = f"sliding_window {window} in layers other than llama.cpp's {family.architecture}"
            raise NotConvertible(f"has layer_types with {what}")
        return {"attention.sliding_window": int(window)}
    slides = types is None or "sliding_attention" in types
    if not window or not slides or window >= config.max_position_embeddings:
        return {}
    log.warning("llama.cpp has no sliding window here: the context length is cut to the window, %d tokens", window)
    return {"context_length": int(window)}


def _scores(config: PreTrainedConfig, family: Family, head_dim: int) -> dict[str, Any]:
    """Gemma's soft caps, y = cap tanh(x / cap); raises NotConvertible for a scale of the scores that is another."""
    if "query_pre_attn_scalar" not in family.settings:
        return {}
    deep = config.num_hidden_layers == family.deep
    taken = config.hidden_size // config.num_attention_heads if deep else head_dim
    if config.query_pre_attn_scalar != taken:
        raise NotConvertible(
            f"has query_pre_attn_scalar: {config.query_pre_attn_scalar}, where llama.cpp takes {taken}"
        )
    caps = {
        "attn_logit_softcapping": getattr(config, "attn_logit_softcapping", None),
        "final_logit_softcapping": config.final_logit_softcapping,
    }
    if family.architecture == "gemma2" and not all(caps.values()):
        raise NotConvertible(f"has a soft cap that is off, where llama.cpp's gemma2 takes its own: {caps}")
    return {key: float(cap) for key, cap in caps.items() if cap}
