"""The learning rate of each update, and the optimizer: pure functions of the recipe.

`factor(step)` for updates 0 .. total - 1: a linear warm-up that reaches 1 at its last update (so that the first update
is not a no-op), then a half cosine, a line, or nothing. Cosine: Loshchilov & Hutter 2017 (arXiv 1608.03983); AdamW:
Loshchilov & Hutter 2019 (arXiv 1711.05101).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import torch

from pegbox.recipe import Train


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def _linear(progress: float) -> float:
    return 1 - progress


def _constant(progress: float) -> float:
    return 1.0


# decay after warm-up, as a function of the share of the remaining updates that are done, in [0, 1)
SCHEDULES: Mapping[str, Callable[[float], float]] = {"cosine": _cosine, "linear": _linear, "constant": _constant}


def learning_rate(step: int, total: int, peak: float, settings: Train) -> float:
    """The learning rate of update `step` (0-based) of `total`."""
    warmup = math.ceil(settings.warmup_ratio * total)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * SCHEDULES[settings.lr_scheduler_type]((step - warmup) / max(1, total - warmup))


def adamw(parameters: Iterable[torch.nn.Parameter], settings: Train) -> torch.optim.AdamW:
    """AdamW; matrices decay, vectors (biases, norms) do not. The learning rate is set before each update."""
    learnt = list(parameters)
    matrices = [parameter for parameter in learnt if parameter.ndim >= 2]
    vectors = [parameter for parameter in learnt if parameter.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=0.0, fused=True)
