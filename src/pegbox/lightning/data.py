"""The rows of a recipe as a LightningDataModule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningDataModule

from pegbox.data.records import Record
from pegbox.lightning.batches import Loader, ResumedLoader, UpdateBatch, share, share_of_group
from pegbox.lightning.module import PegboxModule
from pegbox.runtime import ALONE, Ranks
from pegbox.training.batching import rows_of_update, updates_per_epoch

PREDICTED_AT_ONCE = 64  # rows


class PegboxDataModule(LightningDataModule):
    """The rows of a module's recipe: the updates of train, the validation rows, and to predict the test rows."""

    def __init__(self, module: PegboxModule) -> None:
        super().__init__()
        self.module = module

    def train_dataloader(self) -> Loader[UpdateBatch]:
        """As many updates as an epoch has, from the module's next one on."""
        ready, ranks = self.module.ready, self._ranks
        examples, size = ready.data.train, ready.recipe.train.batch_size

        def make(step: int) -> UpdateBatch:
            rows = rows_of_update(step, len(examples), size, ready.recipe.seed)
            return share(ready, step, [examples[row] for row in rows], ranks)

        return ResumedLoader(updates_per_epoch(len(examples), size), make, lambda: self.module.step)

    def val_dataloader(self) -> Loader[UpdateBatch]:
        """The validation rows in their order, `batch_size` at a time."""
        ready, ranks = self.module.ready, self._ranks
        rows, size = ready.data.validation, ready.recipe.train.batch_size

        def make(index: int) -> UpdateBatch:
            return share_of_group(ready, index, rows[index * size :][:size], ranks)

        return Loader(math.ceil(len(rows) / size), make)

    def predict_dataloader(self) -> Loader[Sequence[Record]]:
        """The test rows in their order; with several ranks each answers its share."""
        rows, ranks = self.module.ready.data.splits.test, self._ranks

        def make(index: int) -> Sequence[Record]:
            chunk = rows[index * PREDICTED_AT_ONCE :][:PREDICTED_AT_ONCE]
            return chunk[ranks.share(len(chunk))]

        return Loader(math.ceil(len(rows) / PREDICTED_AT_ONCE), make)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """The tensors of an update go to the device; records stay."""
        return batch.to(device) if isinstance(batch, UpdateBatch) else batch

    @property
    def _ranks(self) -> Ranks:
        return ALONE if self.trainer is None else self.module.ranks
