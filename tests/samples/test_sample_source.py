"""A sample in a recipe is a file from then on: its rows' places, hashes, resuming and verifying are those of files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

import pegbox
from pegbox import pipeline, samples
from pegbox.data import fingerprint
from pegbox.data.formats import FORMATS
from pegbox.data.sources import read, read_all
from pegbox.errors import RecipeError
from pegbox.finished import Run, fairness
from pegbox.finished.comparing import compare
from pegbox.finished.verifying import verify
from pegbox.recipe import dump, load, validate
from pegbox.recipe.sources import FileSource, SampleSource
from pegbox.samples import Row, Sample, belongs, path_of
from tiny_folder import causal_folder, chat_recipe, sums

TINY = "tiny-sums"
Plant = Callable[[list[Row]], Sample]


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Put a sample in the place of the real ones, and a cache of the test's own in the place of the user's."""
    monkeypatch.setenv("PEGBOX_CACHE", str(tmp_path / "cache"))

    def put(rows: list[Row]) -> Sample:
        made = Sample(
            about="a sum -> its answer",
            task="chat",
            package="tiny==1.0",
            licence="CC0-1.0",
            attribution="Ada & Co, ada.example",
            rows=lambda: rows,
        )
        monkeypatch.setattr(samples, "SAMPLES", MappingProxyType({TINY: made}))
        return made

    return put


def recipe_of(model: Path, **data: Any) -> dict[str, Any]:
    whole = chat_recipe(model, Path("unused"))
    given = {"train": {"kind": "sample", "name": TINY}, "validation": 0.2, "test": 0.3}
    return whole | {"data": given | data, "train": whole["train"] | {"max_steps": 3, "report_to": []}}


# ---- the file --------------------------------------------------------------------------------------------------------


def test_a_sample_is_read_as_its_rows_at_their_lines(plant: Plant) -> None:
    rows = [{"prompt": "a\u2028b", "completion": "ü"}, {"prompt": "c\nd", "completion": None, "n": 1}]
    plant(rows)
    found = read_all([SampleSource(name=TINY)])
    assert [row.values for row in found] == rows
    assert [row.where for row in found] == [f"{TINY}:1", f"{TINY}:2"]
    twice = list(read([SampleSource(name=TINY), SampleSource(name=TINY)]))
    assert len({row.where for row in twice}) == 4, "no two rows have the same place"


