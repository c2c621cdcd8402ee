"""The learning rate of each update, and the optimizer: pure functions of the recipe.

`factor(step)` for updates 0 .. total - 1: a linear warm-up that reaches 1 at its last update (so that the first update
is not a no-op), then a half cosine, a line, or nothing. Cosine: Loshchilov & Hutter 2017 (arXiv 1608.03983); AdamW:
Loshchilov & Hutter 2019 (arXiv 1711.05101).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

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


def adamw(
    parameters: Mapping[str, torch.nn.Parameter],
    settings: Train,
    rate_factor: Callable[[str], float] = lambda name: 1.0,
) -> torch.optim.AdamW:
    """AdamW over parameters by name; matrices decay, vectors (biases, norms) do not.

    A group's learning rate is its `factor` times that of the schedule, set before each update (`set_rate`). The moments are
    there from the start: a step takes no memory, so that none can fail between two weights.
    """
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in parameters.items():
        decay = settings.weight_decay if parameter.ndim >= 2 else 0.0
        groups.setdefault((decay, rate_factor(name)), []).append(parameter)
    options = [
        {"params": members, "weight_decay": decay, "factor": factor} for (decay, factor), members in groups.items()
    ]
    optimizer = torch.optim.AdamW(options, lr=0.0, fused=True)
    for parameter in parameters.values():
        moments = {name: torch.zeros_like(parameter.detach()) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.zeros((), device=parameter.device), **moments}
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Let the next update take the schedule's rate, in each group by its factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
