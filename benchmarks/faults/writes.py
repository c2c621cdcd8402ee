"""A fault at every call by which a run changes its folder: the run that goes on ends as the one that met none.

Three places, each gone through call by call, every kind of fault (`door.KINDS`) at every call that it can happen at:

    save      the third save: the logs synced, the checkpoint written, an older one deleted
    beside    a whole run but its saves: the first files, the lines of the logs, the receipt, evaluation and report
    going on  a finished run whose last checkpoint is damaged goes on: logs cut, the checkpoint and `model/` replaced

A run is fast up to its third save, but there are thousands of faults: the process of one run divides itself there, once for
each fault of a group, and every copy goes its own way with a run folder of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # Python puts this folder first; its files are modules of `faults`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
import os
import random
import re
import shutil
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from itertools import count as counted
from typing import Any

from faults.door import ERRORS, KINDS, Door
from faults.world import SAVE_STEPS, STEPS, World, begin_or_resume, child, ended, left_by, print_figures, side_by_side

from pegbox import pipeline
from pegbox.runs import checkpoint
from pegbox.training import loop

SAVE, BESIDE, ON = "save", "beside", "going on"
THIRD, GROUP = 3, 50
PLACES: Mapping[str, Sequence[str]] = {SAVE: ("full", "lora"), BESIDE: ("lora",), ON: ("lora",)}
# the step that the newest checkpoint may not be before; none where a run has only begun
LEAST = {SAVE: (THIRD - 1) * SAVE_STEPS, BESIDE: 0, ON: STEPS - SAVE_STEPS}
FREE, NEEDED = (
    re.compile(r"the disk is full: .*[\d,]+ are free"),
    re.compile(r"[\d,]+ bytes are needed, [\d,]+ are free"),
)

Site = tuple[int, str, str]  # the number of the call, what it is, the kind of fault


class Enough(BaseException):
    """What was to be seen has been."""


def run(
    world: World,
    count: int | None = None,
    seed: int = 0,
    workers: int = 2,
    places: Mapping[str, Sequence[str]] = PLACES,
) -> dict[str, Any]:
    """Every fault at every call of each place and method; with `count`, that many of each, drawn by `seed`."""
    return {
        f"{place}, {method}": _faults(world, place, method, count, seed, workers)
        for place, methods in places.items()
        for method in methods
    }


def _faults(world: World, place: str, method: str, count: int | None, seed: int, workers: int) -> dict[str, Any]:
    campaign = Campaign(place, world.recipe(method), world.folder / f"{place}-{method}".replace(" ", "-"))
    calls, wanted = campaign.begin()
    sites: list[Site] = [
        (number, f"{call} {file}", kind)
        for number, (call, file) in enumerate(calls)
        if not (place == ON and call == "write" and file.endswith(".safetensors"))  # as in the other saves
        for kind, where in KINDS.items()
        if call in where
    ]
    if count is not None:
        sites = random.Random(f"{seed} {place} {method}").sample(sites, min(count, len(sites)))
    groups = [range(start, min(start + GROUP, len(sites))) for start in range(0, len(sites), GROUP)]

    def group(number: int) -> list[dict[str, Any]]:
        given = {trial: sites[trial] for trial in groups[number]}
        codes = campaign.meet_in_a_save(number, given) if place == SAVE else campaign.meet(given)
        return [campaign.judge(trial, site, codes[trial], wanted) for trial, site in given.items()]

    found = list(chain(*side_by_side(group, len(groups), workers)))
    return {"calls": len(calls), "of_them": Counter(call for call, _ in calls)} | _figures(found)


@dataclass(frozen=True)
class Campaign:
    """The faults of one place and one method; its runs stand beside each other, with `base` as the beginning of their names."""

    place: str
    recipe: Mapping[str, Any]
    base: Path

    def folder(self, name: object) -> Path:
        return self.base.with_name(f"{self.base.name}-{name}")

    def begin(self) -> tuple[list[tuple[str, str]], dict[str, str]]:
        """The calls that count of a run in which none fails, and what is left of it: what every run is to leave."""
        if self.place == ON:
            whole = self.folder("whole")
            assert ended(child(lambda: begin_or_resume(self.recipe, whole), _log(whole))) == 0, _log(whole).read_text()
            _damage(checkpoint.by_step(whole / "checkpoints")[0] / checkpoint.WEIGHTS)
        clean = self._made("clean")
        told = clean.with_suffix(".json")
        assert ended(child(lambda: self._behind(clean, told=told), _log(clean))) == 0, _log(clean).read_text()
        return [(call, file) for call, file in json.loads(told.read_text())], left_by(clean)

    def _made(self, name: object) -> Path:
        """The folder of a run that begins, or that of one that goes on."""
        folder = self.folder(name)
        if self.place == ON:
            shutil.copytree(self.folder("whole"), folder)
        return folder

    def _behind(self, run: Path, at: int = -1, kind: str = "", told: Path | None = None) -> None:
        """In the child: the run behind a door."""
        door, right, saves = Door(run, at, kind, counts=self.place != SAVE), loop.save, counted(1)

        def save(*given: Any) -> None:
            door.counts = self.place == ON or (self.place == SAVE and next(saves) == THIRD)
            right(*given)
            door.counts = self.place != SAVE

        loop.save = save
        with door:
            begin_or_resume(self.recipe, run)
        if told is not None:
            told.write_text(json.dumps(door.passed))

    def meet(self, sites: Mapping[int, Site]) -> dict[int, int]:
        """The exit code of a run with each fault."""
        codes = dict[int, int]()
        for trial, (at, _, kind) in sites.items():
            run = self._made(trial)
            codes[trial] = ended(child(lambda run=run, at=at, kind=kind: self._behind(run, at, kind), _log(run)))
        return codes

    def meet_in_a_save(self, group: int, sites: Mapping[int, Site]) -> dict[int, int]:
        """The same for a run that divides itself before its third save."""
        stem = self.folder(f"stem-{group}")
        told = stem.with_suffix(".json")
        assert ended(child(lambda: self._divide(stem, sites, told), _log(stem))) == 0, _log(stem).read_text()
        shutil.rmtree(stem)
        return {int(trial): code for trial, code in json.loads(told.read_text()).items()}

    def _divide(self, stem: Path, sites: Mapping[int, Site], told: Path) -> None:
        """In the child, and in the children that it has."""
        door, right, saves = Door(stem, counts=False), loop.save, counted(1)

        def save(*given: Any) -> None:
            if next(saves) != THIRD:
                return right(*given)
            codes = dict[int, int]()
            for trial, (at, _, kind) in sites.items():
                code = _branch(door, stem, self.folder(trial))
                if code is None:
                    door.at, door.kind, door.counts = at, kind, True
                    return right(*given)
                codes[trial] = code
            told.write_text(json.dumps(codes))
            raise Enough

        loop.save = save
        with suppress(Enough), door:
            begin_or_resume(self.recipe, stem)

    def judge(self, trial: int, site: Site, code: int, wanted: Mapping[str, str]) -> dict[str, Any]:
        """What a fault left, and what became of the run that went on."""
        run, (_, call, kind) = self.folder(trial), site
        again = _log(self.folder(f"{trial}-again"))
        said = _log(run).read_text()
        newest = next(filter(checkpoint.verifies, checkpoint.by_step(run / "checkpoints")), None)
        resumed = ended(child(lambda: self._go_on(run), again))
        same = resumed == 0 and left_by(run) == wanted
        left = [str(path.relative_to(run)) for path in run.rglob(".*")]
        if same and not left:
            shutil.rmtree(run)
        is_error = kind in ERRORS or kind == "part, then full"
        return {
            "fault": f"{kind}: {call}",
            "code": code,
            "killed": code == -signal.SIGKILL,
            "error": is_error,
            "told": code in _right_codes(call) and "pegbox: " in said and "cure: " in said and "Traceback" not in said,
            "full": is_error and kind != "error",
            "free": bool(FREE.search(said)),
            "needed": bool(NEEDED.search(said)),
            "too_far_back": (checkpoint.step_of(newest) if newest else 0) < LEAST[self.place],
            "unloadable": resumed != 0,
            "same": same,
            "left": left,
            "said": said[-400:] + (again.read_text()[-400:] if resumed else ""),
        }

    def _go_on(self, run: Path) -> None:
        """In the child: after a save, up to the model, since the evaluation hangs on nothing else."""

        def judged(*given: Any) -> None:
            raise Enough

        if self.place == SAVE:
            pipeline._judge = judged
        with suppress(Enough):
            begin_or_resume(self.recipe, run)


def _branch(door: Door, run: Path, to: Path) -> int | None:
    """None in a copy of this process; here its exit code, when it has ended: its run is at `to`, ours as it was."""
    kept = run.with_name(f"{run.name}-kept")
    shutil.copytree(run, kept)
    sys.stdout.flush()
    sys.stderr.flush()
    number = os.fork()
    if number == 0:
        told = os.open(_log(to), os.O_WRONLY | os.O_CREAT, 0o644)
        os.dup2(told, 1)
        os.dup2(told, 2)
        return None
    code = ended(number)
    door.right["rename"](run, to)
    kept.rename(run)
    return code


def _log(run: Path) -> Path:
    return run.with_name(f"{run.name}.log")


def _damage(file: Path) -> None:
    """Flip a bit."""
    held = bytearray(file.read_bytes())
    held[-1] ^= 1
    file.write_bytes(held)


def _right_codes(call: str) -> tuple[int, ...]:
    """The folder itself is the user's choice, which may be a wrong one; all else is the disk's fault."""
    return (2, 4) if call == "mkdir " else (4,)


def _figures(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts, each beside what it is out of; `odd`: the faults that did not end as they should."""
    errors, full = ([one for one in found if one[name]] for name in ("error", "full"))
    odd = [
        {name: one[name] for name in ("fault", "code", "too_far_back", "unloadable", "same", "left", "said")}
        for one in found
        if not (one["told"] if one["error"] else one["killed"]) or not one["same"] or one["too_far_back"] or one["left"]
    ]
    return {
        "faults": len(found),
        "killed": f"{sum(one['killed'] for one in found)} of {len(found) - len(errors)}",
        "errors_told": f"{sum(one['told'] for one in errors)} of {len(errors)}",
        "exit_codes_of_errors": {str(code): n for code, n in sorted(Counter(one["code"] for one in errors).items())},
        "full_disk_names_free_bytes": f"{sum(one['free'] for one in full)} of {len(full)}",
        "full_disk_names_needed_bytes": f"{sum(one['needed'] for one in full)} of {len(full)}",
        "more_than_one_interval_lost": sum(one["too_far_back"] for one in found),
        "unloadable": sum(one["unloadable"] for one in found),
        "left_something_behind": sum(bool(one["left"]) for one in found),
        "same_bytes": f"{sum(one['same'] for one in found)} of {len(found)}",
        "odd": odd,
    }


if __name__ == "__main__":
    print_figures(run, __doc__, None)
