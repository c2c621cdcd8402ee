"""Where a run happens: device, precision, seeds, memory, energy and ranks. On one CPU most of it is a no-op.

Ranks: gradients are *summed* over ranks and divided by the global weight in the loop, so DDP's averaging has no place
here. Every rank joins every collective, with or without rows; rank 0 alone writes.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import hashlib
import os
import platform
import random
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from pegbox import limits
from pegbox.errors import TrainingError, first_line

T = TypeVar("T")
POWERCAP = Path("/sys/class/powercap")
ENERGY_READ_EVERY = 30.0  # seconds: a processor's counter begins again at zero after some minutes of full load


def find_device() -> torch.device:
    """The accelerator that is there (cuda, mps or xpu; the local rank's own), else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if torch.backends.mps.is_available():
        return torch.device("mps")
    if torch.xpu.is_available():
        return torch.device("xpu", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def use_bf16(device: torch.device, wanted: bool | None) -> bool:
    """Compute in bfloat16: as wanted, by default on a GPU that can. Never chosen on a CPU, where it is slow."""
    if wanted is None:
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return wanted


def autocast(device: torch.device, bf16: bool) -> contextlib.AbstractContextManager[object]:
    """The context in which a forward pass computes: weights that learn stay float32, matmuls run in bfloat16."""
    return torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()


def seed_noise(seed: int, step: int, rank: int = 0) -> None:
    """Seed all generators that a process shares, for one update (from 0) of one rank.

    Dropout, and code of the user's, draw the same again where the update is repeated, and no state need be kept; data
    order and initial weights have generators of their own.
    """
    number = int.from_bytes(hashlib.blake2b(f"{seed} {step} {rank}".encode(), digest_size=8).digest(), "big")
    torch.manual_seed(number)
    np.random.seed(number % 2**32)
    random.seed(number)


def noise_state(device: torch.device) -> tuple[torch.Tensor, ...]:
    """The state of the generators that dropout on a device draws from: of the CPU, and of the device where it has its own."""
    if device.type == "cpu":
        return (torch.get_rng_state(),)
    return torch.get_rng_state(), torch.get_device_module(device).get_rng_state(*_named(device))


def draw_again(state: tuple[torch.Tensor, ...], device: torch.device) -> None:
    """Let the generators draw what they drew from this state on."""
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.get_device_module(device).set_rng_state(state[1], *_named(device))


def _named(device: torch.device) -> tuple[torch.device, ...]:
    """The device as an argument of its own module; there is but one mps, and it is not named."""
    return () if device.type == "mps" else (device,)


def tune_allocator() -> None:
    """Keep large freed blocks in this process instead of returning them to the kernel after every update.

    An update frees and takes again the same large blocks; glibc's default gives them back and pays for zeroed pages
    each time. Linux with glibc only; elsewhere nothing is changed. Constants: malloc.h.
    """
    if not _has_glibc():
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    libc = ctypes.CDLL(None)
    for option, value in ((mmap_threshold, 1 << 30), (trim_threshold, 2**31 - 1), (top_pad, 64 << 20)):
        libc.mallopt(option, value)


@cache
def _has_glibc() -> bool:
    return sys.platform == "linux" and platform.libc_ver()[0] == "glibc"


def available_memory(device: torch.device) -> int:
    """Bytes that this process may take beside what it holds: of the GPU, else of the computer and within its limits.

    Processes of one machine that train together have equal shares.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free, share = [], int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if sys.platform == "linux":
        with open("/proc/meminfo", encoding="ascii") as lines:
            fields = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        free += [fields["MemAvailable"], *limits.group_memory()]
    else:
        free.append(int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2))
    return min(min(free) // share, limits.address_space())


def held_memory(device: torch.device) -> int:
    """Bytes that this process holds now: on a GPU of its memory, else resident (where no system says: its peak)."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return limits.pages()[1] if sys.platform == "linux" else peak_memory(device)


# what torch's allocator, the C++ library and oneDNN say on a CPU that has no more memory
OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "out of memory",
    "create a primitive",
    "execute a primitive",
)


class OutOfMemoryError(TrainingError):
    """A rank, this or another, had not enough memory for its share."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was not enough, on whatever device."""
    if isinstance(error, MemoryError | OutOfMemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def synchronize(device: torch.device) -> None:
    """Return when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release_memory() -> None:
    """Give back what is held and not used: on a GPU to those who ask for larger pieces, else to the system."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim_memory()


def trim_memory() -> None:
    """Give the system back the pages of freed blocks, which `tune_allocator` lets this process keep."""
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory(device: torch.device) -> int:
    """The most bytes this process has held: on a GPU of its memory, else resident."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


@dataclass
class EnergyCounter:
    """A counter that the machine keeps by itself. `read` gives the units counted so far, `per_joule` how many make a
    joule, `most` (where there is one) the reading after which it begins again at zero."""

    name: str
    read: Callable[[], int]
    per_joule: float
    most: int | None = None
    last: int = 0
    joules: float = 0.0

    def advance(self) -> None:
        """Add what was counted since the last reading. Raises OSError where the counter cannot be read."""
        now = self.read()
        again = self.most if self.most is not None and now < self.last else 0
        self.joules += (now + again - self.last) / self.per_joule
        self.last = now


@contextlib.contextmanager
def metered(device: torch.device, powercap: Path = POWERCAP) -> Iterator[dict[str, Any]]:
    """Measure the energy of what is done inside: afterwards `joules` (or None) and `source` (or why not) are filled in.

    The counters are the machine's: of the whole processor (on a CPU) or of the whole GPU, not of this process alone.
    """
    found: dict[str, Any] = {"joules": None, "source": "this machine shows no energy counter"}
    counters: list[EnergyCounter] = []
    try:
        counters = _gpu_counters() if device.type == "cuda" else _cpu_counters(powercap) if device.type == "cpu" else []
        for counter in counters:
            counter.last = counter.read()
    except PermissionError:
        counters, found["source"] = [], "only root may read the processor's energy counters"
    except OSError:
        counters = []
    done = threading.Event()
    watch = threading.Thread(target=_advance_all, args=(counters, done), daemon=True)
    watch.start()
    try:
        yield found
    finally:
        done.set()
        watch.join()
    with contextlib.suppress(OSError):
        for counter in counters:
            counter.advance()
        if counters:
            kind = "GPU's own counter (NVML" if device.type == "cuda" else "processor's own counters (RAPL"
            names = ", ".join(counter.name for counter in counters)
            found.update(joules=sum(counter.joules for counter in counters), source=f"the {kind}: {names})")


def _advance_all(counters: Iterable[EnergyCounter], done: threading.Event) -> None:
    while not done.wait(ENERGY_READ_EVERY):
        with contextlib.suppress(OSError):
            for counter in counters:
                counter.advance()


def _cpu_counters(powercap: Path) -> list[EnergyCounter]:
    """Linux's RAPL counters of whole processors and of their memory; their parts are contained in these."""
    zones = {
        zone: (zone / "name").read_text(encoding="ascii").strip() for zone in sorted(powercap.glob("intel-rapl:*"))
    }
    return [
        EnergyCounter(name, partial(_number, zone / "energy_uj"), 1e6, _number(zone / "max_energy_range_uj"))
        for zone, name in zones.items()
        if name.startswith(("package-", "dram"))
    ]


def _number(file: Path) -> int:
    return int(file.read_text(encoding="ascii"))


def _gpu_counters() -> list[EnergyCounter]:
    """NVIDIA's counters of the GPUs that this machine's processes train on. Raises OSError where there are none."""
    nvml = ctypes.CDLL("libnvidia-ml.so.1")
    _check_nvml(nvml.nvmlInit_v2())
    counters = []
    for index in range(int(os.environ.get("LOCAL_WORLD_SIZE", "1"))):
        given, handle = torch.cuda.get_device_properties(index), ctypes.c_void_p()
        _check_nvml(nvml.nvmlDeviceGetHandleByUUID(f"GPU-{given.uuid}".encode(), ctypes.byref(handle)))
        counters.append(EnergyCounter(given.name, partial(_millijoules, nvml, handle), 1e3))
    return counters


def _millijoules(nvml: ctypes.CDLL, handle: ctypes.c_void_p) -> int:
    counted = ctypes.c_ulonglong()
    _check_nvml(nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(counted)))
    return counted.value


def _check_nvml(status: int) -> None:
    if status:
        raise OSError(f"NVML answers with status {status}")


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; `device` is where collectives of plain numbers happen."""

    rank: int = 0
    world: int = 1
    device: str = "cpu"

    @property
    def is_first(self) -> bool:
        """True for the one process that writes files and shows progress."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """The indices of `count` things that fall to this rank."""
        return slice(self.rank, count, self.world)

    def sum(self, *values: float) -> tuple[float, ...]:
        """Each value summed over the ranks, in float64."""
        if self.world == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return tuple(total.tolist())

    def gather(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """The rows [n, D] of every rank, in the order of the ranks; one that has none may not know how wide they are."""
        if self.world == 1:
            return [rows]
        own = torch.tensor(rows.shape, device=rows.device)
        sizes = [torch.empty_like(own) for _ in range(self.world)]
        dist.all_gather(sizes, own)
        most, width = torch.stack(sizes).amax(0).tolist()
        padded = rows.new_zeros(most, width)
        if len(rows):
            padded[: len(rows)] = rows
        found = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(found, padded)
        return [part[: int(size[0])] for part, size in zip(found, sizes, strict=True)]

    def least(self, value: float) -> int:
        """The least of a whole number's values on all ranks."""
        own = torch.tensor([[value]], dtype=torch.float64, device=self.device)
        return int(torch.cat(self.gather(own)).min())

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Sum gradients over the ranks in place, a parameter without one counting as zero, in one collective."""
        if self.world == 1:
            return
        grads = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            grads.append(parameter.grad)
        flat = torch.cat([grad.reshape(-1) for grad in grads])
        dist.all_reduce(flat)
        for grad, part in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def attempt(self, action: Callable[[], T]) -> T:
        """What the action gives. Raises OutOfMemoryError on every rank where one of them has not enough memory."""
        done, said = [], ""
        try:
            done.append(action())
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            said = first_line(error)  # not the error: it holds on to all that it was raised from
        if self.sum(1.0 - len(done))[0]:
            raise OutOfMemoryError(said or "another rank is out of memory")
        return done[0]

    def wait(self) -> None:
        """Return when every rank has come here."""
        if self.world > 1:
            dist.barrier()


ALONE = Ranks()


@contextlib.contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """The ranks that torchrun started (gloo on a CPU, nccl on GPUs), or the one process there is."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield ALONE
        return
    device = find_device()
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), world, str(device) if device.type == "cuda" else "cpu")
    finally:
        dist.destroy_process_group()
