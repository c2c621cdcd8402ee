"""A run is the same whether or not others are made beside it in one process, before it and between its updates.

INVARIANTS row 39. The others have all that could stay behind: another precision, other attention and no kernels,
another task on padded rows, answers that are drawn at random. They run to their ends where the first one is between two
updates: whatever they share with it (a model, a config, a generator, a setting of torch or of Transformers) would show
in a bit of its files. In threads beside each other runs are not promised to be the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pegbox
from pegbox import runtime
from pegbox.finished import Run
from pegbox.models import load as models
from pegbox.training import loop
from tiny_folder import causal_folder, chat_recipe, encoder_folder, sums, write_rows
from tiny_tasks import FORMS

RECORDS = ("metrics.jsonl", "splits.jsonl", "predictions.jsonl", "evaluation.json")
FEW = {"evaluate": {"few_shot": 0, "max_new_tokens": 3, "max_rows": 8}}
TRAIN = {"max_steps": 4, "batch_size": 8, "learning_rate": 1e-2, "report_to": []}


def recipe(home: Path, **changes: Any) -> dict[str, Any]:
    method = {"kind": "lora", "r": 2, "lora_dropout": 0.2}
    return chat_recipe(home / "writer", home / "rows.jsonl", **{"method": method, "train": TRAIN, **FEW, **changes})


def in_bfloat16(home: Path, folder: Path) -> Run:
    """The same base model, all of it learnt, in other precision, on other rows."""
    train = {**TRAIN, "bf16": True, "max_steps": 2, "weight_decay": 0.5}
    changed = recipe(home, method="full", train=train, seed=9, task="completion")
    return pegbox.train(changed, run_dir=folder)


def padded(home: Path, folder: Path) -> Run:
    """A classifier by plain operations, on rows that are padded."""
    asked = {"train": {**TRAIN, "max_steps": 2}, "evaluate": {"few_shot": 0, "max_rows": 8}}
    rows = home / "labelled.jsonl"
    return pegbox.train(
        chat_recipe(home / "reader", rows, task="classification", **asked), run_dir=folder, kernels=False
    )


def drawn(home: Path, folder: Path) -> None:
    """Answers of a run that was there before."""
    Run(home / "alone").generate("3 and 4", max_new_tokens=5, do_sample=True)
    torch.rand(3)


BESIDE: tuple[Callable[[Path, Path], Any], ...] = (in_bfloat16, padded, drawn)


def digests(run: Run) -> dict[str, str]:
    written = {file: hashlib.sha256((run.path / file).read_bytes()).hexdigest() for file in RECORDS}
    return written | run.receipt["model_files"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("beside")
    causal_folder(folder / "writer", spread=0.2)
    encoder_folder(folder / "reader", spread=0.2)
    write_rows(folder / "rows.jsonl", sums(60))
    write_rows(folder / "labelled.jsonl", FORMS["classification"][2](60))
    return folder


@pytest.fixture(scope="module")
def alone(home: Path) -> dict[str, str]:
    return digests(pegbox.train(recipe(home), run_dir=home / "alone"))


def check_others_beside_change_nothing(
    home: Path,
    alone: dict[str, str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    others: tuple[Callable[[Path, Path], Any], ...] = BESIDE,
) -> None:
    """One of the others before each update of the first run but its own first."""
    right, waiting, inside = loop.take_update, list(enumerate(others)), list[bool]()

    def interrupted(job: Any, optimizer: Any, step: int) -> Any:
        if step and waiting and not inside:
            number, other = waiting.pop(0)
            inside.append(True)
            other(home, folder / str(number))
            inside.pop()
        return right(job, optimizer, step)

    monkeypatch.setattr(loop, "take_update", interrupted)
    run = pegbox.train(recipe(home), run_dir=folder / "run")
    monkeypatch.setattr(loop, "take_update", right)
    assert not waiting
    found = digests(run)
    differing = [file for file in alone if found[file] != alone[file]]
    assert found.keys() == alone.keys() and not differing, f"not as it was alone: {differing}"


def test_runs_beside_it_change_nothing_of_a_run(
    home: Path, alone: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_others_beside_change_nothing(home, alone, tmp_path, monkeypatch)


def test_runs_before_it_change_nothing_of_a_run(home: Path, alone: dict[str, str], tmp_path: Path) -> None:
    for number, other in enumerate(BESIDE):
        other(home, tmp_path / str(number))
    assert digests(pegbox.train(recipe(home), run_dir=tmp_path / "run")) == alone


def test_noise_from_a_generator_that_goes_on_is_caught(
    home: Path, alone: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "seed_noise", lambda seed, step, rank=0: torch.manual_seed(seed) if not step else None)
    plain = digests(pegbox.train(recipe(home), run_dir=tmp_path / "plain"))
    with pytest.raises(AssertionError, match="adapter_model"):
        check_others_beside_change_nothing(home, plain, tmp_path, monkeypatch, (drawn,))


def test_weights_that_two_runs_share_are_caught(
    home: Path, alone: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bug: a base model is kept and given out again."""
    right, kept = models.load_model, dict[tuple[Path, str], torch.Tensor]()

    def shared(folder: Path, head: str, **options: Any) -> Any:
        model = right(folder, head, **options)
        for name, parameter in model.named_parameters():
            parameter.data = kept.setdefault((folder, name), parameter.data)
        return model

    monkeypatch.setattr(models, "load_model", shared)
    with pytest.raises(AssertionError, match="metrics.jsonl"):
        check_others_beside_change_nothing(home, alone, tmp_path, monkeypatch, (in_bfloat16,))
