"""A few rows asked before training as the evaluation will ask many: what that takes is planned with, nothing is scored.

The rows are of train, the longest: test rows are asked once, for the verdict.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from pegbox import runtime
from pegbox.data.prepare import Prepared
from pegbox.data.records import Record
from pegbox.data.sizes import sizes_of
from pegbox.evaluation import systems
from pegbox.recipe import Recipe
from pegbox.tasks import Task
from pegbox.training.plan import Asking

AT_ONCE = 64  # rows that the tasks ask in one batch, but for texts that are read, one by one
FEW = 4  # rows that are asked here, at most
WORDS = 2  # tokens of an answer here
READ = 2048  # tokens of a text and of those before it, where texts are read and nothing is written: these take little
LOOKED_AT = 5000  # rows of train among which examples for the prompt are looked for here


def rehearse(task: Task, model: PreTrainedModel, data: Prepared, recipe: Recipe, limit: int, *, bf16: bool) -> Asking:
    """How the evaluation will ask the model, which takes at most `limit` tokens."""
    tokens = recipe.evaluate.max_new_tokens
    assert tokens is not None
    train, lengths = data.splits.train, sizes_of(data.train).tokens.tolist()
    longest = sorted(range(len(train)), key=lengths.__getitem__, reverse=True)[:FEW]
    rows = [train[index] for index in longest]
    room = limit - tokens if task.writes else min(limit - tokens, READ)
    shots = _shots(task, data, rows, recipe, room)
    words = min(WORDS, tokens)

    def ask(count: int) -> None:
        was_training = model.training
        model.train(False)
        with runtime.autocast(model.device, bf16):
            task.predict(model, rows[:count], shots=shots, max_new_tokens=words)
        model.train(was_training)

    read = max(task.prompt_length(row, shots) for row in rows)
    stretch = (read + tokens) / (read + words) if task.writes else 1.0
    alone = task.head == "causal_lm" and not task.writes
    most = min(1 if alone else AT_ONCE, len(data.splits.test), recipe.evaluate.max_rows)
    return Asking(max(1, most), ask, stretch)


def _shots(task: Task, data: Prepared, rows: Sequence[Record], recipe: Recipe, room: int) -> list[Record]:
    """The examples before each question, where the model in training can be asked with them."""
    if not (task.zero_shot and task.few_shot and task.base_head == task.head):
        return []
    some = data.splits.train[:LOOKED_AT]
    wanted = systems.choose_shots(task, some, data.splits.test, recipe.evaluate.few_shot, recipe.seed)
    return systems.fitting_shots(task, wanted, rows, room)
