"""Everybody who is measured, by name. Those for a GPU only are asked for by the workloads of `workloads.for_gpus`."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from speed.peer import Asked, Peer, Training


def _imported(module: str, name: str, asked: Asked, **more: Any) -> Training:
    """A peer out of a module that is imported now: a process holds nothing of the peers that it is not."""
    peer: Peer = getattr(importlib.import_module(f"speed.{module}"), name)
    return peer(asked, **more)


_pegbox, _trainer, _trl = (
    partial(_imported, *place) for place in (("ours", "pegbox"), ("theirs", "trainer"), ("theirs", "trl"))
)

PEERS: Mapping[str, Peer] = MappingProxyType(
    {
        "pegbox": _pegbox,
        "pegbox, no kernels": partial(_pegbox, kernels=False),
        "Trainer": _trainer,
        "Trainer, sorted": partial(_trainer, by_length=True),
        "Trainer + PEFT": _trainer,
        "Trainer + PEFT, sorted": partial(_trainer, by_length=True),
        "TRL": _trl,
        "TRL, packed": partial(_trl, packed=True),
        "Trainer + PEFT, compiled": partial(_trainer, torch_compile=True),
        "Trainer + PEFT, Liger": partial(_trainer, use_liger_kernel=True),
        "TRL, packed, Liger": partial(_trl, packed=True, use_liger_kernel=True),
        "Unsloth": partial(_imported, "unsloth_peer", "unsloth"),
    }
)
NEEDED: Mapping[str, str] = MappingProxyType(
    {"Trainer + PEFT, Liger": "liger_kernel", "TRL, packed, Liger": "liger_kernel", "Unsloth": "unsloth"}
)


def missing(name: str) -> str | None:
    """The module that a peer needs and that is not installed."""
    module = NEEDED.get(name)
    return module if module and importlib.util.find_spec(module) is None else None