def test_the_file_is_made_once(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plant(sums(3))
    first = path_of(TINY)

    def broken() -> list[Row]:
        raise AssertionError("read again")

    monkeypatch.setattr(samples, "SAMPLES", {TINY: replace(made, rows=broken)})
    assert path_of(TINY) == first
    assert [json.loads(line) for line in first.read_text(encoding="utf-8").splitlines()] == sums(3)


def test_another_version_of_the_package_is_another_file(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plant(sums(3))
    first = path_of(TINY)
    monkeypatch.setattr(samples, "SAMPLES", {TINY: replace(made, package="tiny==1.1", rows=lambda: sums(4))})
    assert path_of(TINY) != first
    assert len(path_of(TINY).read_bytes().splitlines()) == 4


def test_nothing_is_kept_of_a_sample_that_cannot_be_read(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> list[Row]:
        raise RecipeError("no registry")

    made = plant([])
    monkeypatch.setattr(samples, "SAMPLES", {TINY: replace(made, rows=refused)})
    with pytest.raises(RecipeError, match="no registry"):
        path_of(TINY)
    monkeypatch.setattr(samples, "SAMPLES", {TINY: replace(made, rows=lambda: sums(2))})
    assert len(path_of(TINY).read_bytes().splitlines()) == 2


def test_a_file_belongs_to_a_sample_wherever_the_cache_lay(plant: Plant, tmp_path: Path) -> None:
    plant(sums(2))
    here = path_of(TINY)
    assert belongs(str(here), TINY)
    assert belongs(f"/elsewhere/{here.parent.name}/{here.name}", TINY)
    assert not belongs(str(here), "tiny")
    assert not belongs(str(tmp_path / here.name), TINY)
    assert fingerprint.belongs(str(here), SampleSource(name=TINY))
    assert not fingerprint.belongs(str(here), SampleSource(name="other"))


# ---- in a recipe -----------------------------------------------------------------------------------------------------

BARE = {"model": "some/model", "task": "chat"}


@pytest.mark.parametrize(
    "train",
    [
        {"kind": "sample", "name": TINY},
        {"kind": "sample", "name": TINY, "weight": 0.5},
        [{"kind": "sample", "name": TINY}, "rows.jsonl"],
    ],
)
def test_a_recipe_with_a_sample_means_the_same_when_it_is_read_again(train: Any, tmp_path: Path) -> None:
    made = load(BARE | {"data": {"train": train}})
    assert made.data.train[0] == SampleSource(name=TINY, weight=train.get("weight", 1.0) if type(train) is dict else 1)
    (tmp_path / "recipe.yaml").write_text(dump(made), encoding="utf-8")
    assert load(tmp_path / "recipe.yaml") == made
    assert validate(BARE | {"data": {"train": made.data.train}}).data.train == made.data.train


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({"kind": "sample"}, "'data.train.0.name' is missing"),
        ({"kind": "sample", "name": ""}, "must not be empty"),
        ({"kind": "sample", "name": TINY, "path": "x"}, "unknown key"),
        ({"kind": "sampel", "name": TINY}, "did you mean 'sample'"),
    ],
)
def test_a_sample_that_is_written_wrongly_is_told(train: Any, said: str) -> None:
    with pytest.raises(RecipeError) as error:
        load(BARE | {"data": {"train": train}})
    assert said in str(error.value)


def test_a_name_that_no_sample_has_is_told_with_those_that_there_are(plant: Plant, tmp_path: Path) -> None:
    plant(sums(60))
    with pytest.raises(RecipeError) as told:
        pegbox.check(recipe_of(causal_folder(tmp_path / "model"), train={"kind": "sample", "name": "tiny-sum"}))
    assert told.value.what == "there is no sample 'tiny-sum'"
    assert told.value.cure == f"did you mean '{TINY}'? known are {TINY}"
    with pytest.raises(RecipeError) as told:
        path_of("wholly/other")
    assert told.value.cure == f"known are {TINY}"


def test_prepared_rows_are_known_by_what_the_file_holds(plant: Plant) -> None:
    plant(sums(5))
    recipe = load(BARE | {"data": {"train": {"kind": "sample", "name": TINY}}})
    before = fingerprint.fingerprint(recipe)
    assert fingerprint.files_of(recipe.data.train) == [str(path_of(TINY))]
    assert fingerprint.fingerprint(recipe) == before, "a sample is no hub: what it holds is known"
    path_of(TINY).write_text('{"prompt": "1", "completion": "2"}\n', encoding="utf-8")
    assert fingerprint.fingerprint(recipe) != before


# ---- a run -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(plant: Plant, tmp_path: Path) -> Run:
    plant(sums(60))
    return pegbox.train(recipe_of(causal_folder(tmp_path / "model")), run_dir=tmp_path / "run")


def checks(run: Run) -> dict[str, bool | None]:
    return {check["check"]: check["ok"] for check in verify(run.path)["checks"]}


def test_a_run_on_a_sample_tells_its_places_its_hash_and_its_licence(run: Run) -> None:
    ids = [line["id"] for line in run.folder.read_lines("splits.jsonl")]
    assert sorted(ids, key=lambda one: int(one.rpartition(":")[2])) == [f"{TINY}:{n}" for n in range(1, 61)]
    assert list(run.receipt["data"]) == [str(path_of(TINY))]
    card = (run.path / "README.md").read_text(encoding="utf-8")
    assert f"The rows `{TINY}` come from tiny==1.0, under CC0-1.0: Ada \\& Co, ada.example." in card
    assert "rows that the model was tuned on is not known" not in card
    assert f"{TINY}.jsonl" in card and str(path_of(TINY).parent) not in card


def test_a_run_on_a_sample_is_verified_also_when_the_cache_was_emptied(run: Run) -> None:
    assert checks(run)["data files"] is True
    shutil.rmtree(path_of(TINY).parents[1])
    assert checks(run)["data files"] is True, "the same rows are made again"
    assert all(ok is not False for ok in checks(run).values())


def test_rows_that_are_others_now_are_found(run: Run) -> None:
    file = path_of(TINY)
    file.write_text(file.read_text(encoding="utf-8").replace("and", "plus", 1), encoding="utf-8")
    assert checks(run)["data files"] is False
    with pytest.raises(RecipeError, match=r"would not go on as it began:\n  data: .*has changed"):
        pipeline.resume(run.path)


def test_a_comparison_knows_the_rows_of_a_sample_in_a_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run learns, out of a copy, all rows that this one was tested on; both read the same bytes."""
    shutil.copy(path_of(TINY), tmp_path / "copy.jsonl")
    tested = {int(line["id"].rpartition(":")[2]) for line in run.folder.read_lines("predictions.jsonl")}
    assert tested
    whole = recipe_of(tmp_path / "model", train=str(tmp_path / "copy.jsonl"))
    other = pegbox.train(whole | {"seed": 7}, run_dir=tmp_path / "other")
    learnt = {
        int(line["id"].rpartition(":")[2])
        for line in other.folder.read_lines("splits.jsonl")
        if line["split"] == "train"
    }
    assert tested & learnt, "else nothing is shown"

    def told() -> str:
        return " ".join(note["message"] for note in compare([run.path, other.path])["notes"])

    assert "were trained on test rows of run" in told()
    monkeypatch.setattr(fairness, "_of_samples", lambda run: {})  # the proof: the places alone do not tell
    assert "were trained on test rows of run" not in told()


def test_a_sample_and_its_copy_are_told_as_the_same_file(run: Run, tmp_path: Path) -> None:
    copy = shutil.copy(path_of(TINY), tmp_path / "copy.jsonl")
    sha = run.receipt["data"][str(path_of(TINY))]
    assert fairness._told(run, SampleSource(name=TINY)) == sha[:8]
    assert fairness._told(run, SampleSource(name=TINY, weight=2), {}) == f"{TINY}.jsonl ({sha[:8]}), weight: 2.0"
    assert fairness._told(run, FileSource(path=str(copy)), {}) == str(copy), "no file of that run"


# ---- those that ship -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", samples.SAMPLES)
def test_every_sample_says_what_it_is_whose_and_under_which_licence(name: str) -> None:
    sample = samples.SAMPLES[name]
    assert sample.task in FORMATS and "==" in sample.package and " -> " in f"{sample.about} -> "
    assert sample.licence in {"MIT", "CC-BY-4.0", "CC0-1.0", "Apache-2.0", "PSF-2.0"}
    assert len(sample.attribution) > 10 and "\n" not in sample.about + sample.attribution
