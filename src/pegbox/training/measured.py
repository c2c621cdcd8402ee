"""What an action costs: its seconds, and the most bytes that the process holds meanwhile beyond what it held before.

On a GPU the allocator counts. On a CPU nobody does: freed blocks are first given back to the system, so that what is resident
is what is held, and then a thread looks at that every millisecond. The peaks that matter last longer.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from pegbox import runtime
from pegbox.runtime import Ranks

LOOK_EVERY = 0.001  # seconds


@dataclass(frozen=True)
class Cost:
    """Seconds, and bytes beyond those that were held before."""

    seconds: float
    memory: int


def measure(device: torch.device, action: Callable[[], object], *, times: int = 1) -> Cost:
    """What the action costs on the device, done so many `times`: the seconds of the last, the bytes of the dearest.

    The first time new pages are asked of the system, and the library makes its code ready: a run pays for that once.
    """
    runtime.trim_memory()
    before, seconds = runtime.held_memory(device), 0.0
    with _watched(device) as peak:
        for _ in range(times):
            began = time.perf_counter()
            action()
            runtime.synchronize(device)
            seconds = time.perf_counter() - began
    return Cost(seconds, max(0, peak[0] - before))


def dearest(ranks: Ranks, cost: Cost) -> Cost:
    """The most that it costs any rank: what all of them plan with."""
    own = torch.tensor([[cost.seconds, float(cost.memory)]], dtype=torch.float64, device=ranks.device)
    seconds, memory = torch.cat(ranks.gather(own)).amax(0).tolist()
    return Cost(seconds, int(memory))


@contextlib.contextmanager
def _watched(device: torch.device) -> Iterator[list[int]]:
    """Afterwards the one number inside is the most bytes that were held."""
    peak = [runtime.held_memory(device)]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak[0] = int(torch.cuda.max_memory_allocated(device))
        return
    done = threading.Event()

    def look() -> None:
        while not done.wait(LOOK_EVERY):
            peak[0] = max(peak[0], runtime.held_memory(device))

    watch = threading.Thread(target=look, daemon=True)
    watch.start()
    try:
        yield peak
    finally:
        done.set()
        watch.join()
        peak[0] = max(peak[0], runtime.held_memory(device))
