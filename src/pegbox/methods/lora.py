"""LoRA: a low-rank update beside frozen linear layers.

    y = x W^T + b + s (x A^T) B^T        A: [r, in], B: [out, r],  s = lora_alpha / r  (rsLoRA: lora_alpha / sqrt(r))

Hu et al. 2021 (arXiv 2106.09685); rsLoRA: Kalajdzievski 2023 (arXiv 2312.03732). B starts at zero, so the model starts
as it was. On disk it is exactly PEFT's format; PEFT is the oracle of the tests. The layer keeps the name of its
`weight`, so that a base checkpoint fits as before. The default is all linear layers, which matches full fine-tuning
where attention alone does not, with a learning rate about ten times that of full fine-tuning (Schulman et al. 2025,
"LoRA without regret").
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import dropout, linear
from transformers import PreTrainedModel

from pegbox.errors import RecipeError
from pegbox.recipe import Lora

LEARNING_RATE = 2e-4
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PEFT_TASK = {"CausalLM": "CAUSAL_LM", "SequenceClassification": "SEQ_CLS"}


class LoraLinear(nn.Module):
    """A frozen linear layer with a low-rank update that learns. `x` [..., in] -> [..., out]."""

    def __init__(self, base: nn.Linear, settings: Lora, generator: torch.Generator) -> None:
        super().__init__()
        self.weight, self.bias = base.weight, base.bias
        self.scaling, self.dropout = scaling(settings), settings.lora_dropout
        bound = 1 / math.sqrt(base.in_features)  # kaiming_uniform with a = sqrt(5), as nn.Linear and PEFT draw it
        drawn = torch.rand(settings.r, base.in_features, generator=generator) * 2 * bound - bound
        self.lora_A = nn.Parameter(drawn.to(base.weight.device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, settings.r, device=base.weight.device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The frozen layer's output plus the update's."""
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
    """Modules that are new for the task and so learn whole (PEFT's `modules_to_save`)."""
    return {name: module for name, module in model.named_children() if name in ("classifier", "score")}


def targets(model: PreTrainedModel, settings: Lora) -> list[str]:
    """The names of the linear layers that get an update. Raises RecipeError where none matches."""
    output = model.get_output_embeddings()
    heads = set(new_heads(model))
    linears = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not output and name.split(".")[0] not in heads
    ]
    if settings.target_modules == "all-linear":
        return linears
    wanted = settings.target_modules
    found = [name for name in linears if any(name == suffix or name.endswith(f".{suffix}") for suffix in wanted)]
    missed = [suffix for suffix in wanted if not any(n == suffix or n.endswith(f".{suffix}") for n in found)]
    if missed:
        candidates = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in linears}))
        raise RecipeError(
            f"no linear layer of the model is called {', '.join(missed)}",
            where="method.target_modules",
            cure=f"choose among {candidates}, or all-linear",
        )
    return found


def prepare(model: PreTrainedModel, settings: Lora, seed: int) -> None:
    """Freeze the model, put an update beside each target, and let new heads learn."""
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name in targets(model, settings):
        parent, _, child = name.rpartition(".")
        base = model.get_submodule(name)
        assert isinstance(base, nn.Linear)
        setattr(model.get_submodule(parent), child, LoraLinear(base, settings, generator))
    for module in new_heads(model).values():
        module.requires_grad_(True)


def _peft_names(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """PEFT's name on disk -> our tensor, for everything that was learnt."""
    named: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            named[f"base_model.model.{name}.lora_A.weight"] = module.lora_A.data
            named[f"base_model.model.{name}.lora_B.weight"] = module.lora_B.data
    for head, module in new_heads(model).items():
        named |= {f"base_model.model.{head}.{name}": tensor.data for name, tensor in module.named_parameters()}
    return named


def save(model: PreTrainedModel, settings: Lora, folder: Path, base: str) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` as PEFT does. `base` names the untouched model."""
    names = [name for name, module in model.named_modules() if isinstance(module, LoraLinear)]
    kind = type(model).__name__
    config = {
        "peft_type": "LORA",
        "task_type": next((value for suffix, value in PEFT_TASK.items() if kind.endswith("For" + suffix)), None),
        "base_model_name_or_path": base,
        "r": settings.r,
        "lora_alpha": alpha(settings),
        "lora_dropout": settings.lora_dropout,
        "use_rslora": settings.use_rslora,
        "target_modules": names,
        "modules_to_save": list(new_heads(model)) or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tensors = {name: tensor.cpu().contiguous() for name, tensor in _peft_names(model).items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def restore(model: PreTrainedModel, settings: Lora, folder: Path) -> None:
    """Put a saved update into a base model; every tensor on disk must have its place and every place its tensor."""
    prepare(model, settings, seed=0)
    saved, places = load_file(folder / WEIGHTS), _peft_names(model)
    if saved.keys() != places.keys():
        odd = sorted(saved.keys() ^ places.keys())[:3]
        raise RecipeError(f"the adapter does not fit the model: {', '.join(odd)}", where=str(folder))
    for name, place in places.items():
        place.copy_(saved[name])
