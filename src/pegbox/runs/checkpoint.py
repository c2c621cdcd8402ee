"""Checkpoints: all that exact resume needs, in safetensors and JSON.

Written to a temporary folder, each file synced, the manifest (size and SHA-256 of each) last, then renamed; loaded only
if the manifest verifies, else the one before it is taken. The data position is not stored: the step gives it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

log = logging.getLogger("pegbox")

SCHEMA = 1


@dataclass
class TrainState:
    """The state of a run between two updates, apart from tensors. Losses in nats per unit of weight."""

    step: int = 0
    tokens: int = 0
    best_step: int | None = None
    best_loss: float | None = None
    validations_without_gain: int = 0
    finished: bool = False


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that learn, by name; tied ones once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def save(
    folder: Path, state: TrainState, model: torch.nn.Module, optimizer: torch.optim.Optimizer, recipe_hash: str
) -> Path:
    """Write `step-N` whole or not at all."""
    target, draft = folder / f"step-{state.step}", folder / f".step-{state.step}.tmp"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    learnt = trainable(model)
    save_file({name: p.detach().cpu().contiguous() for name, p in learnt.items()}, draft / "trainable.safetensors")
    moments = {
        f"{name}.{key}": value.cpu().contiguous()
        for name, parameter in learnt.items()
        for key, value in optimizer.state[parameter].items()
    }
    save_file(moments, draft / "optimizer.safetensors")
    save_file(random_states(), draft / "random.safetensors")
    (draft / "state.json").write_text(json.dumps(asdict(state)), encoding="utf-8")
    files = {file.name: {"size": file.stat().st_size, "sha256": sha256(file)} for file in sorted(draft.iterdir())}
    for file in draft.iterdir():
        _sync(file)
    manifest = {"schema": SCHEMA, "recipe": recipe_hash, "files": files}
    (draft / "manifest.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    _sync(draft / "manifest.json")
    _sync(draft)
    if target.exists():
        shutil.rmtree(target)
    draft.rename(target)
    _sync(folder)
    return target


def load(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None) -> TrainState:
    """Put a checkpoint's weights (and with an optimizer its moments and the random state) back in place."""
    learnt, saved = trainable(model), load_file(folder / "trainable.safetensors")
    assert saved.keys() == learnt.keys()
    with torch.no_grad():
        for name, parameter in learnt.items():
            parameter.copy_(saved[name])
    if optimizer is not None:
        moments = load_file(folder / "optimizer.safetensors")
        for key, value in moments.items():
            name, _, field = key.rpartition(".")
            # laid out in memory as the parameter is: the fused update walks both alike
            place = value.clone() if field == "step" else torch.empty_like(learnt[name].detach()).copy_(value)
            optimizer.state[learnt[name]][field] = place
        restore_random(load_file(folder / "random.safetensors"))
    return TrainState(**json.loads((folder / "state.json").read_text(encoding="utf-8")))


def random_states() -> dict[str, torch.Tensor]:
    """The state of torch's generator on the CPU and on each GPU."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda.{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def restore_random(states: Mapping[str, torch.Tensor]) -> None:
    """Put back what `random_states` gave; a GPU that was not there keeps its own."""
    torch.set_rng_state(states["cpu"].clone())
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        with contextlib.suppress(KeyError):
            torch.cuda.set_rng_state(states[f"cuda.{index}"].clone(), index)


def newest(folder: Path) -> Path | None:
    """The newest checkpoint whose manifest verifies; says so where a newer one does not."""
    for path in _by_step(folder):
        if verifies(path):
            return path
        log.warning("the checkpoint %s is damaged; going back to the one before it", path.name)
    return None


def verifies(path: Path) -> bool:
    """True when every file of a checkpoint has the size and the hash that its manifest says."""
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        return manifest["schema"] == SCHEMA and all(
            (path / name).stat().st_size == entry["size"] and sha256(path / name) == entry["sha256"]
            for name, entry in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def prune(folder: Path, keep: int, best_step: int | None) -> None:
    """Delete all but the newest `keep` checkpoints and the best."""
    for path in _by_step(folder)[keep:]:
        if path.name != f"step-{best_step}":
            shutil.rmtree(path)


def _by_step(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), key=lambda path: -int(path.name.removeprefix("step-")))


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def hashes(folder: Path) -> Iterator[tuple[str, str]]:
    """(name, SHA-256) of every file of a folder, sorted by name."""
    return ((file.name, sha256(file)) for file in sorted(folder.iterdir()) if file.is_file())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
