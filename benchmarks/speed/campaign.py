"""Runs interleaved: A B C D, A B C D, ... each in a process of its own, so that a noisy machine slows everybody alike.

One repetition of a workload has one seed: of the order of the rows, and of the weights that everybody starts from.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speed.peers import missing
from speed.workloads import Workload

ONE_RUN = Path(__file__).parent / "one_run.py"
LINES_OF_ERROR = 5
QUIET = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
FLOOR = "floor"


@dataclass(frozen=True)
class Campaign:
    """Where everything is written, on which kind of device it runs, and whether it is a trial."""

    work: Path
    device: str
    small: bool

    def workload(self, one: Workload, seeds: Sequence[int]) -> dict[str, Any]:
        """All peers on a workload, once a seed, and the floor between them; who failed, and why."""
        folder = self.work / one.name.replace(" ", "-")
        shared = folder / "shared"
        known = {"workload": one.name, "shared": str(shared), "device": self.device, "small": self.small}
        self._process("share", folder / "sharing", known)
        able = [name for name in one.peers if missing(name) is None]
        failed = {name: f"{missing(name)} is not installed" for name in one.peers if name not in able}
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in (*able, FLOOR)}
        for seed in seeds:
            start = folder / f"seed-{seed}"
            of_seed = known | {"start": str(start), "seed": seed}
            rows = self._process("prepare", folder / f"preparing-{seed}", of_seed)
            for name in runs:
                if name in failed:
                    continue
                step, place = (FLOOR if name == FLOOR else "run"), folder / f"{name}-{seed}".replace(" ", "-")
                try:
                    found = self._process(step, place, of_seed | {"peer": name})
                except Failed as failure:
                    failed[name] = str(failure)
                    found = {}
                runs[name] += [found] if found else []
                print(f"{one.name}, seed {seed}, {name}: {_said(found) or failed[name]}", file=sys.stderr, flush=True)
        return {"about": one.about, "rows": rows, "runs": runs, "failed": failed}

    def _process(self, step: str, folder: Path, asked: dict[str, Any]) -> dict[str, Any]:
        """What a step finds in a process of its own. Raises Failed."""
        folder.mkdir(parents=True)
        (folder / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
        with (log := folder / "log.txt").open("w", encoding="utf-8") as file:
            code = subprocess.run(
                [sys.executable, str(ONE_RUN), step, str(folder)],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | QUIET,
                check=False,
            ).returncode
        if code:
            told = log.read_text(encoding="utf-8").strip().splitlines()[-LINES_OF_ERROR:]
            raise Failed(f"exit code {code}: {' / '.join(told)}")
        found: dict[str, Any] = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
        return found


class Failed(Exception):
    """A step that came to nothing; says why."""


def _said(found: dict[str, Any]) -> str:
    """A run in a line."""
    if "tokens_per_second" in found:
        return f"{found['tokens_per_second']:.0f} tokens/s"
    if not found:
        return ""
    rate = sum(found["tokens"]) / sum(found["seconds"])
    memory, first = found["peak_memory"] / 1e9, found["first_step"]
    return (
        f"{rate:.0f} tokens/s, {memory:.1f} GB, first update after {first:.0f} s, loss {found['evaluation_loss']:.6f}"
    )
