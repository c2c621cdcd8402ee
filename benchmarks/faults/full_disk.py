"""A disk that is really full: the run folder lies on a small tmpfs, and the run that goes on ends as on a large one.

    sizes   disks of every size up to what the run takes, in equal steps
    places  a disk filled just before a part of the run, so that 0, 1, 2, ... pages are left for what the part writes

In every second trial checkpoints do not look first at how much is free, as if somebody else took the space just then. A run
that ended is tried again while the disk is full, then once more with space. Where nothing can be mounted, it says so.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # Python puts this folder first; its files are modules of `faults`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import os
import random
import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from faults.world import (
    World,
    begin_or_resume,
    child,
    ended,
    left_by,
    print_figures,
    side_by_side,
)

from pegbox import pipeline, record
from pegbox.runs import checkpoint, durable
from pegbox.training import loop

PAGE = 4096
LARGE = 64 << 20
SIZES = 60
BALLAST = "ballast"
# each part of a run by the function that it begins with, and how many pages are left for it at most
PARTS: dict[str, tuple[ModuleType, str, int]] = {
    "first files": (record, "begin", 8),
    "updates": (loop, "train", 12),
    "model": (pipeline, "_keep_model", 20),
    "evaluation": (pipeline, "_judge", 32),
}
TOLD = re.compile(
    r"^pegbox: (?P<where>\S+): the disk is full: (?P<needed>[\d,]+ bytes are needed, )?[\d,]+ are free\n  cure: ", re.M
)


@dataclass(frozen=True)
class Trial:
    """A disk of `size` bytes; with a `part`, filled before it up to `pages`. `looks`: checkpoints look what is free."""

    size: int
    part: str = ""
    pages: int = 0
    looks: bool = True


def run(
    world: World,
    count: int | None = None,
    seed: int = 0,
    workers: int = 2,
    methods: Sequence[str] = ("full", "lora"),
) -> dict[str, Any]:
    """All sizes and places for each method; with `count`, that many of each, drawn by `seed`."""
    if not can_mount(world.folder):
        return {"skipped": "no tmpfs can be mounted here"}
    return {method: _fillings(world, method, count, seed, workers) for method in methods}


def can_mount(folder: Path) -> bool:
    try:
        with small_disk(folder / "tried", PAGE):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A tmpfs of so many bytes."""
    folder.mkdir()
    _call("mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder))
    try:
        yield folder
    finally:
        _call("umount", "-l", str(folder))
        folder.rmdir()


def make_room(disk: Path) -> None:
    (disk / BALLAST).unlink(missing_ok=True)
    _call("mount", "-o", f"remount,size={LARGE}", str(disk))


def _call(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def _fillings(world: World, method: str, count: int | None, seed: int, workers: int) -> dict[str, Any]:
    recipe, base = world.recipe(method), world.folder / f"disk-{method}"
    with small_disk(base, LARGE) as disk:
        log = base.with_suffix(".log")
        assert ended(child(lambda: begin_or_resume(recipe, disk / "run"), log)) == 0, log.read_text()
        wanted, used = left_by(disk / "run"), LARGE - durable.free(disk)
        newest = checkpoint.by_step(disk / "run" / "checkpoints")[0]
        most = used + sum(file.stat().st_size + PAGE for file in newest.iterdir())  # one more, while it is written
    trials = list(_trials(most))
    if count is not None:
        trials = random.Random(f"{seed} {method}").sample(trials, min(count, len(trials)))

    def trial(number: int) -> dict[str, Any]:
        return _trial(trials[number], recipe, base.with_name(f"{base.name}-{number}"), wanted)

    return {"bytes_of_a_run": used} | _figures(side_by_side(trial, len(trials), workers))


def _trials(most: int) -> Iterator[Trial]:
    for number in range(1, SIZES + 1):
        yield Trial(-(-most * number // SIZES // PAGE) * PAGE, looks=number % 2 == 0)
    for part, (_, _, pages) in PARTS.items():
        for left in range(pages):
            yield Trial(LARGE, part, left, looks=left % 2 == 0)


def _trial(given: Trial, recipe: Mapping[str, Any], base: Path, wanted: Mapping[str, str]) -> dict[str, Any]:
    log, again, last = (base.with_suffix(f".{number}.log") for number in range(3))
    with small_disk(base, given.size) as disk:
        run = disk / "run"
        code = ended(child(lambda: _filled(given, recipe, run), log))
        corrupt = [path.name for path in checkpoint.by_step(run / "checkpoints") if not checkpoint.verifies(path)]
        full = 0 if code == 0 else ended(child(lambda: begin_or_resume(recipe, run), again))
        corrupt += [path.name for path in checkpoint.by_step(run / "checkpoints") if not checkpoint.verifies(path)]
        make_room(disk)
        resumed = 0 if code == 0 else ended(child(lambda: begin_or_resume(recipe, run), last))
        same = resumed == 0 and left_by(run) == wanted
        left = [str(path.relative_to(run)) for path in run.rglob(".*")]
        found = TOLD.search(log.read_text())
        where = Path(found["where"]).relative_to(disk) if found else None
    return {
        "trial": str(given),
        "code": code,
        "told": code == 4 and found is not None and "Traceback" not in log.read_text(),
        "where": re.sub(r"\d+", "N", str(where)) if code else "",
        "needed": found is not None and found["needed"] is not None,
        "corrupt": corrupt,
        "while_full": full,
        "same": same,
        "left": left,
        "said": "".join(file.read_text()[-600:] for file in (log, again, last) if file.is_file()),
    }


def _filled(given: Trial, recipe: Mapping[str, Any], run: Path) -> None:
    """In the child: the run, with the disk filled on the way."""
    if not given.looks:
        durable.refuse_full = lambda folder, needed: None
    if given.part:
        module, name, _ = PARTS[given.part]
        right = getattr(module, name)

        def begins(*passed: Any) -> Any:
            _fill(run.parent, given.pages)
            return right(*passed)

        setattr(module, name, begins)
    begin_or_resume(recipe, run)


def _fill(disk: Path, pages: int) -> None:
    """Leave room for this many pages."""
    with (disk / BALLAST).open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, durable.free(disk) - pages * PAGE)
    assert durable.free(disk) == pages * PAGE


def _figures(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts, each beside what it is out of; `odd`: what did not end as it should."""
    full = [one for one in found if one["code"]]
    tried_again = Counter(one["while_full"] for one in full)
    odd = [
        one
        for one in found
        if not one["same"]
        or one["corrupt"]
        or one["left"]
        or one["while_full"] not in (0, 4)
        or (one["code"] and not one["told"])
    ]
    return {
        "disks": len(found),
        "large_enough": len(found) - len(full),
        "told_with_exit_code_4_and_free_bytes": f"{sum(one['told'] for one in full)} of {len(full)}",
        "of_them_with_needed_bytes": sum(one["needed"] for one in full),
        "full_at": dict(Counter(one["where"] for one in full).most_common()),
        "exit_codes_while_still_full": {str(code): n for code, n in sorted(tried_again.items())},
        "corrupt_checkpoints": sum(len(one["corrupt"]) for one in found),
        "left_something_behind": sum(bool(one["left"]) for one in found),
        "same_bytes": f"{sum(one['same'] for one in found)} of {len(found)}",
        "odd": odd,
    }


if __name__ == "__main__":
    print_figures(run, __doc__, None)
