"""The receipt: what a run was made of, so that it can be checked and done again. Nothing here is guessed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from pegbox.runs import environment
from pegbox.runs.checkpoint import sha256

PACKAGES = ("pegbox", "torch", "transformers", "tokenizers", "safetensors", "numpy", "scikit-learn", "sacrebleu")

# what a run tells of itself; the receipt holds their hashes, and the report and the card are made from them
RECORDS = (
    "recipe.yaml",
    "data.json",
    "splits.jsonl",
    "metrics.jsonl",
    "timing.jsonl",
    "events.jsonl",
    "predictions.jsonl",
    "evaluation.json",
)


def versions() -> dict[str, str]:
    """The version of Python and of every package that a result depends on."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def hardware(device: torch.device) -> dict[str, Any]:
    """The machine, as far as it bears on results and speed."""
    found: dict[str, Any] = {
        "device": device.type,
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "environment": environment.current(),
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def file_hashes(files: Iterable[str]) -> dict[str, str]:
    """SHA-256 of each file that is there, by the name the recipe gives it."""
    return {name: sha256(Path(name)) for name in files if Path(name).is_file()}


def record_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each of a finished run's records; where nothing happened on the way, nothing is told of that."""
    return {name: sha256(folder / name) for name in RECORDS if (folder / name).is_file()}


def text_hash(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def now() -> str:
    """The time, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
