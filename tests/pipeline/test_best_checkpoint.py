"""A run saves as its model the checkpoint of its best validation, to the bit, and not the last one.

INVARIANTS row 23. Ties, what is not a number, and early stopping: `training/test_update`. That no test row
is looked at: `test_pipeline`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import pegbox
from pegbox.finished import Run
from pegbox.runs import checkpoint
from tiny_folder import causal_folder, chat_recipe, sums, write_rows

LEARNT = {"lora": "adapter_model.safetensors", "full": "model.safetensors"}


def trained(method: str, folder: Path) -> Run:
    """A run whose validation has answers of another kind, so that it becomes worse the more is learnt."""
    rows = sums(60)
    parts = {"train": rows[:40], "validation": [{**row, "completion": "fox dog"} for row in rows[40:50]]}
    parts["test"] = rows[50:]
    data = {name: str(write_rows(folder / f"{name}.jsonl", part)) for name, part in parts.items()}
    train = {"max_steps": 8, "batch_size": 8, "learning_rate": 0.03, "eval_steps": 1, "report_to": []}
    evaluate = {"few_shot": 0, "max_new_tokens": 2}
    model = causal_folder(folder / "base", spread=0.2)
    recipe = chat_recipe(model, folder, data=data, method=method, train=train, evaluate=evaluate)
    return pegbox.train(recipe, run_dir=folder / "run")


def digests(file: Path) -> set[str]:
    return {hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for tensor in load_file(file).values()}


def check_the_best_is_saved(method: str, folder: Path) -> None:
    run = trained(method, folder)
    losses = {line["step"]: line["loss"] for line in run.folder.read_lines("metrics.jsonl") if "split" in line}
    best = min(losses, key=lambda step: (losses[step], step))
    assert best < 8 == max(losses), "the last validation is the best, so that nothing is seen"
    assert run.receipt["chosen_step"] == best
    kept = {step: digests(run.folder.checkpoints / f"step-{step}" / "trainable.safetensors") for step in (best, 8)}
    saved = digests(run.folder.model / LEARNT[method])
    assert kept[best] != kept[8]
    assert saved == kept[best], "the model is not the best checkpoint"


@pytest.mark.parametrize("method", LEARNT)
def test_the_saved_model_is_the_checkpoint_of_the_best_validation(method: str, tmp_path: Path) -> None:
    check_the_best_is_saved(method, tmp_path)


def test_a_model_of_the_last_update_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def left(folder: Path, *given: Any) -> None:
        """Bug: the best checkpoint is not put back."""

    monkeypatch.setattr(checkpoint, "load", left)
    with pytest.raises(AssertionError, match="not the best checkpoint"):
        check_the_best_is_saved("lora", tmp_path)
