"""LoRA and its kin: which linear layers get a low-rank update; what that computes stands in `lora_layers`.

The default is all linear layers, which matches full fine-tuning where attention alone does not, with a learning rate about
ten times that of full fine-tuning (Schulman et al. 2025, "LoRA without regret"). On disk it is PEFT's format (`lora_files`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from pegbox.kernels.linear import FastLinear
from pegbox.methods import lora_files, saved
from pegbox.methods.lora_layers import DoraLinear, LoraLinear
from pegbox.methods.targets import called, layers, not_found
from pegbox.models import new_tokens, quantization
from pegbox.models.heads import let_new_parts_learn
from pegbox.recipe import Lora

FREEZES = True


def learning_rate(settings: Lora) -> float:
    """About ten times that of full fine-tuning, whatever the rank."""
    return 2e-4


def rate_factor(settings: Lora, name: str) -> float:
    """LoRA+ (Hayou et al. 2024, arXiv 2402.12354) lets B learn faster than A."""
    return settings.loraplus_lr_ratio or 1.0 if name.endswith(".lora_B") else 1.0


def targets(model: PreTrainedModel, settings: Lora) -> list[str]:
    """The names of the linear layers that get an update. Raises RecipeError where none has a name that is asked for."""
    found, wanted = layers(model), settings.target_modules
    if wanted != "all-linear":
        return called(found, wanted)
    if not found:
        raise not_found("the model has no linear layer", found)
    return list(found)


def prepare(model: PreTrainedModel, settings: Lora, seed: int) -> None:
    """Freeze the model, put an update beside each target, and let new heads learn."""
    _insert(model, targets(model, settings), settings, seed)


def _insert(model: PreTrainedModel, names: Sequence[str], settings: Lora, seed: int) -> None:
    model.requires_grad_(False)
    generator, kind = torch.Generator().manual_seed(seed), DoraLinear if settings.use_dora else LoraLinear
    for name in names:
        base = model.get_submodule(name)
        assert isinstance(base, nn.Linear)
        model.set_submodule(name, kind(base, settings, generator))
    let_new_parts_learn(model)


def save(model: PreTrainedModel, settings: Lora, folder: Path, base: str) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` as PEFT does. `base` names the untouched model."""
    lora_files.write(model, settings, folder, base)


def restore(model: PreTrainedModel, settings: Lora | None, folder: Path) -> None:
    """Put a saved update, ours or PEFT's, into a base model. The folder says what it is; `settings` are not needed.

    Raises RecipeError unless every tensor on disk has its place in the model, and every place its tensor.
    """
    told, tensors, names = lora_files.read(folder)
    lora_files.refuse_other_layers(model, names, folder)
    _insert(model, names, told, seed=0)
    saved.fill(lora_files.peft_names(model), tensors, folder)


def merge(model: PreTrainedModel, settings: Lora | None) -> None:
    """Put a plain layer of the merged weight in the place of each with an update; the frozen weights stay as they are."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLinear):
            model.set_submodule(name, _plain(module))
    quantization.expand(model)
    new_tokens.join(model)


def _plain(layer: LoraLinear) -> nn.Linear:
    weight = layer.merged_weight()
    plain = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    plain.weight, plain.bias = nn.Parameter(weight, requires_grad=False), layer.bias
    plain.train(layer.training)
    return FastLinear(plain) if layer.fast else plain
