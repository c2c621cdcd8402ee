"""A tuned model as a whole one of Transformers' own: what was learnt written into its weights, and saved as any other."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pegbox.finished.run import Run
from pegbox.methods import METHODS
from pegbox.models import load as models
from pegbox.runs import checkpoint

MAX_SHARD_SIZE = "5GB"


def merged(run: Run) -> PreTrainedModel:
    """The tuned model of a run, merged, in float32. Raises RecipeError where its method cannot be merged."""
    return _merged(run, run.load_tuned())


def merged_checkpoint(run: Run, folder: Path) -> PreTrainedModel:
    """The model that a run had at a checkpoint, merged, in float32. Raises RecipeError where its method cannot be merged."""
    method = METHODS[run.recipe.method.kind]
    model = run.load_base(apart=method.FREEZES)
    method.prepare(model, run.recipe.method, run.recipe.seed)
    checkpoint.load(folder, model)
    return _merged(run, model)


def _merged(run: Run, model: PreTrainedModel) -> PreTrainedModel:
    METHODS[run.recipe.method.kind].merge(model, run.recipe.method)
    model.config.update(run.task.config())
    return model


def save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    stop_ids: list[int],
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = MAX_SHARD_SIZE,
) -> None:
    """Write a model in the hub's layout with its tokenizer, chat template and generation config; tied weights once."""
    model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)  # type: ignore[arg-type]
    models.save_serving(tokenizer, model, stop_ids, folder)
