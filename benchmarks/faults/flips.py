"""Checkpoints whose bytes are not what was written: found every time, named, and the one before is taken.

    drawn   a bit flipped, a file cut short or gone, a block of zeros: in any file of the newest checkpoint, manifest included
    all     every single bit of its manifest and of its state
    resumed for each file and kind of damage, a run that goes on from there: the same bytes at its end

A checkpoint is loaded only if it verifies, so damage that is found is damage that is never loaded.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # Python puts this folder first; its files are modules of `faults`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
import logging
import random
import shutil
from collections import Counter
from collections.abc import Mapping
from typing import Any

from faults.world import World, begin_or_resume, child, ended, left_by, made_world, side_by_side

from pegbox.runs import checkpoint

METHOD = "full"
FILES = (checkpoint.WEIGHTS, checkpoint.MOMENTS, checkpoint.STATE, checkpoint.MANIFEST)
EVERY_BIT = (checkpoint.STATE, checkpoint.MANIFEST)
KINDS = ("flipped", "cut short", "gone", "zeros")
BLOCK = 512  # bytes of zeros at most


class Heard(logging.Handler):
    """The warnings since they were last taken."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def take(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines


def damaged(sound: bytes, kind: str, draw: random.Random) -> bytes | None:
    """Other bytes than these; None where the file is gone."""
    if kind == "gone":
        return None
    if kind == "cut short":
        return sound[: draw.randrange(len(sound))]
    if kind == "flipped":
        return flipped(sound, draw.randrange(8 * len(sound)))
    while True:  # moments of weights that never had a gradient are zeros already
        at = draw.randrange(len(sound))
        zeros = bytes(min(draw.randint(1, BLOCK), len(sound) - at))
        if sound[at : at + len(zeros)] != zeros:
            return sound[:at] + zeros + sound[at + len(zeros) :]


def flipped(sound: bytes, bit: int) -> bytes:
    return sound[: bit // 8] + bytes([sound[bit // 8] ^ 1 << bit % 8]) + sound[bit // 8 + 1 :]


def put(file: Path, held: bytes | None) -> None:
    if held is None:
        file.unlink()
    else:
        file.write_bytes(held)


class Judge:
    """What the run says of its newest checkpoint, damaged and mended again."""

    def __init__(self, checkpoints: Path) -> None:
        self.checkpoints = checkpoints
        self.newest, self.before = checkpoint.by_step(checkpoints)[:2]
        self.heard = Heard()
        logging.getLogger("pegbox").addHandler(self.heard)

    def found(self, file: str, held: bytes | None) -> dict[str, bool]:
        """Whether this damage is found, named, and the checkpoint before is taken; afterwards all is as it was."""
        place = self.newest / file
        sound = place.read_bytes()
        put(place, held)
        seen = {"detected": not checkpoint.verifies(self.newest)}
        self.heard.take()
        seen["fell_back"] = checkpoint.newest(self.checkpoints) == self.before
        said = self.heard.take()
        seen["named"] = len(said) == 1 and "damaged" in said[0] and f" {self.newest.name} " in said[0]
        put(place, sound)
        return seen | {"mended": checkpoint.newest(self.checkpoints) == self.newest and not self.heard.take()}


def run(world: World, count: int = 1000, seed: int = 0, workers: int = 2, stride: int = 1) -> dict[str, Any]:
    """`count` damages drawn by `seed`, then every bit (of so many, the first) of the small files, then resumed runs."""
    recipe, finished = world.recipe(METHOD), world.folder / "flips"
    log, told = finished.with_suffix(".log"), finished.with_suffix(".json")
    assert ended(child(lambda: begin_or_resume(recipe, finished), log)) == 0, log.read_text()
    wanted = left_by(finished)
    judged = ended(child(lambda: told.write_text(json.dumps(_judged(finished, count, seed, stride))), log), limit=1800)
    assert judged == 0, log.read_text()
    trials = [(file, kind) for file in FILES for kind in KINDS][: 1 + count // 50]

    def trial(number: int) -> bool:
        file, kind = trials[number]
        folder = finished.with_name(f"flips-{number}")
        return _resumed(recipe, finished, folder, file, kind, random.Random(f"{seed} {number}")) == wanted

    same = side_by_side(trial, len(trials), workers)
    shutil.rmtree(finished)
    found: dict[str, Any] = json.loads(told.read_text())
    odd = [trial for trial, is_same in zip(trials, same, strict=True) if not is_same]
    return found | {"resumed": {"runs": len(trials), "same_bytes": sum(same), "odd": odd}}


def _judged(finished: Path, count: int, seed: int, stride: int) -> dict[str, Any]:
    """In the child: all damages, one after the other."""
    judge, draw = Judge(finished / "checkpoints"), random.Random(seed)
    sound = {file: (judge.newest / file).read_bytes() for file in FILES}
    drawn = list[tuple[str, dict[str, bool]]]()
    for _ in range(count):
        file, kind = draw.choice(FILES), draw.choice(KINDS)
        drawn.append((f"{kind}: {file}", judge.found(file, damaged(sound[file], kind, draw))))
    bits = [
        (f"bit {bit}: {file}", judge.found(file, flipped(sound[file], bit)))
        for file in EVERY_BIT
        for bit in range(0, 8 * len(sound[file]), stride)
    ]
    return {"checkpoint_files": len(FILES), "drawn": _figures(drawn), "every_bit": _figures(bits)}


def _figures(found: list[tuple[str, dict[str, bool]]]) -> dict[str, Any]:
    """Counts; `silent` is what was not found, `odd` what was not found, named, gone back from and mended."""
    counts = {name: sum(one[name] for _, one in found) for name in ("detected", "fell_back", "named", "mended")}
    kinds = Counter(what.split(":")[0] if not what.startswith("bit ") else what.split(": ")[1] for what, _ in found)
    odd = [what for what, one in found if not all(one.values())]
    return {"damages": len(found), **counts, "silent": len(found) - counts["detected"], "of_each": kinds, "odd": odd}


def _resumed(
    recipe: Mapping[str, Any], finished: Path, folder: Path, file: str, kind: str, draw: random.Random
) -> dict[str, str] | None:
    """What a run leaves that goes on from a damaged checkpoint; None where it does not come to its end."""
    shutil.copytree(finished, folder)
    place = checkpoint.by_step(folder / "checkpoints")[0] / file
    put(place, damaged(place.read_bytes(), kind, draw))
    left = (
        left_by(folder)
        if ended(child(lambda: begin_or_resume(recipe, folder), folder.with_suffix(".log"))) == 0
        else None
    )
    shutil.rmtree(folder)
    return left


def main() -> None:
    """Print the figures as JSON."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=1000, help="how many damages are drawn")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--stride", type=int, default=1, help="of so many bits one is flipped, of the small files")
    with made_world() as world:
        print(json.dumps(run(world, **vars(options.parse_args())), indent=1))


if __name__ == "__main__":
    main()
