"""INVARIANTS row 5: a model that has learnt its answers by heart says them and stops, where it is told to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from made_tasks import made_task
from pegbox.data.formats import to_record
from pegbox.data.records import Example, Row
from pegbox.data.render import Renderer
from pegbox.models import load as models
from pegbox.models.generation import generate
from pegbox.tasks.chat import Chat
from tiny_folder import causal_folder, sums


def check_learnt_answers_stop(folder: Path, change: Callable[[Example], Example] = lambda example: example) -> None:
    model = models.load_model(folder, "causal_lm")
    task = made_task("chat", Renderer(models.load_tokenizer(folder), models.stop_ids(folder)))
    assert isinstance(task, Chat)
    records = [to_record(Row(f"row {n}", row), "chat", {}) for n, row in enumerate(sums(8))]
    examples = [change(task.encode(record)) for record in records]
    batch = task.collate(examples, packed=False, share_prefix=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(250):
        loss, weight = task.loss(model, batch)
        optimizer.zero_grad()
        (loss / weight).backward()
        optimizer.step()
    assert loss.item() / weight < 0.02, "it did not learn its rows, so nothing can be said"
    prompts = [task.prompt(record, ()) for record in records]
    answers = generate(model, prompts, stop_ids=task.renderer.stop_ids, max_new_tokens=40)
    assert [answer.stopped for answer in answers] == [True] * 8
    assert [task.said(answer.input_ids) for answer in answers] == [task.reference(record) for record in records]


def test_answers_learnt_by_heart_are_said_and_stop(tmp_path: Path) -> None:
    check_learnt_answers_stop(causal_folder(tmp_path / "model"))


def test_an_untrained_stop_token_is_caught(tmp_path: Path) -> None:
    def without_stop(example: Example) -> Example:
        return replace(example, loss_weights=(*example.loss_weights[:-1], 0.0))

    with pytest.raises(AssertionError, match=r"False|True"):
        check_learnt_answers_stop(causal_folder(tmp_path / "model"), without_stop)
