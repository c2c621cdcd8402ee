"""Every recipe that ships, run as it stands: its verdict with the interval, in `results/recipes.json` and the docs.

Runs of recipes that are not named stay as they are. `docs/guides/recipes.md` has the table between two marks; the words
around it stay.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tables import KEPT, cell, circumstances

import pegbox
from pegbox.evaluation.verdict import TUNED
from pegbox.samples import SAMPLES

HERE = Path(__file__).parent
RECIPES = HERE.parent / "recipes"
RESULTS = HERE / "results" / "recipes.json"
PAGE = HERE.parent / "docs" / "guides" / "recipes.md"
BEGIN, END = "<!-- figures: written by benchmarks/recipes.py -->", "<!-- end of the figures -->"


def names() -> list[str]:
    """The recipes that ship."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def measure(name: str) -> dict[str, Any]:
    """Train and judge; what came out, and how long it took from the command to the report."""
    with tempfile.TemporaryDirectory() as work:
        began = time.perf_counter()
        run = pegbox.train(RECIPES / f"{name}.yaml", run_dir=Path(work) / "run")
        seconds = time.perf_counter() - began
        (source,) = run.recipe.data.train
        return {
            **circumstances(),
            "seconds": round(seconds),
            "task": run.recipe.task.kind,
            "model": run.recipe.model.name,
            "method": run.recipe.method.kind,
            "sample": source.path,
            "splits": run.receipt["rows"],
            **{key: run.evaluation[key] for key in KEPT},
        }


def write(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Keep the results, and put their table into the page."""
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(results)}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """One row a recipe, in the order of their names; the times and machines below."""
    lines = [
        "| recipe | what it learns | rows: train, test | tuned | tuned - hardest rival | verdict | minutes |",
        "|---|---|---|---|---|---|---|",
        *(_row(name, results[name]) for name in sorted(results)),
    ]
    runs = sorted({(found["date"], found["machine"]) for found in results.values()})
    return "\n".join([*lines, "", *(f"{date}, {machine}." for date, machine in runs)])


def _row(name: str, found: Mapping[str, Any]) -> str:
    first, least, splits = found["primary"], found["comparison"], found["splits"]
    cells = [
        f"`{name}`",
        f"{SAMPLES[found['sample']].about} (`{found['task']}`)",
        f"{splits['train']:,}, {splits['test']:,}",
        f"{first} {cell(found['systems'][TUNED][first])}",
        f"{least['against']}: {cell(least)}",
        f"**{found['verdict']}**",
        f"{found['seconds'] / 60:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    known = names()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", default=known, help=f"of {', '.join(known)}; default: all")
    wanted = parser.parse_args().recipes
    if unknown := set(wanted) - set(known):
        parser.error(f"no such recipe: {', '.join(sorted(unknown))}")
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in wanted:
        results[name] = measure(name)
        write(results)
        print(f"{name}: {results[name]['verdict']}, {results[name]['seconds']} s")


if __name__ == "__main__":
    main()
