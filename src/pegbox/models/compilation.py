"""Compilation: the layers of a model as fused code that torch makes for this machine (`torch.compile`).

All layers are of one form, so one is compiled and serves for all; what lies between them is not worth its time. Attention
stays what it is: its kernels are fast, and a pack's layout would be compiled in. Rows may be of any length.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from pegbox.kernels.attention import attention, register


def may_compile(model: PreTrainedModel) -> bool:
    """Whether the model has such layers; whether the machine has a compiler must be tried."""
    return bool(_layers(model))


def compile_layers(model: PreTrainedModel, on: bool) -> None:
    """From now on run the layers compiled, or as they are written. The first batch of a kind takes up to a minute."""
    if on:
        register(form=torch.compiler.disable(attention))  # here, for `torch.compiler` takes a second to import
    for layer in _layers(model):
        layer._compiled_call_impl = None
        if on:
            layer.compile(dynamic=True)


def compiles(model: PreTrainedModel) -> bool:
    """Whether they run compiled."""
    return any(layer._compiled_call_impl is not None for layer in _layers(model))


def _layers(model: PreTrainedModel) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
