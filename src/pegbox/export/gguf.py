"""A folder in the hub's layout -> one GGUF file, the form that llama.cpp and the programs built on it read.

The inverse of `pegbox.models.gguf`, for more architectures: Llama (and SmolLM2, Mistral), Qwen 2 and 3, Gemma, Gemma 2
and the text models of Gemma 3. What llama.cpp would compute otherwise than Transformers is refused by its name
(gguf_config.py, gguf_vocabulary.py); the little that differs at the edges is said in a warning.

Kinds. `f32`, `f16`, `bf16` store every matrix in that form. `q8_0` and `q4_0` store blocks of 32 numbers x of a row as
integers with one scale d in float16:

    q8_0:  d = max|x| / 127,  q = round(x / d)           q4_0:  d = m / -8,  q = min(15, floor(x / d + 8.5))

with m the number of the largest magnitude, sign kept. Norms and biases are float32 in every kind. As in llama.cpp's
converter (convert_hf_to_gguf.py), `q8_0` takes in the embedding and output matrices. That converter has no `q4_0`;
llama.cpp's quantiser, which makes it there, stores the output matrix (the embedding, where that is tied) as Q6_K, or as
Q8_0 where Q6_K's blocks do not fit. The gguf package cannot write Q6_K, so here it is Q8_0 always: 8.5 bits a weight
instead of 6.6. A matrix whose rows are no multiple of 32 numbers is stored as float16, as there.

Layout: the GGUF specification (ggml, docs/gguf.md). Tensors are read, reordered, rounded and written one by one: at a
time one matrix is in memory. The file appears whole or not at all.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PreTrainedConfig

from pegbox.errors import RecipeError
from pegbox.export.gguf_config import FAMILIES, Family, family_of, head_size, hyper_parameters, rope_divisors
from pegbox.export.gguf_vocabulary import vocabulary
from pegbox.models.gguf import permute, require_package, tensor_names
from pegbox.models.gguf_tokenizer import NotConvertible
from pegbox.models.load import load_tokenizer, stop_ids

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter
    from numpy.typing import NDArray

log = logging.getLogger("pegbox")

KINDS = ("f32", "f16", "bf16", "q8_0", "q4_0")
FILE_TYPES = {"f32": "ALL_F32"}  # else MOSTLY_ and the kind
CURE = f"GGUF is written for {', '.join(FAMILIES)}; Transformers and vLLM load the folder as it is"
DIVISORS = "rope_freqs.weight"
LARGEST = float(np.finfo(np.float16).max)
WEIGHTS = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Plan:
    """What is to be written. `names`: GGUF's name of each tensor -> the hub's; `files`: the hub's name -> where it is."""

    config: PreTrainedConfig
    family: Family
    keys: Mapping[str, Any]
    names: Mapping[str, str]
    files: Mapping[str, Path]
    divisors: NDArray[np.float32] | None


def write(folder: Path, out: Path, kind: str) -> None:
    """Write the model in `folder` to the file `out`, its matrices as `kind` (one of KINDS).

    Raises RecipeError for a model that GGUF cannot say or llama.cpp cannot compute, OSError where the file cannot be
    written.
    """
    require_package(str(folder))
    if kind not in KINDS:
        raise RecipeError(f"there is no kind {kind!r} of GGUF file here", cure=f"choose among {', '.join(KINDS)}")
    part = out.with_name(f"{out.name}.part")
    try:
        plan = _plan(folder, out.stem, kind)
        out.parent.mkdir(parents=True, exist_ok=True)
        _write(plan, part, kind)
        os.replace(part, out)
    except NotConvertible as refusal:
        raise RecipeError(f"the model {refusal}", where=str(folder), cure=CURE) from refusal
    except SafetensorError as error:
        raise RecipeError(f"the model's weights cannot be read ({error})", where=str(folder)) from error
    finally:
        part.unlink(missing_ok=True)


