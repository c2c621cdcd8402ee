"""Bottleneck adapters: small layers that learn, behind frozen ones.

    h -> h + f(h W_down^T + b_down) W_up^T + b_up        W_down: [m, d], W_up: [d, m], m = bottleneck_size

Houlsby et al. 2019 (arXiv 1902.00751) put one behind the last linear layer of each sublayer, attention (that over an
encoder's states, too) and feed-forward, before the residual sum. The variant `pfeiffer` has those behind the feed-forward
layers alone, half as many (after Pfeiffer et al. 2020, arXiv 2005.00247, who tap it behind the sum and its norm).

What differs from the paper: W_up and b_up start at zero, so that the model starts exactly as it was, where the paper starts
near it, with both matrices drawn with a standard deviation of 1e-2 (its code: 1e-3). W_down is drawn as any linear layer,
which at BERT's width is 0.02. The model's norms stay frozen, where the paper lets them learn. f is what the recipe says; the
paper leaves it open, its code has gelu.

The layers are found by the names that Transformers gives them. On disk it is a format of our own, for PEFT has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import ValidationError
from torch import nn
from torch.nn.functional import gelu, relu, silu
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from pegbox.errors import RecipeError
from pegbox.kernels.linear import FastLinear
from pegbox.methods import saved
from pegbox.methods.targets import blocks, called, layers, not_found
from pegbox.models.heads import let_new_parts_learn
from pegbox.recipe import Adapter
from pegbox.recipe.values import Count, Frozen, Names

FREEZES = True
WEIGHTS, CONFIG = "bottleneck_adapter.safetensors", "bottleneck_config.json"
NON_LINEARITIES: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {"relu": relu, "gelu": gelu, "silu": silu}
# What Transformers calls the last linear layer of a sublayer; those of the first kind stand in a module called attention
# or attn, those of the second in none.
LAST = {
    "attention": {"o_proj", "out_proj", "c_proj", "dense", "out_lin", "o", "Wo", "output"},
    "feed-forward": {"down_proj", "fc2", "c_proj", "dense_4h_to_h", "output.dense", "lin2", "wo", "Wo", "w2"}
    | {"fc_out", "ffn_output"},
}
SUBLAYERS = {"houlsby": ("attention", "feed-forward"), "pfeiffer": ("feed-forward",)}


class AdaptedLinear(nn.Module):
    """A frozen linear layer with a bottleneck behind it. `x` [..., in] -> [..., d]."""

    def __init__(self, base: nn.Linear | Conv1D, settings: Adapter, generator: torch.Generator) -> None:
        super().__init__()
        self.base, self.training = base, base.training
        self.non_linearity = settings.non_linearity
        size, width = base.nf if isinstance(base, Conv1D) else base.out_features, settings.bottleneck_size
        self.down, self.up = _zeros(base, size, width), _zeros(base, width, size)
        drawn = torch.rand(width, size, generator=generator) * 2 - 1
        self.down.weight.data.copy_(drawn / math.sqrt(size))

    @property
    def weight(self) -> torch.Tensor:
        """The frozen layer's: T5 looks at its type."""
        weight: torch.Tensor = self.base.weight
        return weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The frozen layer's output and what the bottleneck makes of it."""
        h: torch.Tensor = self.base(x)
        inner = NON_LINEARITIES[self.non_linearity](self.down(h.to(self.down.weight.dtype)))
        added: torch.Tensor = self.up(inner)
        return h + added.to(h.dtype)


def _zeros(base: nn.Linear | Conv1D, inputs: int, outputs: int) -> nn.Linear:
    """A linear layer of zeros where `base` is, by the same kernel, in at least float32: smaller updates would be lost."""
    dtype = torch.promote_types(base.weight.dtype, torch.float32)
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, device=base.weight.device, dtype=dtype)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    layer.train(base.training)
    return FastLinear(layer) if isinstance(base, FastLinear) else layer


# ---- where -----------------------------------------------------------------------------------------------------------


def targets(model: PreTrainedModel, settings: Adapter) -> list[str]:
    """The names of the layers that get an adapter behind them. Raises RecipeError where one that should be is not found."""
    found = layers(model, (nn.Linear, Conv1D))
    if settings.target_modules is not None:
        return called(found, settings.target_modules)
    return _last_layers(model, found, SUBLAYERS[settings.variant or "houlsby"])


def _last_layers(model: PreTrainedModel, linears: Collection[str], wanted: Collection[str]) -> list[str]:
    """The last linear layers of all sublayers of the kinds `wanted`. Raises RecipeError unless each block has them."""
    found: list[str] = []
    every = [(f"{name}.{index}", block) for name, listed in blocks(model) for index, block in enumerate(listed)]
    for block, module in every:
        kinds = {name: _sublayer(name[len(block) + 1 :]) for name in linears if name.startswith(f"{block}.")}
        if not kinds:
            continue
        # behind one of several experts, or a shared one, an adapter would not see what the sublayer says
        if any("expert" in name or "moe" in name for name, _ in module.named_modules()):
            raise not_found(f"{block} is a mixture of experts, which has no one last layer", linears)
        if missed := [kind for kind in wanted if kind not in kinds.values()]:
            raise not_found(f"no last layer of the {missed[0]} in {block} is known by its name", linears)
        found += [name for name, kind in kinds.items() if kind in wanted]
    if not found:
        raise not_found("no layer with attention and feed-forward is known by its name", linears)
    return found


