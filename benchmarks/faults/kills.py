"""SIGKILL at any time, and more often inside a save: the run that goes on ends as the one that was never killed.

The time of a kill is drawn evenly over what the whole run took, from the reading of rows to the report. Of each hundred
a third and more are aimed at a save instead: the parent waits until the child says that it saves for the n-th time.
"""

from __future__ import annotations

import mmap
import os
import random
import shutil
import signal
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faults.world import (
    METHODS,
    SAVE_STEPS,
    STEPS,
    World,
    begin_or_resume,
    child,
    ended,
    goes_on_to,
    left_by,
    side_by_side,
)

from pegbox.runs import checkpoint

INSIDE = 0.35  # the share of kills that are aimed at a save, of which some come a moment too late
SAVES = STEPS // SAVE_STEPS


class Shared:
    """What a child and its parent share: how many saves have begun, whether one is going on, and how long the last took."""

    def __init__(self) -> None:
        self.bytes = mmap.mmap(-1, 16)

    def watch(self) -> None:
        """In the child: let the parent see when it saves."""
        right = checkpoint.save

        def save(*given: Any) -> Path:
            self.bytes[0] += 1
            self.bytes[1] = 1
            began = time.monotonic()
            done = right(*given)
            struct.pack_into("d", self.bytes, 8, time.monotonic() - began)
            self.bytes[1] = 0
            return done

        checkpoint.save = save

    @property
    def begun(self) -> int:
        return self.bytes[0]

    @property
    def saving(self) -> bool:
        return self.bytes[1] == 1

    @property
    def seconds(self) -> float:
        return float(struct.unpack_from("d", self.bytes, 8)[0])


def run(world: World, count: int = 100, seed: int = 0, workers: int = 2) -> dict[str, Any]:
    """`count` kills for each method: how many were inside a save, how many resumed to the same bytes."""
    return {method: _kills(world, method, count, seed, workers) for method in METHODS}


def _kills(world: World, method: str, count: int, seed: int, workers: int) -> dict[str, Any]:
    whole = world.folder / f"kills-{method}"
    recipe = world.recipe(method)
    began, shared = time.monotonic(), Shared()
    code = ended(_watched(shared, recipe, whole))
    assert code == 0, whole.with_suffix(".log").read_text()
    seconds, wanted = time.monotonic() - began, left_by(whole)

    def trial(number: int) -> dict[str, Any]:
        draw = random.Random(f"{seed} {method} {number}")
        folder = world.folder / f"kills-{method}-{number}"
        while not (told := _killed(recipe, folder, draw, seconds, shared.seconds if number < INSIDE * count else 0)):
            shutil.rmtree(folder)  # it had ended before: once more, at another time
        return told | {"same": goes_on_to(wanted, recipe, folder), "number": number}

    trials = side_by_side(trial, count, workers)
    return {
        "kills": count,
        "inside_a_save": sum(one["inside"] for one in trials),
        "before_it_was_a_run": sum(not one["begun"] for one in trials),
        "same_bytes": sum(one["same"] for one in trials),
        "differ": [one["number"] for one in trials if not one["same"]],
    }


def _watched(shared: Shared, recipe: Mapping[str, Any], folder: Path) -> int:
    """A child that runs the recipe, and shares when it saves."""

    def watched() -> None:
        shared.watch()
        begin_or_resume(recipe, folder)

    return child(watched, folder.with_suffix(".log"))


def _killed(
    recipe: Mapping[str, Any], folder: Path, draw: random.Random, seconds: float, saving: float
) -> dict[str, Any] | None:
    """Begin a run and kill it; None where it had ended by itself.

    seconds: what a run takes; saving: what a save takes, where the kill is aimed at one, else 0.
    """
    shared = Shared()
    process = _watched(shared, recipe, folder)
    if saving:
        _wait_for_save(process, shared, draw.randint(1, SAVES), draw.uniform(0, saving))
    else:
        time.sleep(draw.uniform(0, seconds))
    inside = shared.saving
    os.kill(process, signal.SIGKILL)
    if ended(process) != -signal.SIGKILL:
        return None
    return {"inside": inside, "begun": (folder / "recipe.yaml").is_file()}


def _wait_for_save(process: int, shared: Shared, number: int, delay: float) -> None:
    """Return a moment after the child began to save for the n-th time, or when it has ended."""
    until = time.monotonic() + 60
    while not (shared.begun >= number and shared.saving) and time.monotonic() < until:
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(0.0002)
    time.sleep(delay)