def _plan(folder: Path, name: str, kind: str) -> Plan:
    """What the folder holds, in GGUF's words. Raises NotConvertible, RecipeError."""
    told = _read_json(folder / "config.json")
    family = family_of(told)
    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except (ValueError, TypeError, OSError, StrictDataclassError) as error:
        raise NotConvertible(f"has a config.json that Transformers does not read ({error})") from error
    files = _files(folder)
    names = _names(config, family, files)
    stops = stop_ids(folder) or _listed(config.eos_token_id)
    keys = _general(name, told, family, kind)
    keys |= {f"{family.architecture}.{key}": value for key, value in hyper_parameters(config, family).items()}
    keys |= vocabulary(load_tokenizer(folder), stops, int(config.vocab_size))
    return Plan(config, family, keys, names, files, rope_divisors(config))


def _general(name: str, told: Mapping[str, Any], family: Family, kind: str) -> dict[str, Any]:
    """The keys that tell of the model as a whole; its name is the file's, without the kind at its end."""
    from gguf import GGML_QUANT_VERSION, LlamaFileType

    keys = {
        "general.architecture": family.architecture,
        "general.type": "model",
        "general.name": name.removesuffix(kind).rstrip("-_.") or name,
        "general.file_type": int(LlamaFileType[FILE_TYPES.get(kind, f"MOSTLY_{kind.upper()}")]),
        "general.quantization_version": GGML_QUANT_VERSION,
    }
    licence = told.get("license")
    return keys | ({"general.license": licence} if isinstance(licence, str) else {})


def _listed(ids: int | list[int] | None) -> list[int]:
    return [ids] if isinstance(ids, int) else list(ids or [])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NotConvertible(f"has no {path.name} that can be read ({error})") from error
    if not isinstance(found, dict):
        raise NotConvertible(f"has a {path.name} that is no object")
    return found


# ---- the weights of the folder ---------------------------------------------------------------------------------------


