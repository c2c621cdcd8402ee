"""A run hangs on its recipe, rows and seed alone: not on how Python hashes texts, nor on how many workers tokenize.

INVARIANTS row 18 across processes. Two of them, with other hash seeds and one with the tokenizers' threads, make the
same runs, each with a cache of its own; a bug that is put back, rows in the order of a set, shows that they do hash
otherwise. Again in one process: `test_pipeline`; orders of epochs and seeds: `training/test_update`.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pegbox
from pegbox import pipeline
from tiny_folder import causal_folder, chat_recipe, encoder_folder, sums, write_rows
from tiny_tasks import FORMS

HERE = Path(__file__).resolve()
RECORDS = ("recipe.yaml", "data.json", "splits.jsonl", "metrics.jsonl", "predictions.jsonl", "evaluation.json")
BUG = "rows in the order of a set"
PROCESSES: Mapping[str, Mapping[str, str]] = {
    "one": {"PYTHONHASHSEED": "1", "TOKENIZERS_PARALLELISM": "false"},
    "other": {"PYTHONHASHSEED": "2", "TOKENIZERS_PARALLELISM": "true"},
}


def recipes(folder: Path) -> dict[str, dict[str, Any]]:
    """One whose order shows, and those that deal in sets: of labels, of the names of layers in PEFT's own config."""
    train = {"max_steps": 4, "batch_size": 8, "learning_rate": 1e-2, "report_to": []}
    few = {"train": train, "evaluate": {"few_shot": 2, "max_new_tokens": 4, "max_rows": 12}}
    writer, reader, rows = folder / "writer", folder / "reader", folder / "rows.jsonl"
    chat = chat_recipe(writer, rows, method={"kind": "lora", "r": 2, "lora_dropout": 0.2}, **few)
    return {
        "chat": chat,
        BUG: chat,
        "peft": chat_recipe(writer, rows, method={"kind": "peft", "peft_type": "IA3"}, **few),
        "sets of labels": chat_recipe(
            reader, folder / "labelled.jsonl", task="multilabel", train=train, evaluate={"few_shot": 0}
        ),
    }


def in_the_order_of_a_set(recipe: Any, task: Any, *limits: int, right: Any = pipeline.prepare) -> Any:
    data = right(recipe, task, *limits)
    examples = {example.where: example for example in data.train}
    return replace(data, train=[examples[where] for where in set(examples)])


def work(folder: Path, name: str) -> None:
    """One process: what each run has written, by its hashes; and the names of the prepared rows."""
    found: dict[str, Any] = {}
    for which, recipe in recipes(folder).items():
        with pytest.MonkeyPatch.context() as patch:
            if which == BUG:
                patch.setattr(pipeline, "prepare", in_the_order_of_a_set)
            run = pegbox.train(recipe, run_dir=folder / name / which)
        written = {file: hashlib.sha256((run.path / file).read_bytes()).hexdigest() for file in RECORDS}
        found[which] = written | run.receipt["model_files"] | {"task": run.receipt["task"]}
    kept = sorted(path.name for path in Path(os.environ["PEGBOX_CACHE"]).glob("rows-*"))
    (folder / f"{name}.json").write_text(json.dumps({"rows": kept, **found}), encoding="utf-8")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("twice")
    causal_folder(folder / "writer", spread=0.2)
    encoder_folder(folder / "reader", spread=0.2)
    for file, made in {"rows": sums, "labelled": FORMS["multilabel"][2]}.items():
        write_rows(folder / f"{file}.jsonl", made(60))
    paths = os.pathsep.join([str(HERE.parents[1]), str(HERE.parents[1] / "data"), os.environ.get("PYTHONPATH", "")])
    begun = [
        subprocess.Popen(
            [sys.executable, str(HERE), str(folder), name],
            env={**os.environ, "PYTHONPATH": paths, "PEGBOX_CACHE": str(folder / f"cache-{name}"), **settings},
        )
        for name, settings in PROCESSES.items()
    ]
    assert [process.wait(timeout=300) for process in begun] == [0, 0]
    return {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in PROCESSES}


@pytest.mark.parametrize("which", ["chat", "peft", "sets of labels"])
def test_processes_that_hash_otherwise_make_the_same_run(which: str, found: dict[str, dict[str, Any]]) -> None:
    one, other = found["one"][which], found["other"][which]
    assert one.keys() == other.keys() > set(RECORDS)
    differing = [file for file in one if one[file] != other[file]]
    assert not differing


def test_prepared_rows_have_the_same_name(found: dict[str, dict[str, Any]]) -> None:
    assert found["one"]["rows"] == found["other"]["rows"] != []


def test_an_order_that_hangs_on_how_texts_are_hashed_is_caught(found: dict[str, dict[str, Any]]) -> None:
    with pytest.raises(AssertionError, match="metrics.jsonl"):
        test_processes_that_hash_otherwise_make_the_same_run(BUG, found)


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2])
