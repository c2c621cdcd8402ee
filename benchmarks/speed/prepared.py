"""What everybody is given: the same rows in the same order, in tokens, and the same weights to start from.

pegbox prepares them, once for a workload and a seed, in a process that is not measured: the folder `start` is what pegbox
saves of a model before its first update (PEFT's format, or the model whole), so that others load it as they load any
other; `rows.json` has the rows of the updates in their order, and those that the loss afterwards is taken of.
"""

from __future__ import annotations

import json
from pathlib import Path

from speed.given import ROWS, START, told
from speed.packing import packed
from speed.workloads import HELD_OUT, Shape, Workload

from pegbox import pipeline, runtime
from pegbox.data.records import Example
from pegbox.models import load as models
from pegbox.models.sources import resolve
from pegbox.ready import Ready
from pegbox.recipe import load as load_recipe
from pegbox.training.batching import rows_of_update
from speed import random_llama, rows


def prepare(workload: Workload, shared: Path, folder: Path, seed: int) -> None:
    """Write what is given for one seed into `folder`; the rows and the model of all seeds lie in `shared`."""
    folder.mkdir(parents=True)
    ready = made_ready(workload, shared, seed, kernels=False)
    pipeline.save_model(ready, folder / START)
    train, size = whole_updates(ready), workload.batch_size
    order = [rows_of_update(step, len(train), size, seed) for step in range(workload.steps)]
    updates = [[train[row] for row in update] for update in order]
    writes = workload.task != "classification"
    found = {
        "base": str(ready.source.path),
        "updates": [list(map(told, update)) for update in updates],
        "labels": len(ready.task.labels),
        "packs": [pack for update in updates for pack in packed(update, workload.packs)] if writes else [],
        "held_out": [told(example) for example in ready.data.validation[:HELD_OUT]],
    }
    (folder / ROWS).write_text(json.dumps(found), encoding="utf-8")


def share(workload: Workload, folder: Path) -> None:
    """Write what all seeds have in common: the rows and, where it is a random one, the model."""
    folder.mkdir(parents=True)
    if isinstance(workload.model, Shape):
        random_llama.write(workload.model, folder / "model")
    recipe = load_recipe(workload.recipe(folder, seed=0))
    tokenizer = models.load_tokenizer(resolve(recipe.model.name).path)
    rows.write(workload.rows, folder / "rows.jsonl", tokenizer, recipe.data.max_length or 0)


def made_ready(workload: Workload, shared: Path, seed: int, *, kernels: bool) -> Ready:
    """Steps 1 and 2 of pegbox: rows, model and plan."""
    runtime.tune_allocator()
    return pipeline.get_ready(load_recipe(workload.recipe(shared, seed)), kernels=kernels)


def whole_updates(ready: Ready) -> list[Example]:
    """The rows to learn from, without those of an epoch's last update where it is short: others would go on by a row of the next."""
    train, size = ready.data.train, ready.recipe.train.batch_size
    return list(train[: len(train) // size * size])
