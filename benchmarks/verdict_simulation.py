"""Does the verdict keep its promises? Null cases in which nothing was learnt, and cases with a true gain.

    python benchmarks/verdict_simulation.py --out benchmarks/results/verdict_simulation.json

Every case is a simulated test set (`verdict_rows`, `verdict_cases`) judged by `pegbox.evaluation.verdict.judge` itself. The rates of a false
"better" and a false "worse" must not be above 5 %: over all cases and, against a single rival (where a false "better" is
likeliest), for each kind of case and each number of units. A true gain of 10 points at n = 400 with 20 % discordant rows must be called better in at least 80 %.

A verdict takes 10,000 resamples; most cases here take 1,000, and `more_resamples` shows for some that the rates agree.
`plain_percentiles_30_units` is what the calibration in `pegbox.evaluation.bootstrap` is there for.
`limits` is not gated: there the rows do not show what would have to be known, whatever the test.
Exit code 1 where a promise is broken.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import multiprocessing
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.random import Generator
from verdict_cases import KINDS, LIMITS, better_by_ten_points
from verdict_rows import Scene

from pegbox.evaluation.bootstrap import Units, resampled_values
from pegbox.evaluation.verdict import judge
from pegbox.metrics import FloatArray, Metric

RIVALS = ("base", "base_few_shot", "trivial", "bag_of_words")
CASES_BY_UNITS = {30: 800, 60: 450, 100: 350, 200: 250, 400: 200, 1000: 150}  # per kind, against one rival
SHARE_BY_RIVALS = {1: 1.0, 4: 0.3}
ALLOWED = 0.05
POWER_CASES, POWER_UNITS, POWER_WANTED = 1_000, 400, 0.8

Judge = Callable[..., Any]
Kind = Callable[[Generator, int], Scene]


@dataclass(frozen=True)
class Cell:
    """Cases of one kind: `count` of them, each with `units` units and `rivals` rivals."""

    kind: Kind
    units: int
    rivals: int
    count: int
    resamples: int
    seed: int


def run_cell(cell: Cell, judge_one: Judge = judge) -> Counter[str]:
    """How often each verdict was given. A case depends on the seed, the cell and its number alone."""
    verdicts: Counter[str] = Counter()
    name = int.from_bytes(cell.kind.__name__.encode(), "big")
    for case in range(cell.count):
        rng = np.random.default_rng([cell.seed, name, cell.units, cell.rivals, case])
        scene = cell.kind(rng, cell.units)
        statistics = {rival: scene.rival() for rival in RIVALS[: cell.rivals]} | {"tuned": scene.tuned()}
        seed = int(rng.integers(2**32))
        verdicts[judge_one(scene.metric, statistics, scene.units, seed=seed, resamples=cell.resamples).verdict] += 1
    return verdicts


def rates(counts: Iterable[Counter[str]]) -> dict[str, float | int]:
    """Cases, share called better, share called worse, and the standard error of a share of 5 %."""
    total = sum(counts, Counter())
    cases = total.total()
    return {
        "cases": cases,
        "better": round(total["better"] / cases, 4),
        "worse": round(total["worse"] / cases, 4),
        "standard_error_at_5_percent": round(math.sqrt(ALLOWED * (1 - ALLOWED) / cases), 4),
    }


def by(key: Callable[[Cell], object], results: dict[Cell, Counter[str]]) -> dict[str, dict[str, float | int]]:
    """Rates per stratum, strata in the order of the cells."""
    strata = list(dict.fromkeys(str(key(cell)) for cell in results))
    return {
        stratum: rates(counts for cell, counts in results.items() if str(key(cell)) == stratum) for stratum in strata
    }


def kind_of(cell: Cell) -> str:
    return cell.kind.__name__


def kind_and_units(cell: Cell) -> str:
    return f"{cell.kind.__name__}, {cell.units} units"


def plain_percentiles(
    metric: Metric, statistics: dict[str, FloatArray], units: np.ndarray, *, seed: int, resamples: int
) -> SimpleNamespace:
    """The verdict that uncalibrated percentiles would give against one rival: what the calibration is measured against."""
    grouped = Units.of(units)
    both = np.stack([statistics["tuned"], statistics["base"]], axis=1)
    tuned, base = resampled_values(metric, both, grouped, seed=seed, resamples=resamples).T
    low, high = np.quantile((tuned - base) * (1 if metric.greater_is_better else -1), [0.025, 0.975])
    return SimpleNamespace(verdict="better" if low > 1e-9 else "worse" if high < -1e-9 else "not shown")


def run(cells: list[Cell], pool: Any, judge_one: Judge = judge) -> dict[Cell, Counter[str]]:
    """The verdicts of every cell; progress on stderr."""
    results: dict[Cell, Counter[str]] = {}
    longest_first = sorted(cells, key=lambda cell: -cell.units * cell.count)
    for done, (cell, counts) in enumerate(pool.imap_unordered(partial(_with_cell, judge_one), longest_first), start=1):
        results[cell] = counts
        print(f"\r{done} of {len(cells)} cells", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {cell: results[cell] for cell in cells}


def _with_cell(judge_one: Judge, cell: Cell) -> tuple[Cell, Counter[str]]:
    return cell, run_cell(cell, judge_one)


def simulate(share: float, resamples: int, seed: int, pool: Any) -> dict[str, Any]:
    def cells(kinds: Sequence[Kind], units: int, rivals: int, count: float, number: int = resamples) -> list[Cell]:
        return [Cell(kind, units, rivals, max(1, round(share * count)), number, seed) for kind in kinds]

    one, four = (
        run([cell for n, count in CASES_BY_UNITS.items() for cell in cells(KINDS, n, rivals, part * count)], pool)
        for rivals, part in SHARE_BY_RIVALS.items()
    )
    few, many = (
        run([cell for n in (30, 200) for cell in cells(KINDS, n, 1, 50, number)], pool)
        for number in (resamples, 10 * resamples)
    )
    gain = [cell for n in (1, 4) for cell in cells([better_by_ten_points], POWER_UNITS, n, POWER_CASES)]
    limits = [cell for n in (30, 100, 400) for cell in cells(LIMITS, n, 1, 500)]
    return {
        "null_overall": rates([*one.values(), *four.values()]),
        "null_one_rival": {
            "all": rates(one.values()),
            **by(kind_of, one),
            **by(lambda cell: f"{cell.units} units", one),
        },
        "null_four_equal_rivals": {"all": rates(four.values()), **by(kind_of, four)},
        "null_one_rival_by_kind_and_units": by(kind_and_units, one),
        "power": by(lambda cell: f"{kind_and_units(cell)}, {cell.rivals} rivals", run(gain, pool)),
        "same_cases_with_more_resamples": {
            f"{resamples} resamples": rates(few.values()),
            f"{10 * resamples} resamples": rates(many.values()),
        },
        "plain_percentiles_30_units": by(kind_of, run(cells(KINDS, 30, 1, 800), pool, plain_percentiles)),
        "limits": by(kind_and_units, run(limits, pool)),
    }


def broken_promises(figures: dict[str, Any]) -> list[str]:
    """Every gated rate on the wrong side. A single kind of a single size may exceed by three standard errors."""
    strata = {"overall": figures["null_overall"], **figures["null_one_rival"], **figures["null_four_equal_rivals"]}
    gates = [(name, found, ALLOWED) for name, found in strata.items()]
    for name, found in figures["null_one_rival_by_kind_and_units"].items():
        gates.append((name, found, ALLOWED + 3 * found["standard_error_at_5_percent"]))
    faults = [
        f"{name}: {side} {found[side]}"
        for name, found, bound in gates
        for side in ("better", "worse")
        if found[side] > bound
    ]
    for name, found in figures["power"].items():
        if found["better"] < POWER_WANTED:
            faults.append(f"{name}: better {found['better']}")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to write the figures (default: standard output)")
    parser.add_argument("--share", type=float, default=1.0, help="the share of the cases to run (default 1)")
    parser.add_argument("--resamples", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=20261122)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    start = time.perf_counter()
    with multiprocessing.Pool(options.workers) as pool:
        figures = simulate(options.share, options.resamples, options.seed, pool)
    faults = broken_promises(figures)
    report = {
        "date": datetime.date.today().isoformat(),
        "hardware": f"{os.cpu_count()} CPU cores, {options.workers} used",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "seed": options.seed,
        "resamples": options.resamples,
        "seconds": round(time.perf_counter() - start),
        "allowed": ALLOWED,
        "broken_promises": faults,
        **figures,
    }
    text = json.dumps(report, indent=1) + "\n"
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    print(
        text
        if not options.out
        else json.dumps({"null_overall": figures["null_overall"], "broken_promises": faults}, indent=1)
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