def _sublayer(name: str) -> str | None:
    """The kind of sublayer whose last linear layer has this name in its block; none where it is no last one."""
    path, parts = name.rpartition(".")[0].lower(), name.split(".")
    if path.startswith("bottleneck"):  # MobileBERT's, on the way into attention
        return None
    kind = "attention" if "attn" in path or "attention" in path else "feed-forward"
    return kind if LAST[kind] & {parts[-1], ".".join(parts[-2:])} else None


# ---- what learns -----------------------------------------------------------------------------------------------------


def learning_rate(settings: Adapter) -> float:
    """As in the command that Houlsby et al. publish for BERT, and in that of Hu et al. 2023 (arXiv 2304.01933) for LLaMA."""
    return 3e-4


def rate_factor(settings: Adapter, name: str) -> float:
    """All weights learn alike."""
    return 1.0


def prepare(model: PreTrainedModel, settings: Adapter, seed: int) -> None:
    """Freeze the model, put an adapter behind each target, and let new heads learn. Raises RecipeError."""
    _insert(model, targets(model, settings), settings, seed)


def _insert(model: PreTrainedModel, names: Sequence[str], settings: Adapter, seed: int) -> None:
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    found = layers(model, (nn.Linear, Conv1D))
    for name in names:
        model.set_submodule(name, AdaptedLinear(found[name], settings, generator))
    let_new_parts_learn(model)


def merge(model: PreTrainedModel, settings: Adapter | None) -> None:
    """Raises RecipeError: it cannot be."""
    what = "an adapter is not linear, so no weight of the model can hold what it does"
    cure = "load the run with pegbox (`pegbox.load`), or train with method: lora, which can be merged"
    raise RecipeError(what, where="method", cure=cure)


# ---- on disk ---------------------------------------------------------------------------------------------------------


class _Config(Frozen):
    """What `bottleneck_config.json` says; `modules` are the layers with an adapter behind them."""

    kind: Literal["bottleneck_adapter"] = "bottleneck_adapter"
    format_version: Literal[1] = 1
    base_model_name_or_path: str
    variant: Literal["houlsby", "pfeiffer"] | None  # none where the recipe named the layers
    bottleneck_size: Count
    non_linearity: Literal["relu", "gelu", "silu"]
    modules: Names


def _learnt(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Everything that was learnt, under its name in the model."""
    named: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, AdaptedLinear):
            layers = {"down": module.down, "up": module.up}.items()
            named |= {
                f"{name}.{part}.{own}": tensor for part, layer in layers for own, tensor in layer.state_dict().items()
            }
    return named | saved.new_weights(model)


def save(model: PreTrainedModel, settings: Adapter, folder: Path, base: str) -> None:
    """Write `bottleneck_config.json` and `bottleneck_adapter.safetensors`. `base` names the untouched model."""
    config = _Config(
        base_model_name_or_path=base,
        variant=None if settings.target_modules else settings.variant or "houlsby",
        bottleneck_size=settings.bottleneck_size,
        non_linearity=settings.non_linearity,
        modules=tuple(name for name, module in model.named_modules() if isinstance(module, AdaptedLinear)),
    )
    saved.write(folder, (CONFIG, config.model_dump_json(indent=2)), WEIGHTS, _learnt(model))


def restore(model: PreTrainedModel, settings: Adapter | None, folder: Path) -> None:
    """Put a saved adapter into a base model. The folder says what it is; `settings` are not needed.

    Raises RecipeError unless every tensor on disk has its place in the model, and every place its tensor.
    """
    text, tensors = saved.read(folder, CONFIG, WEIGHTS)
    told = _config(text, folder)
    linears, names = layers(model, (nn.Linear, Conv1D)), list(told.modules)
    if odd := [name for name in names if name not in linears or names.count(name) > 1]:
        raise RecipeError(f"the model has no linear layer {', '.join(odd[:3])} to put it behind", where=str(folder))
    _insert(model, names, Adapter(bottleneck_size=told.bottleneck_size, non_linearity=told.non_linearity), seed=0)
    saved.fill(_learnt(model), tensors, folder)


def _config(text: str, folder: Path) -> _Config:
    try:
        return _Config.model_validate_json(text)
    except ValidationError as error:
        odd = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in error.errors()[:3])
        raise RecipeError(f"the adapter's config cannot be followed: {odd}", where=str(folder / CONFIG)) from None
