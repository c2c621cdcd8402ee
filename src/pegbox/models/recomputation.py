"""Recomputation: a layer keeps its input alone, and computes the rest once more on the way back.

Less memory, a third more time, the same numbers; noise is drawn again as it was (Chen et al. 2016, arXiv 1604.06174). It is
Transformers' own form, `gradient_checkpointing`, of the kind that needs no input with a gradient: embeddings may be frozen.
"""

from __future__ import annotations

from functools import partial

from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

FLAG = "gradient_checkpointing"  # of the modules that can


def may_recompute(model: PreTrainedModel) -> bool:
    """Whether the model's class knows how to; whether the gradient is then the same must be tried."""
    return bool(model.supports_gradient_checkpointing) and any(FLAG in dir(module) for module in model.modules())


def recompute(model: PreTrainedModel, on: bool) -> None:
    """Switch recomputation in training on or off."""
    # not `gradient_checkpointing_enable`: it also gives frozen embeddings an output with a gradient, for nothing
    model._set_gradient_checkpointing(enable=on, gradient_checkpointing_func=partial(checkpoint, use_reentrant=False))


def recomputes(model: PreTrainedModel) -> bool:
    """Whether it is on."""
    return any(getattr(module, FLAG, False) for module in model.modules())
