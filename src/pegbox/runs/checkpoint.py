"""Checkpoints: all that exact resume needs, in safetensors and JSON.

Written to a temporary folder, each file synced, the manifest (size and SHA-256 of each, and of itself) last, then renamed;
loaded only if the manifest verifies, else the one before it is taken.

Two things are not stored, because the number of the update gives them: which rows come next (`training.batching`), and
the state of the random generators, which are seeded anew for every update (`runtime.seed_noise`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from pegbox.errors import RecipeError, TrainingError
from pegbox.runs import durable, tensors

log = logging.getLogger("pegbox")

SCHEMA = 2
SPARE = 1 << 16  # bytes of a checkpoint beside its tensors, at most
WEIGHTS, MOMENTS, STATE, MANIFEST = "trainable.safetensors", "optimizer.safetensors", "state.json", "manifest.json"


@dataclass
class TrainState:
    """The state of a run between two updates, apart from tensors.

    `validated`: the last update after which the validation rows were scored. `best_value` is that of the metric by which
    the best is chosen, at `best_step`. `micro_batch_tokens`: how many are computed at once (0: as
    planned), `gradient_checkpointing` whether layers are computed once more on the way back. `seconds` of training so far. `logs`: how many bytes each log of the run had.
    """

    step: int = 0
    tokens: int = 0
    validated: int = 0
    best_step: int | None = None
    best_value: float | None = None
    validations_without_gain: int = 0
    micro_batch_tokens: int = 0
    gradient_checkpointing: bool = False
    seconds: float = 0.0
    logs: dict[str, int] = field(default_factory=dict)


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that learn, by name; tied ones once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def save(
    folder: Path, state: TrainState, model: torch.nn.Module, optimizer: torch.optim.Optimizer, recipe_hash: str
) -> Path:
    """Write `step-N` whole or not at all. Raises TrainingError where a number is not finite or the disk does not take it."""
    target, draft = folder / f"step-{state.step}", folder / f".step-{state.step}.tmp"
    held = {WEIGHTS: _weights(model), MOMENTS: _moments(model, optimizer)}
    for name, tensor in (item for given in held.values() for item in given.items()):
        if not bool(torch.isfinite(tensor).all()):
            cure = "go on from the checkpoint before with `pegbox train --resume`, with a lower train.learning_rate"
            raise TrainingError("not all numbers are finite; no checkpoint was written", where=name, cure=cure)
    needed = sum(map(tensors.size, held.values())) + SPARE
    durable.refuse_full(folder.parent, needed)
    try:
        with durable.explained(folder, needed):
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            files = {name: durable.write(draft / name, tensors.parts(given)) for name, given in held.items()}
            files[STATE] = durable.write(draft / STATE, [json.dumps(asdict(state)).encode()])
            entries = {name: asdict(written) for name, written in files.items()}
            durable.write(draft / MANIFEST, [sealed({"schema": SCHEMA, "recipe": recipe_hash, "files": entries})])
            if target.exists():  # a damaged one, which was gone back from
                shutil.rmtree(target)
            durable.place(draft, target)
            durable.sync(folder.parent)  # else the folder of all of them could be lost with its name
    except TrainingError:
        shutil.rmtree(draft, ignore_errors=True)  # of no use, and its bytes are wanted
        raise
    return target


def load(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None) -> TrainState:
    """Put a checkpoint's weights, and with an optimizer its moments, back in place: copied, where they lay before.

    Raises RecipeError where it is one of other weights than learn now.
    """
    _put_back(folder / WEIGHTS, _weights(model))
    if optimizer is not None:
        _put_back(folder / MOMENTS, _moments(model, optimizer))
    return state_of(folder)


def state_of(folder: Path) -> TrainState:
    """The state of the run at a checkpoint, without its tensors."""
    return TrainState(**json.loads((folder / STATE).read_text(encoding="utf-8")))


def _weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in trainable(model).items()}


def _moments(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's moments and its count of steps, by the names of the parameters."""
    return {
        f"{name}.{key}": value
        for name, parameter in trainable(model).items()
        for key, value in optimizer.state[parameter].items()
    }


def _put_back(file: Path, here: Mapping[str, torch.Tensor]) -> None:
    saved = load_file(file)
    shapes = {name: tensor.shape for name, tensor in here.items()}
    if odd := sorted({name for name, _ in shapes.items() ^ {(name, t.shape) for name, t in saved.items()}}):
        cure = "go on with the method and the model that the run began with"
        raise RecipeError(
            f"the checkpoint is of other weights: {', '.join(odd[:3])}", where=str(file.parent), cure=cure
        )
    with torch.no_grad():
        for name, tensor in here.items():
            tensor.copy_(saved[name])


def newest(folder: Path) -> Path | None:
    """The newest checkpoint whose manifest verifies; says so where a newer one does not."""
    for path in by_step(folder):
        if verifies(path):
            return path
        log.warning("the checkpoint %s is damaged; going back to the one before it", path.name)
    return None


def verifies(path: Path) -> bool:
    """True when the manifest is as it was written, and every file has the size and the hash that it says."""
    try:
        manifest = manifest_of(path)
        return manifest["schema"] == SCHEMA and all(
            (path / name).stat().st_size == entry["size"] and sha256(path / name) == entry["sha256"]
            for name, entry in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def manifest_of(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint. Raises ValueError where a byte of it is another than was written."""
    written = (path / MANIFEST).read_bytes()
    manifest: dict[str, Any] = json.loads(written)
    manifest.pop("sha256")
    if sealed(manifest) != written:
        raise ValueError("the manifest was changed")
    return manifest


def sealed(manifest: Mapping[str, Any]) -> bytes:
    """The manifest as it is written, with its own hash at the end."""
    digest = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
    return (json.dumps({**manifest, "sha256": digest}, indent=2) + "\n").encode()


def prune(folder: Path, keep: int, state: TrainState) -> None:
    """Delete all but the newest `keep` checkpoints up to now and the best. Raises TrainingError."""
    for path in [path for path in by_step(folder) if step_of(path) <= state.step][keep:]:
        if step_of(path) != state.best_step:
            with durable.explained(path):
                shutil.rmtree(path)


def by_step(folder: Path) -> list[Path]:
    """The checkpoints of a run, the newest first."""
    whole = [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdecimal()]
    return sorted(whole, key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """The number of updates after which a checkpoint was written."""
    return int(path.name.removeprefix("step-"))


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def hashes(folder: Path) -> Iterator[tuple[str, str]]:
    """(name, SHA-256) of every file of a folder, sorted by name, and of each `config.json` of a folder in it.

    Those say how sentence-transformers pools; what else a folder of the hub has in others (weights in other forms) is not read.
    """
    files = sorted((*folder.iterdir(), *folder.glob("*/config.json")))
    return ((file.relative_to(folder).as_posix(), sha256(file)) for file in files if file.is_file())
