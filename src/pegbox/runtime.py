"""Where a run happens: device, precision, seeds and ranks. On one CPU all of it is a no-op.

Ranks: gradients are *summed* over ranks and divided by the global weight in the loop, so DDP's averaging has no place
here. Every rank joins every collective, with or without rows; rank 0 alone writes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist


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


def seed_everything(seed: int) -> None:
    """Seed torch's generators, which draw dropout; data order and initial weights have generators of their own."""
    torch.manual_seed(seed)


def tune_allocator() -> None:
    """Keep large freed blocks in this process instead of returning them to the kernel after every update.

    An update frees and takes again the same large blocks; glibc's default gives them back and pays for zeroed pages
    each time. Linux with glibc only; elsewhere nothing is changed. Constants: malloc.h.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    libc = ctypes.CDLL(None)
    for option, value in ((mmap_threshold, 1 << 30), (trim_threshold, 2**31 - 1), (top_pad, 64 << 20)):
        libc.mallopt(option, value)


def available_memory(device: torch.device) -> int:
    """Bytes that a run may take now on the device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if sys.platform == "linux":
        with open("/proc/meminfo", encoding="ascii") as lines:
            fields = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        return fields["MemAvailable"]
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)


def peak_memory(device: torch.device) -> int:
    """The most bytes this process has held: on a GPU of its memory, else resident."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


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
