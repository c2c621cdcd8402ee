"""What every peer is asked, and what it makes: one function from the one to the other is a peer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from speed.given import Given, given
from speed.workloads import Workload


@dataclass(frozen=True)
class Asked:
    """One run. `shared`: the folder of the workload; `start`: that of the seed; `work`: a folder to write into."""

    workload: Workload
    shared: Path
    start: Path
    work: Path
    seed: int

    @cached_property
    def given(self) -> Given:
        """The rows and weights that everybody gets."""
        return given(self.start)


@dataclass(frozen=True)
class Training:
    """A model that is ready, and what takes all the updates of the workload."""

    model: torch.nn.Module
    run: Callable[[], Any]


Peer = Callable[[Asked], Training]