def _files(folder: Path) -> dict[str, Path]:
    """The hub's name of each tensor -> the file that holds it."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        return {name: folder / file for name, file in _read_json(index).get("weight_map", {}).items()}
    with ExitStack() as stack:
        return dict.fromkeys(_opened(stack, single).keys(), single)


def _names(config: PreTrainedConfig, family: Family, files: Mapping[str, Path]) -> dict[str, str]:
    """GGUF's name of each tensor -> the hub's; each must be there, and no other. An output matrix that is tied is left out."""
    tied = bool(config.tie_word_embeddings) and not _differ(files, "model.embed_tokens.weight", "lm_head.weight")
    if not tied and not family.own_output:
        raise NotConvertible(f"has an output matrix of its own, which llama.cpp's {family.architecture} does not read")
    layers = int(config.num_hidden_layers)
    names = tensor_names(layers, tied=tied, layer_tensors=family.layer_tensors, biases=family.biases)
    found = {name for name in files if not name.endswith(".rotary_emb.inv_freq")}  # old checkpoints; the config says it
    found -= {"lm_head.weight"} if tied else set()
    if odd := sorted(found ^ set(names.values())):
        raise NotConvertible(f"lacks tensors, or has some that llama.cpp does not know: {', '.join(odd[:4])}")
    return names


def _differ(files: Mapping[str, Path], *names: str) -> bool:
    """Whether both tensors are there and are not the same; Transformers then ties them as little."""
    if not files.keys() >= set(names):
        return False
    with ExitStack() as stack:
        one, other = (_tensor(_opened(stack, files[name]), name) for name in names)
    return not np.array_equal(one, other)


def _opened(stack: ExitStack, file: Path) -> Any:
    try:
        return stack.enter_context(safe_open(file, framework="pt"))
    except OSError as error:
        raise NotConvertible(f"has no {file.name} that can be read ({error})") from error


def _tensor(file: Any, name: str) -> NDArray[np.float32]:
    """A weight in float32; it must be one by itself, and finite."""
    tensor = file.get_tensor(name)
    if tensor.dtype not in WEIGHTS:
        raise NotConvertible(f"holds {name} as {tensor.dtype}, which is no plain weight")
    weight: NDArray[np.float32] = tensor.float().numpy()
    if not np.isfinite(weight).all():
        raise NotConvertible(f"holds numbers in {name} that are not finite")
    return weight


# ---- the file --------------------------------------------------------------------------------------------------------


def _write(plan: Plan, path: Path, kind: str) -> None:
    from gguf import GGUFWriter
    from gguf.quants import quantize

    writer = GGUFWriter(path, plan.family.architecture)
    for key, value in plan.keys.items():
        _add(writer, key, value)
    with ExitStack() as stack:
        stack.callback(writer.close)
        opened = {file: _opened(stack, file) for file in dict.fromkeys(plan.files.values())}
        forms = _announce(writer, plan, opened, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if plan.divisors is not None:
            writer.write_tensor_data(plan.divisors)
        for name, form in forms.items():
            weight = _as_stored(plan, name, _tensor(opened[plan.files[plan.names[name]]], plan.names[name]))
            _refuse_overflow(weight, name, form)
            writer.write_tensor_data(quantize(weight, form))


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    """One key in the form that llama.cpp reads it in: whole numbers are uint32, decimals float32."""
    if key == "general.architecture":  # there since the writer was made
        return
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)


def _announce(writer: GGUFWriter, plan: Plan, opened: Mapping[Path, Any], kind: str) -> dict[str, GGMLQuantizationType]:
    """Tell the writer of each tensor that will come; returns the form that each is stored in."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    forms, odd = {}, []
    if plan.divisors is not None:
        writer.add_tensor_info(DIVISORS, plan.divisors.shape, plan.divisors.dtype, plan.divisors.nbytes)
    for name, hub_name in plan.names.items():
        shape = opened[plan.files[hub_name]].get_slice(hub_name).get_shape()
        forms[name] = form = _form(name, len(shape), kind, tied="output.weight" not in plan.names)
        if shape[-1] % GGML_QUANT_SIZES[form][0]:
            forms[name] = form = GGMLQuantizationType.F16
            odd.append(name)
        block, size = GGML_QUANT_SIZES[form]
        writer.add_tensor_info(name, shape, np.dtype(np.float32), prod(shape) // block * size, form)
    if odd:
        log.warning("%d matrices are stored as float16, for no block of 32 fits: %s", len(odd), ", ".join(odd[:3]))
    return forms


def _form(name: str, dimensions: int, kind: str, *, tied: bool) -> GGMLQuantizationType:
    from gguf import GGMLQuantizationType

    if dimensions == 1:
        return GGMLQuantizationType.F32
    if kind == "q4_0" and name == ("token_embd.weight" if tied else "output.weight"):
        return GGMLQuantizationType.Q8_0
    return GGMLQuantizationType[kind.upper()]


def _as_stored(plan: Plan, name: str, weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """A weight of the hub's as llama.cpp wants it: query and key rows in its order, norms with their offset."""
    part = name.split(".")[-2]
    if plan.family.permuted and part in ("attn_q", "attn_k"):
        heads = plan.config.num_attention_heads if part == "attn_q" else plan.config.num_key_value_heads
        return np.ascontiguousarray(permute(weight, heads, head_size(plan.config)))
    if part.endswith("_norm"):
        return weight + np.float32(plan.family.norm_offset)
    if part == "token_embd" and len(weight) != plan.config.vocab_size:
        raise NotConvertible(f"has {len(weight)} embeddings for {plan.config.vocab_size} tokens")
    return weight


def _refuse_overflow(weight: NDArray[np.float32], name: str, form: GGMLQuantizationType) -> None:
    """float16 ends at 65504, and what lies beyond would become infinite without a word."""
    if form.name == "F16" and np.abs(weight).max() > LARGEST:
        raise NotConvertible(f"holds numbers in {name} that are too large for float16 (try bf16)")
