"""The settings of a process on which the last bits of a sum hang, and which must be made before torch is loaded.

How many threads share a sum, and which instructions compute it, decides its rounding. MKL takes fewer threads than it is
allowed where the machine is busy, unless it is told not to. No torch is imported here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

FIXED = {"MKL_DYNAMIC": "FALSE", "OMP_DYNAMIC": "FALSE"}
NAMES = (
    *FIXED,
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY"),
    *("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "CUBLAS_WORKSPACE_CONFIG"),
)


def settle() -> None:
    """Let numerical libraries take as many threads as they are given, always; what a user has set stays."""
    for name, value in FIXED.items():
        os.environ.setdefault(name, value)


def current() -> dict[str, str]:
    """Those of the settings that are made, for the receipt."""
    return {name: os.environ[name] for name in NAMES if name in os.environ}


def restore(run: Path) -> None:
    """Make the settings that a run began with; without a receipt there is nothing to restore."""
    try:
        made: Mapping[str, str] = json.loads((run / "receipt.json").read_text("utf-8"))["hardware"]["environment"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # whoever opens the run says what is wrong with it
    for name in NAMES:
        os.environ.pop(name, None)
    os.environ.update({name: value for name, value in made.items() if name in NAMES})
