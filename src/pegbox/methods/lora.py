"""LoRA: a low-rank update beside frozen linear layers.

    y = x W^T + b + s (x A^T) B^T        A: [r, in], B: [out, r],  s = lora_alpha / r  (rsLoRA: lora_alpha / sqrt(r))

Hu et al. 2021 (arXiv 2106.09685); rsLoRA: Kalajdzievski 2023 (arXiv 2312.03732). B starts at zero, so the model starts
as it was. On disk it is exactly PEFT's format, read back whether pegbox or PEFT wrote it; PEFT is the oracle of the
tests. The layer keeps the name of its `weight`, so that a base checkpoint fits as before. The default is all linear
layers, which matches full fine-tuning where attention alone does not, with a learning rate about ten times that of full
fine-tuning (Schulman et al. 2025, "LoRA without regret").
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import dropout, linear
from transformers import PreTrainedModel

from pegbox.errors import RecipeError
from pegbox.kernels.linear import FastLinear, applies
from pegbox.kernels.lora import lora_linear
from pegbox.models.heads import head_weights, is_head, output_layer
from pegbox.recipe import Lora

LEARNING_RATE = 2e-4
FREEZES = True
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX, A, B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"  # PEFT's names on disk
# What `restore` follows of an adapter's config, and what it may pass over, because the tensors' names tell it or it
# mattered only in PEFT's training. Any other option that is set changes the function, and is refused.
FOLLOWED = {"peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "init_lora_weights"}
PASSED_OVER = {"task_type", "base_model_name_or_path", "target_modules", "modules_to_save", "inference_mode", "bias"}
PASSED_OVER |= {"exclude_modules", "layers_to_transform", "layers_pattern", "auto_mapping", "peft_version", "revision"}
PASSED_OVER |= {"megatron_core", "qalora_group_size", "eva_config"}
STARTS = (True, False, "gaussian", "orthogonal", "eva")  # PEFT's other ways to start change the base weights as well


class LoraLinear(nn.Module):
    """A frozen linear layer with a low-rank update that learns. `x` [..., in] -> [..., out]."""

    def __init__(self, base: nn.Linear, settings: Lora, generator: torch.Generator) -> None:
        super().__init__()
        self.weight, self.bias, self.training = base.weight, base.bias, base.training
        self.fast = isinstance(base, FastLinear)  # the layer in whose place this one stands computed by a kernel
        self.scaling, self.dropout = scaling(settings), settings.lora_dropout
        bound = 1 / math.sqrt(base.in_features)  # kaiming_uniform with a = sqrt(5), as nn.Linear and PEFT draw it
        drawn = torch.rand(settings.r, base.in_features, generator=generator) * 2 * bound - bound
        device, dtype = base.weight.device, torch.promote_types(base.weight.dtype, torch.float32)
        self.lora_A = nn.Parameter(drawn.to(device, dtype))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, settings.r, device=device, dtype=dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The frozen layer's output plus the update's."""
        noisy = self.training and self.dropout > 0
        if self.fast and not noisy and applies(x, self.weight) and applies(x, self.lora_A):
            return lora_linear(x, self.weight, self.bias, self.lora_A, self.lora_B, self.scaling)
        inner = linear(dropout(x, self.dropout, self.training), self.lora_A)
        return linear(x, self.weight, self.bias) + linear(inner * self.scaling, self.lora_B)

    @torch.no_grad()
    def delta_weight(self) -> torch.Tensor:
        """The update as one matrix [out, in]: what a merge adds to the weight."""
        return self.scaling * (self.lora_B @ self.lora_A)


def scaling(settings: Lora) -> float:
    """The factor on the update; `lora_alpha` is 2 r unless the recipe gives it."""
    return alpha(settings) / (math.sqrt(settings.r) if settings.use_rslora else settings.r)


def alpha(settings: Lora) -> float:
    """`lora_alpha`, made explicit."""
    return 2.0 * settings.r if settings.lora_alpha is None else settings.lora_alpha


def new_heads(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The modules between the base model and a task's answer, which learn whole (PEFT's `modules_to_save`), by name."""
    return {name: part for name, part in _new_parts(model) if isinstance(part, nn.Module)}


def loose_weights(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Weights of new heads beside a tied one, which no such module can hold: the bias of an output layer, by name."""
    found = [(name, part) for name, part in _new_parts(model) if isinstance(part, nn.Parameter)]
    once = {id(weight): name for name, weight in reversed(found)}  # of a bias with two names the first
    return {name: weight for name, weight in found if once[id(weight)] == name}


def _new_parts(model: PreTrainedModel) -> Iterator[tuple[str, nn.Module | nn.Parameter]]:
    """What is new and learns, in as large parts as can be.

    The output layer of an encoder is tied to its embeddings: that weight is the base model's, stays as it is, and is
    saved nowhere else (INVARIANTS 20, 21), so the parts beside it are taken.
    """
    inside = ((f"{model.base_model_prefix}.{name}", child) for name, child in model.base_model.named_children())
    own = {id(weight) for weight in head_weights(model).values()}
    for name, child in dict((*model.named_children(), *inside)).items():
        if is_head(model, name):
            yield from _own_parts(name, child, own)


def _own_parts(name: str, module: nn.Module, own: set[int]) -> Iterator[tuple[str, nn.Module | nn.Parameter]]:
    """The module where all its weights are among its `own` (ids), else such parts of it."""
    weights = {id(weight) for weight in module.parameters()}
    if weights and weights <= own:
        yield name, module
    elif weights & own:
        beside = module.named_parameters(recurse=False)
        yield from ((f"{name}.{inner}", weight) for inner, weight in beside if id(weight) in own)
        for inner, child in module.named_children():
            yield from _own_parts(f"{name}.{inner}", child, own)


