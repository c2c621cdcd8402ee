"""Every recipe that ships is trained, in a short form: as it stands, but with a tiny model, few rows and three updates.

With rows that are drawn here, in the form of the sample's own; and once with the first of the real ones.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml

import pegbox
from pegbox import samples
from pegbox.finished import Run
from pegbox.models.packages import CARRIED
from pegbox.recipe import load
from pegbox.recipe.sources import SampleSource
from pegbox.samples import SAMPLES, Row, Sample, path_of
from source_tree import REPOSITORY
from tiny_folder import causal_folder, encoder_folder

RECIPES = sorted((REPOSITORY / "recipes").rglob("*.yaml"))
DOMAINS = {"support", "commerce", "medicine", "law", "education", "software", "translation"}
ROWS = 80  # of a sample, in the short form
SHORT = (
    "train.max_steps=3",
    "train.eval_steps=3",
    "train.batch_size=8",
    "train.report_to=none",
    "data.validation=0.2",
    "data.test=0.3",
    "evaluate.max_rows=12",
)
WORDS = [
    "the",
    "fox",
    "user",
    "light",
    "timer",
    "kitchen",
    "dog",
    "world",
    "system",
    "hello",
    "set",
    "turn",
    "two",
    "brown",
    "lazy",
    "quick",
    "over",
]
MADE: Mapping[str, Callable[[str, int], Row]] = {
    "classification": lambda text, n: {"text": text, "label": f"label {n % 2}", "group": str(n // 2)},
    "embedding": lambda text, n: {"text": text, "text_pair": text[::-1]},
    "chat": lambda text, n: {"prompt": text, "completion": text.split()[-1], "group": str(n // 2)},
    "completion": lambda text, n: {"text": f"def {text}", "group": str(n // 2)},
    "seq2seq": lambda text, n: {"source": text, "target": text.split()[-1], "group": str(n // 2)},
}
all_recipes = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model for each that a package carries, by the task that it is for."""
    causal, encoder = (make(tmp_path_factory.mktemp("model")) for make in (causal_folder, encoder_folder))
    return {"HuggingFaceTB/SmolLM2-135M-Instruct": causal, "sentence-transformers/all-MiniLM-L6-v2": encoder}


def made_rows(name: str) -> list[Row]:
    """Rows in the form of a sample: the task that it is for, and the group that it has."""
    sample = SAMPLES[name]
    draw = random.Random(0)
    texts = [f"{' '.join(draw.choices(WORDS, k=5))} {n}" for n in range(ROWS)]
    return [MADE[sample.task](text, n) for n, text in enumerate(texts)]


def shortened(path: Path, models: Mapping[str, Path], run_dir: Path) -> Run:
    """The run of a recipe, shortened."""
    recipe = load(path)
    reads = recipe.task.kind in (
        "classification",
        "embedding",
    )  # the tiny encoder reads 64 tokens, the other model 1,024
    sized = ["data.max_length=64", "data.truncation=cut"] if reads else ["evaluate.max_new_tokens=4"]
    model = f"model.name={models[recipe.model.name]}"
    return pegbox.train(path, run_dir=run_dir, overrides=[model, *SHORT, *sized])


# ---- what they are ---------------------------------------------------------------------------------------------------


def test_there_is_a_recipe_for_every_domain() -> None:
    assert {path.stem.partition("-")[0] for path in RECIPES} == DOMAINS
    assert {name.partition("-")[0] for name in SAMPLES} == DOMAINS


@all_recipes
def test_a_recipe_needs_no_hub_and_no_file_and_says_so(path: Path) -> None:
    """It names a model that a package carries and rows of a sample; its head tells the package, licence and time."""
    text = path.read_text(encoding="utf-8")
    recipe = load(path)
    assert recipe.model.name in CARRIED
    (source,) = recipe.data.train
    assert isinstance(source, SampleSource)
    sample = SAMPLES[source.name]
    head = " ".join(line.removeprefix("#").strip() for line in text.split("\n") if line.startswith("#"))
    package, _, version = sample.package.partition("==")
    assert package.replace("_", "-") in head.casefold().replace("_", "-") and sample.licence in head
    assert package == "python" or version in head
    assert "two CPU cores" in head


@all_recipes
def test_a_recipe_says_nothing_that_it_need_not(path: Path) -> None:
    """Every key that is written differs from its default, or is one that a reader will want to turn."""
    told = {"validation", "test", "batch_size", "num_train_epochs"}
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    bare = {key: written[key] for key in ("model", "task")} | {"data": {"train": written["data"]["train"]}}
    default = load(bare).model_dump(mode="json")
    for part in ("data", "train", "evaluate"):
        for key, value in written.get(part, {}).items():
            assert key in told or default[part][key] != value, f"{part}.{key}"


# ---- that they run ---------------------------------------------------------------------------------------------------


@all_recipes
def test_a_shipped_recipe_is_trained(
    path: Path, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = load(path).data.train[0].path
    monkeypatch.setenv("PEGBOX_CACHE", str(tmp_path / "cache"))
    planted = {name: _with(SAMPLES[name], made_rows(name))}
    monkeypatch.setattr(samples, "SAMPLES", MappingProxyType(planted))
    run = shortened(path, models, tmp_path / "run")
    assert run.verdict in ("better", "worse", "not shown")
    assert run.receipt["rows"]["train"] > 20
    assert all(line["id"].startswith(f"{name}:") for line in run.folder.read_lines("splits.jsonl"))


def _with(sample: Sample, rows: list[Row]) -> Sample:
    return replace(sample, rows=lambda: rows)


@pytest.mark.real_model
@all_recipes
def test_a_shipped_recipe_is_trained_on_the_first_of_its_real_rows(
    path: Path, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = load(path).data.train[0].path
    rows = _first(name)
    monkeypatch.setenv("PEGBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(samples, "SAMPLES", MappingProxyType({name: _with(SAMPLES[name], rows)}))
    run = shortened(path, models, tmp_path / "run")
    assert run.verdict in ("better", "worse", "not shown")


def _first(name: str) -> list[dict[str, Any]]:
    """The first rows of a sample: as many as make a short run, the shortest of a part that is shuffled."""
    with path_of(name).open(encoding="utf-8") as file:
        rows = [json.loads(line) for line, _ in zip(file, range(6 * ROWS), strict=False)]
    return sorted(rows, key=lambda row: len(json.dumps(row)))[: 2 * ROWS]


@pytest.mark.real_model
@pytest.mark.parametrize("name", SAMPLES)
def test_the_real_rows_are_many_different_and_always_the_same(name: str) -> None:
    rows = SAMPLES[name].rows()
    assert [json.loads(line) for line in path_of(name).read_text(encoding="utf-8").split("\n") if line] == rows
    assert len({json.dumps(row, sort_keys=True) for row in rows}) == len(rows) >= 400
    assert all(value.strip() for row in rows for value in row.values())
