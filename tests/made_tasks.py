"""A task of a kind, ready to encode and to learn, for tests that need no whole run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from pegbox.data.records import Record
from pegbox.data.render import Renderer
from pegbox.recipe import load
from pegbox.tasks import TASKS, Task


def made_task(
    kind: str, renderer: Renderer, records: Sequence[Record] = (), *, heads: Collection[str] = (), **changes: Any
) -> Task:
    """The task; it has observed the records, which are those of train as well. `changes` are parts of the recipe."""
    values: dict[str, Any] = {"model": "some/model", "task": kind, "data": {"train": "rows.jsonl"}}
    task = TASKS[kind](renderer, load(values | changes), frozenset(heads))
    if records:
        task.observe(records)
    task.fit(records)
    return task
