"""The machine and the versions that a figure of speed hangs on."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import psutil
import torch

from pegbox.runs import receipt

PEERS = ("peft", "trl", "accelerate", "datasets", "liger-kernel", "unsloth")
# what a matrix product is fast by, as /proc/cpuinfo names it
FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8")


def about(device: torch.device) -> dict[str, Any]:
    """Hardware and versions."""
    hardware = receipt.hardware(device) | {"memory": psutil.virtual_memory().total} | _processor()
    if device.type == "cuda":
        hardware["gpu_memory"] = torch.cuda.get_device_properties(device).total_memory
    return {"hardware": hardware, "versions": receipt.versions() | _installed()}


def _installed() -> dict[str, str]:
    known = {one.metadata["Name"] for one in importlib.metadata.distributions()}
    return {name: importlib.metadata.version(name) for name in PEERS if name in known}


def _processor() -> dict[str, Any]:
    """Its name and what it can, where the system says so."""
    file = Path("/proc/cpuinfo")
    if not file.is_file():
        return {}
    lines = (line.partition(":") for line in file.read_text(encoding="utf-8").splitlines())
    told = {name.strip(): value.strip() for name, _, value in lines}
    flags = told.get("flags", "").split()
    return {"processor": told.get("model name", ""), "flags": [flag for flag in FLAGS if flag in flags]}
