"""Energy is read from the machine's own counters, over their ends, and where there is none the reason is said."""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pegbox import runtime

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def zone(root: Path, folder: str, name: str, microjoules: int, most: int = 10_000_000) -> Path:
    """A zone of Linux's powercap tree."""
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{most}\n")
    (path / "energy_uj").write_text(f"{microjoules}\n")
    return path / "energy_uj"


def test_the_joules_of_processors_and_their_memory_are_added_up(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    memory = zone(tmp_path, "intel-rapl:0:1", "dram", 500_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 0)
    with runtime.metered(CPU, tmp_path) as energy:
        first.write_text("4000000")
        memory.write_text("750000")
        second.write_text("1000000")
    assert energy["joules"] == pytest.approx(3 + 0.25 + 1)
    assert energy["source"] == "the processor's own counters (RAPL: package-0, dram, package-1)"


def test_a_part_of_a_processor_is_not_counted_twice(tmp_path: Path) -> None:
    whole = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    others = [
        zone(tmp_path, "intel-rapl:0:0", "core", 0),
        zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0),
        zone(tmp_path, "intel-rapl:1", "psys", 0),
    ]
    with runtime.metered(CPU, tmp_path) as energy:
        for counter in (whole, *others):
            counter.write_text("2000000")
    assert energy["joules"] == pytest.approx(2.0)


def test_a_counter_that_begins_again_loses_nothing(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 9_000_000, most=10_000_000)
    with runtime.metered(CPU, tmp_path) as energy:
        counter.write_text("500000")
    assert energy["joules"] == pytest.approx(1.5)


def test_a_counter_that_begins_again_many_times_is_read_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0, most=10_000_000)
    readings, enough = iter([0, 6_000_000, 2_000_000, 8_000_000]), threading.Event()

    def read(file: Path) -> int:
        if file.name == "max_energy_range_uj":
            return 10_000_000
        reading = next(readings, 8_000_000)
        if reading == 8_000_000:
            enough.set()
        return reading

    monkeypatch.setattr(runtime, "_number", read)
    monkeypatch.setattr(runtime, "ENERGY_READ_EVERY", 0.001)
    with runtime.metered(CPU, tmp_path) as energy:
        assert enough.wait(10)
    assert energy["joules"] == pytest.approx(18.0)


def test_without_a_counter_nothing_is_made_up(tmp_path: Path) -> None:
    for device in (CPU, torch.device("mps")):
        with runtime.metered(device, tmp_path / "none") as energy:
            pass
        assert energy == {"joules": None, "source": "this machine shows no energy counter"}


def test_a_counter_that_only_root_may_read_is_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0)

    def refuse(file: Path) -> int:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(runtime, "_number", refuse)
    with runtime.metered(CPU, tmp_path) as energy:
        pass
    assert energy == {"joules": None, "source": "only root may read the processor's energy counters"}


def test_an_error_inside_is_not_hidden_and_ends_the_watch(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), runtime.metered(CPU, tmp_path):
        raise ZeroDivisionError
    assert threading.active_count() == before


class Nvml:
    """What we use of NVIDIA's library: two GPUs that have counted 5 J and 7 J, and count 1 J at each reading."""

    def __init__(self, path: str) -> None:
        assert path == "libnvidia-ml.so.1"
        self.counted = {1: 5000, 2: 7000}

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:
        handle._obj.value = {b"GPU-a": 1, b"GPU-b": 2}[uuid]
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: ctypes.c_void_p, counted: Any) -> int:
        assert handle.value is not None
        counted._obj.value = self.counted[handle.value]
        self.counted[handle.value] += 1000
        return 0


@pytest.mark.parametrize(("processes", "joules", "names"), [("1", 1.0, "H200"), ("2", 2.0, "H200, H200")])
def test_the_gpus_of_this_machines_processes_are_counted_by_their_driver(
    monkeypatch: pytest.MonkeyPatch, processes: str, joules: float, names: str
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", Nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda at: SimpleNamespace(uuid="ab"[at], name="H200"))
    monkeypatch.setitem(os.environ, "LOCAL_WORLD_SIZE", processes)
    with runtime.metered(GPU) as energy:
        pass
    assert energy == {"joules": pytest.approx(joules), "source": f"the GPU's own counter (NVML: {names})"}


def test_a_gpu_whose_driver_has_no_counter_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old(Nvml):
        def nvmlDeviceGetTotalEnergyConsumption(self, handle: ctypes.c_void_p, counted: Any) -> int:
            return 3  # not supported

    monkeypatch.setattr(ctypes, "CDLL", Old)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda at: SimpleNamespace(uuid="a", name="K80"))
    with runtime.metered(GPU) as energy:
        pass
    assert energy["joules"] is None
