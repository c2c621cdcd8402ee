"""A run's log: every line goes into `metrics.jsonl`, then to every tracker that the recipe names.

`metrics.jsonl` is the truth and trackers are copies: one that fails (a server that is away, a full disk) is warned of once
and told no more, and the run goes on. A resumed run takes its updates again from the last checkpoint, to the same bits: a
tracker that cannot take points back is not told them twice. What was told, and how each tracker calls the run, stands
in `trackers.json`.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pegbox.errors import RecipeError, first_line
from pegbox.recipe import Recipe
from pegbox.runs.folder import RunFolder
from pegbox.trackers.base import Start, Tracker, points, results, settings
from pegbox.trackers.mlflow import MLflow
from pegbox.trackers.tensorboard import TensorBoard
from pegbox.trackers.trackio import Trackio
from pegbox.trackers.wandb import WandB

log = logging.getLogger("pegbox")

# by the names of `train.report_to`, which are also those of their packages and of pegbox's extras
TRACKERS: Mapping[str, Callable[[Start], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
    "trackio": Trackio,
}
FILE = "trackers.json"


def choose(report_to: tuple[str, ...] | None) -> tuple[str, ...]:
    """The trackers of a run: those named; by default TensorBoard where it is installed.

    Raises RecipeError where a tracker that is named is not installed.
    """
    if report_to is None:
        return ("tensorboard",) if _installed("tensorboard") else ()
    for name in report_to:
        if not _installed(name):
            cure = f"pip install 'pegbox[{name}]', or set train.report_to to others or to none"
            raise RecipeError(f"{name} is not installed", where="train.report_to", cure=cure)
    return report_to


def _installed(name: str) -> bool:
    """Whether there is such a package. A mere folder of that name (`./wandb`, full of runs) is none."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


class Log:
    """Takes the lines of a run as they come. `told`: the last update of each kind of line that trackers were told before."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.trackers: dict[str, Tracker] = {}
        self.told: Mapping[str, int] = {}
        self.start = 0

    def __call__(self, line: Mapping[str, Any]) -> None:
        """Write a line of `metrics.jsonl`, and tell it."""
        self.folder.append("metrics.jsonl", line)
        kind, step = line.get("split", "train"), line["step"]
        for name in self._untold(kind, step):
            self._safely(name, lambda tracker: tracker.log(step, points(line)))

    def judged(self, evaluation: Mapping[str, Any]) -> None:
        """Tell the final numbers and the verdict, at the last update."""
        step = _last_steps(self.folder).get("train", 0)
        verdict = f"{evaluation['verdict']} ({evaluation['primary']})"
        for name in self._untold("test", step):
            self._safely(name, lambda tracker: tracker.log(step, results(evaluation)))
            self._safely(name, lambda tracker: tracker.verdict(step, verdict))

    def begin(self, recipe: Recipe, step: int) -> None:
        """Open the recipe's trackers for a run that goes on after update `step`."""
        known = _known(self.folder)
        self.told, self.start, ids = known["told"], step, known["ids"]
        for name in recipe.train.report_to or ():
            start = Start(self.folder.path, settings(recipe), step, ids.get(name))
            with self._failing(name):
                self.trackers[name] = TRACKERS[name](start)
        new = {name: tracker.id for name, tracker in self.trackers.items() if tracker.id}
        if new:
            self.folder.write_json(FILE, {"ids": ids | new, "told": self.told})

    def finish(self, *, ok: bool) -> None:
        """Close every tracker."""
        for name in tuple(self.trackers):
            self._safely(name, lambda tracker: tracker.finish(ok=ok))

    def _untold(self, kind: str, step: int) -> Iterable[str]:
        """The trackers that do not have this kind of line at this update yet."""
        told = self.told.get(kind, 0)
        for name, tracker in tuple(self.trackers.items()):
            if step > (min(told, self.start) if tracker.rewinds else told):
                yield name

    def _safely(self, name: str, act: Callable[[Tracker], None]) -> None:
        if name in self.trackers:
            with self._failing(name):
                act(self.trackers[name])

    @contextmanager
    def _failing(self, name: str) -> Iterator[None]:
        """Whatever a tracker raises, the run goes on: one warning, and it is told no more."""
        try:
            yield
        except Exception as error:
            self.trackers.pop(name, None)
            told = "%s failed and is told no more; the run goes on, metrics.jsonl has every line: %s"
            log.warning(told, name, first_line(error))


@contextmanager
def opened(folder: RunFolder, recipe: Recipe, step: int, *, tells: bool) -> Iterator[Log]:
    """The log of a run that goes on after update `step`; `tells` is False on every rank but the first."""
    made = Log(folder)
    if tells:
        made.begin(recipe, step)
    try:
        yield made
    except BaseException:
        made.finish(ok=False)
        raise
    made.finish(ok=True)


def remember(folder: RunFolder, recipe: Recipe) -> None:
    """Note what the trackers were told, before a run that is resumed cuts its log back to its checkpoint."""
    if recipe.train.report_to == ():
        return
    known, last = _known(folder), _last_steps(folder)
    if (folder.path / "evaluation.json").is_file():
        last["test"] = last["train"]
    told = {kind: max(step, known["told"].get(kind, 0)) for kind, step in last.items()}
    folder.write_json(FILE, known | {"told": known["told"] | told})


def _known(folder: RunFolder) -> dict[str, dict[str, Any]]:
    known: dict[str, dict[str, Any]] = {"ids": {}, "told": {}}
    if (folder.path / FILE).is_file():
        known |= folder.read_json(FILE)
    return known


def _last_steps(folder: RunFolder) -> dict[str, int]:
    """The last update of each kind of line: "train", "validation"."""
    return {line.get("split", "train"): line["step"] for line in folder.read_lines("metrics.jsonl")}
