"""What every campaign of faults works with: a tiny model and rows, runs of them in children, and what a run left behind.

A child is forked from a parent that has imported everything and computed nothing: no thread of a numerical library runs
yet, so that each child is as a fresh process is, and begins in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "data")]

import matplotlib.pyplot  # noqa: E402, F401  what a run imports late is imported here, once
import sklearn.metrics  # noqa: E402, F401

import pegbox  # noqa: E402
from pegbox import pipeline  # noqa: E402
from pegbox.errors import PegboxError  # noqa: E402
from pegbox.runs import checkpoint, environment  # noqa: E402
from tiny_folder import causal_folder, chat_recipe, sums, write_rows  # noqa: E402

environment.settle()
logging.getLogger("pegbox.progress").setLevel(logging.CRITICAL)

METHODS: Mapping[str, Mapping[str, Any]] = {
    "full": {"kind": "full"},
    "lora": {"kind": "lora", "r": 4, "lora_dropout": 0.1},
    "adapter": {"kind": "adapter", "bottleneck_size": 4},
}
STEPS, SAVE_STEPS = 12, 2
BUG = 70  # how a child ends that raised what no user can mend
LIMIT = 120.0  # seconds that a child may take


@dataclass(frozen=True)
class World:
    """A folder with a model of two layers and rows; campaigns put their runs beside them."""

    folder: Path

    def recipe(self, method: str = "lora", **train: Any) -> dict[str, Any]:
        """A run of twelve updates with a checkpoint after every second."""
        settings = {"max_steps": STEPS, "batch_size": 4, "learning_rate": 1e-2, "report_to": []}
        settings |= {"save_steps": SAVE_STEPS, "eval_steps": 4, **train}
        made = chat_recipe(self.folder / "model", self.folder / "rows.jsonl", method=dict(METHODS[method]))
        return made | {"train": settings, "evaluate": {"max_new_tokens": 2, "few_shot": 0, "max_rows": 4}}


@contextmanager
def made_world() -> Iterator[World]:
    """A world in a folder that is gone afterwards. The model is made in a child: the parent computes nothing."""
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)

        def make() -> None:
            causal_folder(folder / "model", spread=0.2)
            write_rows(folder / "rows.jsonl", sums(60))

        assert ended(child(make, folder / "made.log")) == 0, (folder / "made.log").read_text()
        yield World(folder)


def child(action: Callable[[], object], log: Path) -> int:
    """The number of a process that does this and ends as the command would; what it prints goes into `log`."""
    sys.stdout.flush()
    number = os.fork()
    if number == 0:
        _act(action, log)
    return number


def _act(action: Callable[[], object], log: Path) -> NoReturn:
    code = 0
    try:
        told = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(told, 1)
        os.dup2(told, 2)
        signal.signal(signal.SIGTERM, lambda signum, frame: os._exit(128 + signum))
        action()
    except PegboxError as error:
        print(f"pegbox: {error}", flush=True)
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
        code = BUG
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(number: int, limit: float = LIMIT) -> int:
    """The exit code of a child, or minus the signal that ended it; one that takes too long is killed."""
    until = time.monotonic() + limit
    while time.monotonic() < until:
        done, status = os.waitpid(number, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(number, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def begin_or_resume(recipe: Mapping[str, Any], run: Path) -> None:
    """What a person types after a crash: go on with the run, or begin it where it had not become one."""
    if (run / "recipe.yaml").is_file():
        pipeline.resume(run)
    else:
        pegbox.train(recipe, run_dir=run)


def goes_on_to(wanted: Mapping[str, str], recipe: Mapping[str, Any], run: Path) -> bool:
    """Whether a run that was broken off ends in what is wanted; then its folder is deleted, else it is kept to look at."""
    code = ended(child(lambda: begin_or_resume(recipe, run), run.with_suffix(".log")))
    same = code == 0 and left_by(run) == wanted
    if same:
        shutil.rmtree(run)
    return same


def print_figures(run: Callable[..., dict[str, Any]], about: str | None, count: int | None) -> None:
    """One campaign by itself: its figures as JSON. `count`: how many trials where none are asked for; None: all."""
    options = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, default=count, help="how many trials")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--workers", type=int, default=2)
    asked = options.parse_args()
    with made_world() as world:
        print(json.dumps(run(world, **vars(asked)), indent=1))


def left_by(run: Path) -> dict[str, str]:
    """SHA-256 of all that a finished run is made of: model, weights and moments of the last update, metrics log."""
    last = checkpoint.by_step(run / "checkpoints")[0]
    files = {f"model/{name}": digest for name, digest in checkpoint.hashes(run / "model")}
    files |= {name: checkpoint.sha256(last / name) for name in (checkpoint.WEIGHTS, checkpoint.MOMENTS)}
    return files | {"metrics.jsonl": checkpoint.sha256(run / "metrics.jsonl")}


def side_by_side(trial: Callable[[int], Any], count: int, workers: int = 2) -> list[Any]:
    """The results of trials 0 .. count - 1, two at a time; each forks children of its own."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(trial, range(count)))
