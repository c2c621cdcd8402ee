"""SIGTERM and SIGINT at any time of the training and the evaluation: a checkpoint, the right exit code, in seconds.

The run that goes on ends as the one that was never stopped.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faults.world import World, begin_or_resume, child, ended, goes_on_to, left_by, side_by_side

from pegbox.runs import checkpoint

LIMIT = 5.0  # seconds from the signal to the end


def run(world: World, count: int = 50, seed: int = 0, workers: int = 2) -> dict[str, Any]:
    """`count` times SIGTERM, and a fifth as often SIGINT."""
    return {
        signum.name: _stops(world, signum, number, seed, workers)
        for signum, number in ((signal.SIGTERM, count), (signal.SIGINT, -(-count // 5)))
    }


def _stops(world: World, signum: signal.Signals, count: int, seed: int, workers: int) -> dict[str, Any]:
    whole, recipe = world.folder / f"stops-{signum.name}", world.recipe("lora")
    log = whole.with_suffix(".log")
    process = child(lambda: begin_or_resume(recipe, whole), log)
    began = _first_update(process, whole)
    assert ended(process) == 0, log.read_text()
    seconds, wanted = time.monotonic() - began, left_by(whole)

    def trial(number: int) -> dict[str, Any]:
        draw = random.Random(f"{seed} {signum.name} {number}")
        folder = world.folder / f"stops-{signum.name}-{number}"
        while not (told := _stopped(recipe, folder, signum, draw.uniform(0, seconds))):
            shutil.rmtree(folder)  # it had ended before: once more, at another time
        return told | {"same": goes_on_to(wanted, recipe, folder), "number": number}

    trials = side_by_side(trial, count, workers)
    return {
        "signals": count,
        "right_exit_code": sum(one["code"] == 128 + signum for one in trials),
        "checkpoint_saved": sum(one["saved"] for one in trials),
        "same_bytes": sum(one["same"] for one in trials),
        "most_seconds": max(one["seconds"] for one in trials),
        "over_5_seconds": sum(one["seconds"] > LIMIT for one in trials),
        "odd": [one for one in trials if not (one["same"] and one["saved"] and one["code"] == 128 + signum)],
    }


def _stopped(recipe: Mapping[str, Any], folder: Path, signum: signal.Signals, delay: float) -> dict[str, Any] | None:
    """Begin a run and send it a signal, a while after its first update; None where it had ended by itself."""
    process = child(lambda: begin_or_resume(recipe, folder), folder.with_suffix(".log"))
    _first_update(process, folder)
    time.sleep(delay)
    sent = time.monotonic()
    os.kill(process, signum)
    code = ended(process)
    if code == 0:
        return None
    return {"code": code, "seconds": time.monotonic() - sent, "saved": _is_saved(folder)}


def _first_update(process: int, folder: Path) -> float:
    """Wait until a run has taken its first update, or has ended; the clock at that moment."""
    while not (folder / "metrics.jsonl").is_file():
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        time.sleep(0.001)
    return time.monotonic()


def _is_saved(folder: Path) -> bool:
    """Whether the newest checkpoint is of the last update that the log has, and whole."""
    newest = checkpoint.newest(folder / "checkpoints")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return newest is not None and checkpoint.step_of(newest) == lines[-1]["step"]
