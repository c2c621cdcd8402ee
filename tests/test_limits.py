"""The memory that a process may have is the least of what the machine, its control groups and its shell leave."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import pytest
import torch

from pegbox import limits, runtime

CPU = torch.device("cpu")
MB = 1 << 20


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")


def left(root: Path, line: str) -> list[int]:
    own = root / "own"
    own.write_text(f"9:pids:/elsewhere\n{line}\n")
    return sorted(limits.group_memory(root, own))


def test_the_limits_of_a_group_and_of_those_above_it_count(tmp_path: Path) -> None:
    write(tmp_path, memory__max="max", memory__current=900 * MB)
    write(tmp_path / "pod", memory__max=500 * MB, memory__current=300 * MB)
    write(tmp_path / "pod" / "job", memory__max=400 * MB, memory__current=300 * MB)
    (tmp_path / "pod" / "job" / "memory.stat").write_text(f"anon 5\ninactive_file {50 * MB}\n")
    assert left(tmp_path, "0::/pod/job") == [150 * MB, 200 * MB]
    assert left(tmp_path, "0::/unknown") == []


def test_a_containers_own_limit_stands_at_the_root(tmp_path: Path) -> None:
    write(tmp_path / "memory", memory__limit_in_bytes=300 * MB, memory__usage_in_bytes=100 * MB)
    (tmp_path / "memory" / "memory.stat").write_text(f"total_inactive_file {10 * MB}\n")
    assert left(tmp_path, "4:cpu,memory:/outside/job") == [210 * MB]
    write(tmp_path / "memory", memory__limit_in_bytes=50 * MB)
    assert left(tmp_path, "4:memory:/") == [0]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's own files")
def test_the_least_of_all_limits_is_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    free = runtime.available_memory(CPU)
    assert 0 < free < 1 << 50
    monkeypatch.setattr(limits, "group_memory", lambda: [5 * MB, 70 * MB])
    assert runtime.available_memory(CPU) == 5 * MB
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "5")
    assert runtime.available_memory(CPU) == MB
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limits.pages()[0] + MB // 2, hard))
    assert runtime.available_memory(CPU) <= MB // 2


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's own files")
def test_what_is_held_grows_by_what_is_taken() -> None:
    runtime.trim_memory()
    before = runtime.held_memory(CPU)
    block = torch.ones(8 * MB)
    assert abs(runtime.held_memory(CPU) - before - block.numel() * 4) < 4 * MB
