"""What a tracker is: a service or a file that draws a run's curves while it trains. And what it is told, in which words.

Names are those that Transformers' callbacks use where they have one: `train/loss`, `train/learning_rate`,
`train/grad_norm`, `train/epoch`, `eval/loss`; the x-axis counts updates. The final numbers are `test/<system>/<metric>`
with the bounds of their interval. Every tracker is told the same and nothing else: the machine, its user and its
folders stay untold, and so does what a row says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pegbox.recipe import Recipe

Setting = str | int | float | bool

TRAIN = ("loss", "learning_rate", "grad_norm", "epoch")
FILES = (
    "model.name",
    "data.train",
    "data.validation",
    "data.test",
    "data.benchmarks",
    "data.filter",
)  # made absolute when a recipe is loaded


@dataclass(frozen=True)
class Start:
    """What a tracker begins with: the run's folder, its recipe as flat settings, and the update that it goes on from.

    `id`: what the tracker called this run before; None where it does not know the run.
    """

    folder: Path
    config: Mapping[str, Setting]
    step: int = 0
    id: str | None = None


class Tracker(Protocol):
    """One tracker's side of a run. Its package is imported when it is made; any method may raise anything."""

    @property
    def id(self) -> str | None:
        """How the tracker finds this run again; None where the run's folder is enough."""

    @property
    def rewinds(self) -> bool:
        """Whether it forgets, when a run goes on from a checkpoint, what it was told of later updates."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Points at one update."""

    def verdict(self, step: int, text: str) -> None:
        """How the run ended."""

    def finish(self, *, ok: bool) -> None:
        """Nothing follows; `ok` is False where the run did not come to its end."""


def points(line: Mapping[str, Any]) -> dict[str, float]:
    """What a line of `metrics.jsonl` says, by the trackers' names; a loss that is not finite is left out."""
    if line.get("split") == "validation":
        named = {"eval/loss": line["loss"]}
    else:
        named = {f"train/{name}": line[name] for name in TRAIN}
    return {name: value for name, value in named.items() if value is not None}


def results(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The primary metric of every system and the comparison, each with its interval."""
    primary, difference = evaluation["primary"], evaluation["comparison"]
    found = {f"test/{name}/{primary}": metrics[primary] for name, metrics in evaluation["systems"].items()}
    found["test/difference"] = {**difference, "value": difference["difference"]}
    ends = {"value": "", "low": "_low", "high": "_high"}
    named = {name + ending: values[key] for name, values in found.items() for key, ending in ends.items()}
    return {name: value for name, value in named.items() if value is not None}


def settings(recipe: Recipe) -> dict[str, Setting]:
    """The recipe as flat hyper-parameters, `train.batch_size: 16`; of files and local models their names only."""
    return dict(_flat("", recipe.model_dump(mode="json")))


def _flat(key: str, value: Any) -> Iterator[tuple[str, Setting]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(f"{key}.{name}" if key else name, inner)
    elif isinstance(value, list):
        yield key, ", ".join(str(_short(key, _named(item) if isinstance(item, Mapping) else item)) for item in value)
    elif value is not None:
        yield key, _short(key, value)


def _named(source: Mapping[str, Any]) -> str:
    """What a source is called: by its path, and a sample, which has none, by its name."""
    return str(source["path"] if "path" in source else source["name"])


def _short(key: str, value: Setting) -> Setting:
    return Path(value).name if key in FILES and isinstance(value, str) and Path(value).is_absolute() else value
