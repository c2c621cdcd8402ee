"""When each update ended, and what the process had held by then: the same for every program that is measured.

torch itself calls back after each step of any optimizer, whoever's loop it is. The time of an update is what lies between
two such calls: the forward and backward passes, but also batching, logging, whatever the loop does. The first ends with
everything that a user waits for: the process's start, imports, rows, model.
"""

from __future__ import annotations

import time
from typing import Any

import psutil
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from pegbox import runtime


class Clock:
    """`ends`: seconds from the start of the process to the end of each step; `peak`: the most bytes held until then."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.ends, self.peak = device, list[float](), 0
        self._born = time.perf_counter() - (time.time() - psutil.Process().create_time())
        self._handle = register_optimizer_step_post_hook(self._end)

    def stop(self) -> None:
        """Take no more times."""
        self._handle.remove()

    def _end(self, *given: Any) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.ends.append(time.perf_counter() - self._born)
        self.peak = runtime.peak_memory(self.device)
