"""LoRA on disk: exactly PEFT's format, read back whether pegbox or PEFT wrote it.

An update that started at something other than zero (PiSSA) is written as the update of twice the rank that it is, so that
the base model stays what it was, as PEFT's own conversion does.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from pegbox.errors import RecipeError
from pegbox.methods import saved
from pegbox.methods.lora_layers import LoraLinear, alpha
from pegbox.models.heads import is_bare, new_heads, output_layer
from pegbox.models.new_tokens import new_rows
from pegbox.recipe import Lora

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX, A = "base_model.model.", ".lora_A.weight"  # PEFT's names on disk
ROWS = "token_adapter.trainable_tokens_delta"  # what PEFT calls rows of an embedding that learn
# What is followed of an adapter's config, and what may be passed over, because the tensors' names tell it or it mattered
# only in PEFT's training. Any other option that is set changes the function, and is refused.
FOLLOWED = {"peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "init_lora_weights"}
PASSED_OVER = {"task_type", "base_model_name_or_path", "target_modules", "modules_to_save", "inference_mode", "bias"}
PASSED_OVER |= {"exclude_modules", "layers_to_transform", "layers_pattern", "auto_mapping", "peft_version", "revision"}
PASSED_OVER |= {"megatron_core", "qalora_group_size", "eva_config", "trainable_token_indices"}
STARTS = (True, False, "gaussian", "orthogonal", "eva")  # PEFT's other ways to start change the base weights as well


def peft_names(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """PEFT's name on disk -> our tensor, for everything that was learnt.

    A loose weight has its name in the base model: PEFT puts it there.
    """
    named: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            named |= {f"{PREFIX}{name}.{own}": tensor for own, tensor in module.tensors().items()}
    rows = {f"{PREFIX}{name}.rows": f"{PREFIX}{name}.{ROWS}" for name in new_rows(model)}
    return named | {rows.get(name, name): tensor for name, tensor in saved.new_weights(model, PREFIX).items()}


def write(model: PreTrainedModel, settings: Lora, folder: Path, base: str) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` as PEFT does. `base` names the untouched model."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}
    rank = len(next(iter(layers.values())).factors[0])
    whole = alpha(settings) * (math.sqrt(rank / settings.r) if settings.use_rslora else rank / settings.r)
    config = {
        "peft_type": "LORA",
        "task_type": _task_type(model),
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": int(whole) if whole.is_integer() else whole,  # PEFT declares it as int
        "lora_dropout": settings.lora_dropout,
        "use_rslora": settings.use_rslora,
        "use_dora": settings.use_dora,
        "target_modules": list(layers),
        "modules_to_save": list(new_heads(model)) or None,
        "trainable_token_indices": {name: rows.ids for name, rows in new_rows(model).items()} or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    saved.write(folder, (CONFIG, json.dumps(config, indent=2)), WEIGHTS, peft_names(model))


def _task_type(model: PreTrainedModel) -> str | None:
    """PEFT's name for what the model does: it makes the model of a class that knows the head. It has none for masks."""
    if is_bare(model):
        return "FEATURE_EXTRACTION"
    if output_layer(model) is not None and not model.can_generate():
        return None
    if type(model).__name__.endswith("ForTokenClassification"):
        return "TOKEN_CLS"
    if new_heads(model):
        return "SEQ_CLS"
    return "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"


def read(folder: Path) -> tuple[Lora, dict[str, torch.Tensor], list[str]]:
    """The settings of a saved update, its tensors by PEFT's names, and the names of its layers. Raises RecipeError."""
    text, tensors = saved.read(folder, CONFIG, WEIGHTS)
    try:
        told = json.loads(text)
    except ValueError as error:
        raise RecipeError(f"the adapter cannot be read: {error}", where=str(folder)) from None
    return (
        _settings(told, folder),
        tensors,
        [key.removeprefix(PREFIX).removesuffix(A) for key in tensors if key.endswith(A)],
    )


def refuse_other_layers(model: PreTrainedModel, names: list[str], folder: Path) -> None:
    """Raise RecipeError where a layer of the update is none of the model's linear layers."""
    modules = dict(model.named_modules())
    if odd := [name for name in names if not isinstance(modules.get(name), nn.Linear)]:
        raise RecipeError(f"the model has no linear layer {', '.join(odd[:3])}", where=str(folder))


def _settings(told: dict[str, Any], folder: Path) -> Lora:
    """The settings that an adapter's config tells. Raises RecipeError where it is no plain LoRA or DoRA."""
    odd = sorted(key for key, value in told.items() if value and key not in FOLLOWED | PASSED_OVER)
    if told.get("peft_type") != "LORA":
        odd.append("peft_type")
    if told.get("init_lora_weights", True) not in STARTS:
        odd.append("init_lora_weights")
    if odd:
        what = f"the adapter is no plain LoRA: {', '.join(f'{key}: {told.get(key)}' for key in odd)}"
        cure = "load it with PEFT, merge it there, and give the merged model"
        raise RecipeError(what, where=str(folder / CONFIG), cure=cure)
    try:
        optional = {key: told[key] for key in ("lora_dropout", "use_rslora", "use_dora") if key in told}
        return Lora(r=told["r"], lora_alpha=told["lora_alpha"], **optional)
    except (KeyError, ValueError) as error:
        raise RecipeError(f"the adapter's config cannot be followed: {error}", where=str(folder / CONFIG)) from None
