"""Full fine-tuning and the methods that learn less, on one task: quality, parameters, memory, time, size.

It is the table of the papers on LoRA (Hu et al. 2021) and on adapters (Houlsby et al. 2019), in the small: MiniLM, tweets
with three labels, a learning rate chosen for each method (`designs.py`), three seeds, and intervals (`intervals.py`).

Writes `../results/methods.json`, whatever it says, and from it `../methods.md`; what people wrote under the last heading of
that page stays. Each run is a process of its own, and leaves its figures in the work folder: a study that was broken off
goes on where it was. A run is known by its recipe alone, so take a new folder (--work) when pegbox has changed.
`--small` is a trial of minutes; prints and writes nothing. CPU only.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import designs
import intervals
import rows
import torch
from designs import FULL, HEAD, Asked, Size
from page import page

from pegbox.methods import METHODS
from pegbox.recipe import load as load_recipe
from pegbox.runs.folder import RunFolder

HERE = Path(__file__).parent
RESULTS, PAGE = HERE.parent / "results" / "methods.json", HERE.parent / "methods.md"
WORK = HERE.parents[1] / "runs"
LINES_OF_ERROR = 5


class Failed(Exception):
    """A run that came to nothing; says why."""


@dataclass
class Study:
    """The runs of one work folder. `done`: how many were made or found there."""

    work: Path
    size: Size
    done: int = field(default=0)

    def run(self, asked: Asked) -> dict[str, Any]:
        """The figures of a run, made now unless they are there. Raises Failed."""
        folder = self.work / asked.folder
        recipe = designs.recipe(asked, self.work / "rows", self.size)
        began = time.perf_counter()
        if self.known(folder) != recipe:
            shutil.rmtree(folder, ignore_errors=True)
            RunFolder.create(folder).write_json("asked.json", recipe)
            self.process(folder)
        found: dict[str, Any] = RunFolder(folder).read_json("figures.json")
        self.done += 1
        took = time.perf_counter() - began
        print(f"{self.done:3}  {asked.folder}: {designs.METRIC} {found['score']:.3f}, {took:.0f} s", flush=True)
        return found

    def known(self, folder: Path) -> Any:
        """The recipe of a run that is finished; None of one that is not."""
        return RunFolder(folder).read_json("figures.json")["recipe"] if (folder / "figures.json").is_file() else None

    def process(self, folder: Path) -> None:
        """Let another process do it; without the hub, for the model has been found by then."""
        quiet = os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, str(HERE / "one_run.py"), str(folder)]
        log = folder / "log.txt"
        with log.open("w", encoding="utf-8") as file:
            code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=quiet, check=False).returncode
        if code:
            told = log.read_text(encoding="utf-8").strip().splitlines()[-LINES_OF_ERROR:]
            raise Failed(f"exit code {code}: {' / '.join(told)}")

    def lines(self, asked: Asked) -> list[dict[str, Any]]:
        """The answers of a finished run."""
        return list(RunFolder(self.work / asked.folder).read_lines("predictions.jsonl"))

    def tune(self, method: str) -> tuple[float, list[dict[str, float]]]:
        """The learning rate with the best score on the rows for the choice, and all that were tried. Raises Failed."""
        default = default_rate(method, self.work / "rows", self.size)
        scores: dict[float, float] = {}

        def attempt(factor: float) -> None:
            asked = Asked(method, designs.rate(default, factor), self.size.trial, "choice")
            scores[factor] = self.run(asked)["score"]

        for factor in designs.FIRST:
            attempt(factor)
        while (beyond := designs.further(scores, self.size.most_rates)) is not None:
            attempt(beyond)
        tried = [{"rate": designs.rate(default, factor), "score": scores[factor]} for factor in sorted(scores)]
        return designs.rate(default, designs.best_of(scores)), tried

    def method(self, name: str) -> dict[str, Any]:
        """A method's rate and its runs on the test rows. Raises Failed."""
        rate, grid = self.tune(name)
        asked = [Asked(name, rate, seed, "test") for seed in self.size.seeds]
        return {"rate": rate, "grid": grid, "asked": asked, "runs": [self.run(one) for one in asked]}


def default_rate(method: str, folder: Path, size: Size) -> float:
    """The method's own."""
    recipe = load_recipe(designs.recipe(Asked(method, 1.0, 0, "choice"), folder, size))
    return METHODS[recipe.method.kind].learning_rate(recipe.method)


def told(name: str, made: dict[str, Any], head: int, judged: dict[str, Any]) -> dict[str, Any]:
    """A method's entry in the results; `head`: how many parameters the head has, which learns always."""
    runs = made["runs"]
    kept = ("score", "seconds", "peak_memory", "chosen_step", "updates", "ended")
    return {
        "method": designs.METHODS[name],
        **judged,
        "trainable": runs[0]["trainable"],
        "beside_head": runs[0]["trainable"] - head,
        "file_bytes": runs[0]["file_bytes"],
        "seconds": median(run["seconds"] for run in runs),
        "peak_memory": median(run["peak_memory"] for run in runs),
        "rate": made["rate"],
        "grid": made["grid"],
        "runs": [
            {"seed": one.seed} | {key: run[key] for key in kept} for one, run in zip(made["asked"], runs, strict=True)
        ],
    }


def measure(study: Study, names: Sequence[str]) -> dict[str, Any]:
    """All runs of the methods, and what they come to."""
    about = rows.write(study.work / "rows", study.size.rows)
    made, failed = {}, {}
    for name in names:
        try:
            made[name] = study.method(name)
        except Failed as failure:
            failed[name] = str(failure)
            print(f"     {name} failed: {failure}", flush=True)
    if missing := {FULL, HEAD} - made.keys():
        raise SystemExit(f"the others cannot be held against {', '.join(sorted(missing))}: {failed}")
    lines = {name: [study.lines(one) for one in found["asked"]] for name, found in made.items()}
    judged, first = intervals.judge(lines), made[FULL]["runs"][0]
    head = made[HEAD]["runs"][0]["trainable"]
    return {
        "encoder": designs.ENCODER,
        "parameters": first["parameters"],
        "head": head,
        "rows": about,
        "epochs": study.size.epochs,
        "seeds": study.size.seeds,
        "trial_seed": study.size.trial,
        "versions": first["versions"],
        "hardware": first["hardware"],
        "memory_before": median(run["memory_before"] for found in made.values() for run in found["runs"]),
        "methods": {name: told(name, found, head, judged[name]) for name, found in made.items()},
        "rivals": intervals.rivals(lines[FULL][0]),
        "failed": failed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(designs.METHODS),
        metavar="METHOD",
        help="by name; full and head alone come along",
    )
    parser.add_argument("--small", action="store_true", help="a trial; prints and writes nothing")
    parser.add_argument("--work", type=Path, help="where the runs lie; default: runs/methods")
    settings = parser.parse_args()
    size = designs.SMALL if settings.small else designs.WHOLE
    work = settings.work or WORK / ("methods-small" if settings.small else "methods")
    found = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} CPU cores; torch on {torch.get_num_threads()}",
        "command": shlex.join(["python", "benchmarks/methods/study.py", *sys.argv[1:]]),
    } | measure(Study(work.absolute(), size), designs.chosen(settings.only or list(designs.METHODS)))
    if settings.small:
        print(page(found, ""))
    else:
        RESULTS.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        PAGE.write_text(page(found, PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""), encoding="utf-8")
    sys.exit(1 if found["failed"] else 0)


if __name__ == "__main__":
    main()
