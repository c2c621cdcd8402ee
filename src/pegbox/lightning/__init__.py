"""PyTorch Lightning: any recipe as a LightningModule and a LightningDataModule, for a Trainer of the user's own.

The recipe decides every update: its rows and their order, loss, clipping, learning rate, precision, and how many there
are. The Trainer decides where it runs, when it validates, what it saves and logs, and may stop earlier. A step of
Lightning is an update of `training.loop`, to the number. That takes manual optimization: Lightning's accumulation is a
mean of the micro-batches' means (Lightning-AI/pytorch-lightning#19987), its `ddp` a mean over ranks; here both are
sums divided by the weight of the whole update. Settings of the Trainer that would change an update are refused.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pegbox.errors import RecipeError
from pegbox.pipeline import get_ready
from pegbox.recipe import Recipe, Train
from pegbox.recipe import load as load_recipe

try:
    import lightning.pytorch  # noqa: F401, its absence is told here, once
except ModuleNotFoundError as error:
    raise RecipeError(f"the package {error.name} is not there", cure="pip install 'pegbox[lightning]'") from error

from pegbox.lightning.data import PegboxDataModule
from pegbox.lightning.module import PegboxModule

__all__ = ["PegboxDataModule", "PegboxModule", "from_recipe"]

log = logging.getLogger("pegbox")

# what a recipe may ask of our loop, and how a Trainer is asked for it
TRAINERS_PART = {
    "eval_steps": "Trainer(val_check_interval={}, check_val_every_n_epoch=None)",
    "save_steps": "ModelCheckpoint(every_n_train_steps={})",
    "early_stopping_patience": "EarlyStopping('val_loss', patience={})",
    "report_to": "Trainer(logger=...) for {}",
}


def from_recipe(
    recipe: Recipe | str | Path | Mapping[str, Any], overrides: Sequence[str] = (), *, kernels: bool = True
) -> tuple[PegboxModule, PegboxDataModule]:
    """Read and check the rows, load the model, and make both modules, for `Trainer.fit(module, data)`.

    Takes what `pegbox.train` takes, and raises RecipeError and DataError as it does. Nothing is written.
    """
    loaded = load_recipe(recipe, overrides)
    _tell_trainers_part(loaded.train)
    module = PegboxModule(get_ready(loaded, kernels=kernels))
    return module, PegboxDataModule(module)


def _tell_trainers_part(settings: Train) -> None:
    for key, instead in TRAINERS_PART.items():
        if value := getattr(settings, key):
            log.warning("train.%s is the Trainer's to do; ask it: %s", key, instead.format(value))
