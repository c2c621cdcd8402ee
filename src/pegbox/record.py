"""What a run says of itself before its first update, and what that is held against when it goes on.

The first files of a run are its recipe with every default made explicit, what the doctor found, which row went where, and
the beginning of the receipt. Among these stands the run's origin: all that its updates hang on, beside the machine.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from pegbox.data.fingerprint import files_of, sources_of
from pegbox.data.splits import SPLITS, Splits
from pegbox.finished.continuing import resolve
from pegbox.models import load as models
from pegbox.models.licences import licence_of
from pegbox.models.sources import CARD, ModelFolder
from pegbox.ready import Ready
from pegbox.recipe import Recipe, dump, own_files
from pegbox.runs import changes, checkpoint, durable, receipt
from pegbox.runs.changes import Difference
from pegbox.runs.folder import DRAFT, RECIPE, RunFolder
from pegbox.runtime import Ranks

log = logging.getLogger("pegbox")

BYTES_KEPT = 16  # on the disk, for each weight that learns: a checkpoint with two moments, and the model


def begin(path: Path, ready: Ready, ranks: Ranks) -> RunFolder:
    """The run folder with what is known before training (the first rank makes it)."""
    if ranks.is_first:
        durable.refuse_full(path, BYTES_KEPT * ready.plan.trainable_parameters)
        with RunFolder.begin(path) as folder:
            _write(folder, ready, ranks)
    ranks.wait()
    return RunFolder(path)


def changed(first: Mapping[str, Any], recipe: Recipe) -> list[Difference]:
    """What of a run, by its receipt, is another now."""
    source = resolve(recipe.model.name)
    tokenizer = models.load_tokenizer(source.path, recipe.model.add_tokens)
    return changes.differences(changes.origin_of(first), changes.origin_of(_origin(recipe, source, tokenizer)))


def go_on(folder: RunFolder, ready: Ready, ranks: Ranks, found: Sequence[Difference]) -> None:
    """Bring the first files up to changes that were accepted, and warn where sums are not rounded as they were."""
    shutil.rmtree(folder.path / DRAFT, ignore_errors=True)  # empty, where the run was killed as soon as it was one
    first = folder.read_json("receipt.json")
    before = first["versions"] | first["hardware"]
    now = receipt.versions() | receipt.hardware(ready.model.device) | {"ranks": ranks.world}
    other = [f"{name} {before[name]}, now {now.get(name)}" for name in before if before[name] != now.get(name)]
    if other:
        log.warning("equal to rounding only: the run began with %s", "; ".join(other))
    if found:
        earlier = receipt.text_hash(dump(Recipe.model_validate(first["recipe"])))
        _write(folder, ready, ranks)
        kept = {name: first[name] for name in ("began", "test_scored")}
        kept["earlier_recipes"] = [*first.get("earlier_recipes", []), earlier]
        kept["accepted_changes"] = [*first.get("accepted_changes", []), *(f"{key}: {what}" for key, what in found)]
        folder.write_json("receipt.json", folder.read_json("receipt.json") | kept)


def _write(folder: RunFolder, ready: Ready, ranks: Ranks) -> None:
    """What is known of a run before its first update."""
    findings = [finding.to_json() for finding in ready.data.findings]
    folder.write_json("data.json", {"findings": findings, "shape": ready.data.shape})
    folder.write_lines("splits.jsonl", _sides(ready.data.splits))
    folder.write_json("receipt.json", _first_receipt(ready, ranks))
    folder.write(RECIPE, dump(ready.recipe))


def _sides(splits: Splits) -> Iterator[dict[str, Any]]:
    """Which row went where, each once."""
    for name in (*SPLITS, "left_out"):
        rows = getattr(splits, name)
        told = ({"id": record.where, "split": name, "group": record.group} for record in rows)
        yield from (line for line, _ in groupby(told))  # those of a source of weight 2 stand twice in train


def _first_receipt(ready: Ready, ranks: Ranks) -> dict[str, Any]:
    recipe, renderer = ready.recipe, ready.task.renderer
    origin = _origin(recipe, ready.source, renderer.tokenizer)
    told = {
        "name": ready.source.name,
        "source": ready.source.source,
        "folder": str(ready.source.path),
        "licence": licence_of(ready.source),
        "heads": sorted(ready.task.heads),
        "stop_ids": sorted(renderer.stop_ids),
    }
    return {
        "began": receipt.now(),
        "versions": receipt.versions(),
        "hardware": receipt.hardware(ready.model.device) | {"ranks": ranks.world},
        "seed": recipe.seed,
        **origin,
        "rows": {name: len(getattr(ready.data.splits, name)) for name in SPLITS},
        "model": told | origin["model"],
        "task": ready.task.state(),
        "plan": ready.plan.to_json(),
        "precision": {
            "computed": "bfloat16" if ready.bf16 else "float32",
            "held": sorted({str(weight.dtype).removeprefix("torch.") for weight in ready.model.parameters()}),
        },
        "kernels": models.kernels_of(ready.model, bf16=ready.bf16),
        "no_kernels": not ready.kernels,
        "test_scored": 0,
    }


def _origin(recipe: Recipe, source: ModelFolder, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """All that a run hangs on, beside the machine: two runs of one origin take the same updates."""
    return {
        "recipe": recipe.model_dump(mode="json"),
        "data": receipt.file_hashes(files_of(sources_of(recipe))),
        "code": receipt.file_hashes(own_files(recipe)),
        "model": {
            # a card says nothing to the model, and the hub's are mended after the model was published
            "files": {name: digest for name, digest in checkpoint.hashes(source.path) if name != CARD},
            "template": receipt.text_hash(str(tokenizer.chat_template or "")),
        },
    }