def targets(model: PreTrainedModel, settings: Lora) -> list[str]:
    """The names of the linear layers that get an update. Raises RecipeError where none has a name that is asked for."""
    output, heads = output_layer(model), new_heads(model)
    linears = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module is not output
        and not any(f"{name}.".startswith(f"{h}.") for h in heads)
    ]
    if settings.target_modules == "all-linear":
        found, missed = linears, [] if linears else ["all-linear"]
    else:
        wanted = settings.target_modules
        found = [name for name in linears if any(_is_called(name, suffix) for suffix in wanted)]
        missed = [suffix for suffix in wanted if not any(_is_called(name, suffix) for name in found)]
    if missed:
        candidates = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in linears}))
        what = f"no linear layer of the model is called {', '.join(missed)}"
        cure = f"choose among {candidates}, or all-linear" if linears else "it has none at all: use method: full"
        raise RecipeError(what, where="method.target_modules", cure=cure)
    return found


def _is_called(name: str, suffix: str) -> bool:
    return name == suffix or name.endswith(f".{suffix}")


def prepare(model: PreTrainedModel, settings: Lora, seed: int) -> None:
    """Freeze the model, put an update beside each target, and let new heads learn."""
    _insert(model, targets(model, settings), settings, seed)


def _insert(model: PreTrainedModel, names: Sequence[str], settings: Lora, seed: int) -> None:
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name in names:
        parent, _, child = name.rpartition(".")
        base = model.get_submodule(name)
        assert isinstance(base, nn.Linear)
        setattr(model.get_submodule(parent), child, LoraLinear(base, settings, generator))
    for _, part in _new_parts(model):
        part.requires_grad_(True)


def _peft_names(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """PEFT's name on disk -> our tensor, for everything that was learnt.

    A loose weight has its name in the base model: PEFT puts it there.
    """
    named: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            named[f"{PREFIX}{name}{A}"] = module.lora_A.data
            named[f"{PREFIX}{name}{B}"] = module.lora_B.data
    for head, module in new_heads(model).items():
        named |= {f"{PREFIX}{head}.{name}": tensor for name, tensor in module.state_dict().items()}
    return named | {f"{PREFIX}{name}": weight.data for name, weight in loose_weights(model).items()}


def save(model: PreTrainedModel, settings: Lora, folder: Path, base: str) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` as PEFT does. `base` names the untouched model."""
    heads = list(new_heads(model))
    whole = alpha(settings).is_integer()
    config = {
        "peft_type": "LORA",
        "task_type": _task_type(model),
        "base_model_name_or_path": base,
        "r": settings.r,
        "lora_alpha": int(alpha(settings)) if whole else alpha(settings),  # PEFT declares it as int
        "lora_dropout": settings.lora_dropout,
        "use_rslora": settings.use_rslora,
        "target_modules": [name for name, module in model.named_modules() if isinstance(module, LoraLinear)],
        "modules_to_save": heads or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    # copies: what is tied within a head stands there under both names, and no two may share memory
    tensors = {
        name: tensor.cpu().clone(memory_format=torch.contiguous_format) for name, tensor in _peft_names(model).items()
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _task_type(model: PreTrainedModel) -> str | None:
    """PEFT's name for what the model does: it makes the model of a class that knows the head. It has none for masks."""
    if output_layer(model) is not None and not model.can_generate():
        return None
    if type(model).__name__.endswith("ForTokenClassification"):
        return "TOKEN_CLS"
    return "SEQ_CLS" if new_heads(model) else "CAUSAL_LM"


def restore(model: PreTrainedModel, settings: Lora | None, folder: Path) -> None:
    """Put a saved update, ours or PEFT's, into a base model. The folder says what it is; `settings` are not needed.

    Raises RecipeError unless every tensor on disk has its place in the model, and every place its tensor.
    """
    try:
        told = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        saved = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise RecipeError(f"the adapter cannot be read: {error}", where=str(folder)) from None
    names = [key.removeprefix(PREFIX).removesuffix(A) for key in saved if key.endswith(A)]
    modules = dict(model.named_modules())
    if odd := [name for name in names if not isinstance(modules.get(name), nn.Linear)]:
        raise RecipeError(f"the model has no linear layer {', '.join(odd[:3])}", where=str(folder))
    _insert(model, names, _read_settings(told, folder), seed=0)
    places = _peft_names(model)
    shapes, wanted = ({name: tensor.shape for name, tensor in found.items()} for found in (saved, places))
    if shapes != wanted:
        odd = sorted({name for name, _ in shapes.items() ^ wanted.items()})
        raise RecipeError(f"the adapter does not fit the model: {', '.join(odd[:3])}", where=str(folder))
    for name, place in places.items():
        place.copy_(saved[name])


def _read_settings(told: dict[str, Any], folder: Path) -> Lora:
    """The settings that an adapter's config tells. Raises RecipeError where it is no plain LoRA."""
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
        optional = {key: told[key] for key in ("lora_dropout", "use_rslora") if key in told}
        return Lora(r=told["r"], lora_alpha=told["lora_alpha"], **optional)
    except (KeyError, ValueError) as error:
        raise RecipeError(f"the adapter's config cannot be followed: {error}", where=str(folder / CONFIG)) from None
