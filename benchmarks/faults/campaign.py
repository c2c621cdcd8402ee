"""The fault campaign: kill it, fill its disk, spoil its files, its numbers and its memory; count what was lost.

`make faults` runs all of it and writes `../results/faults.json`; `--small` is a trial of
minutes that writes nothing. Each campaign says what it does in its own file. docs/reliability.md has the figures in words.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder: its files are modules of `faults`

from faults.world import World, made_world  # noqa: E402

from faults import flips, full_disk, kills, memory, mutants, not_finite, page, resumes, stops, writes  # noqa: E402


def faults_of_writing(world: World, count: int | None = None, seed: int = 0) -> dict[str, Any]:
    """Every call of a save of an adapter; of the calls of a whole model's save and beside the saves, so many of each place."""
    rest = {**writes.PLACES, writes.SAVE: ("full",)}
    every = writes.run(world, count, seed, places={writes.SAVE: ("lora",)})
    return every | writes.run(world, count or ELSEWHERE, seed, places=rest)


ELSEWHERE = 25
RESULTS = Path(__file__).resolve().parents[1] / "results" / "faults.json"
# a campaign, how much of it is asked for, and how much for a trial
CAMPAIGNS: Mapping[str, tuple[Callable[..., dict[str, Any]], int | None, int]] = {
    "kills": (kills.run, 100, 4),  # for each of three methods
    "writes": (faults_of_writing, None, 3),
    "full_disk": (full_disk.run, 132, 3),
    "flips": (flips.run, 1000, 50),
    "stops": (stops.run, 50, 3),
    "resumes": (resumes.run, None, 3),
    "not_finite": (not_finite.run, 100, 6),
    "memory": (memory.run, 50, 4),
    "mutants": (mutants.run, None, 3),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="CAMPAIGN", help=f"some of {', '.join(CAMPAIGNS)}; default: all")
    parser.add_argument("--small", action="store_true", help="a few trials of each; nothing is written")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if unknown := set(asked.names) - CAMPAIGNS.keys():
        parser.error(f"no such campaign: {', '.join(sorted(unknown))}")
    found: dict[str, Any] = {}
    with made_world() as world:
        for name in asked.names or CAMPAIGNS:
            run, count, few = CAMPAIGNS[name]
            since = time.monotonic()
            found[name] = run(world, count=few if asked.small else count, seed=asked.seed)
            found[name]["seconds"] = round(time.monotonic() - since)
            print(f"{name}: {json.dumps(found[name])}", file=sys.stderr, flush=True)
    whole = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "seed": asked.seed,
        "campaigns": found,
    }
    print(json.dumps(whole, indent=2))
    if not asked.small:
        known = json.loads(RESULTS.read_text()) if asked.names and RESULTS.is_file() else {"campaigns": {}}
        whole["campaigns"] = known["campaigns"] | found
        whole["seconds"] = sum(one["seconds"] for one in whole["campaigns"].values())
        RESULTS.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
        page.write(whole)


if __name__ == "__main__":
    main()
