"""The model and the task of a recipe as a LightningModule, and the settings of a Trainer that it cannot follow."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities import rank_zero_only
from torch.optim.lr_scheduler import LambdaLR

from pegbox import runtime
from pegbox.data.records import Record
from pegbox.errors import RecipeError, TrainingError
from pegbox.lightning.batches import UpdateBatch
from pegbox.pipeline import save_model
from pegbox.ready import Ready
from pegbox.runs.checkpoint import trainable
from pegbox.runtime import Ranks
from pegbox.training.gradient import find_gradient, refuse_non_finite
from pegbox.training.schedule import adamw, learning_rate, set_rate

# settings of a Trainer that are refused, and what to say in the recipe instead
INSTEAD = {
    "precision": "train.bf16 in the recipe decides",
    "strategy": "one device and strategy='ddp' take the same updates as pegbox does",
    "accumulate_grad_batches": "train.batch_size is an update, train.micro_batch_size the most rows at once",
    "gradient_clip_val": "train.max_grad_norm in the recipe clips",
    "overfit_batches": "give a file of few rows as data.train",
}


class PegboxModule(LightningModule):
    """The model and the task of a recipe. `step`: the updates taken. Logs `train_loss`, `grad_norm`, `lr`, `val_loss`.

    Losses in nats a unit of weight. A checkpoint holds what learns, not the frozen base.
    """

    def __init__(self, ready: Ready) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # a checkpoint lacks what is frozen; `on_load_checkpoint` is strict about the rest
        self.ready, self.step = ready, 0
        self.model = ready.model
        self.model.train()
        self.bf16 = ready.bf16
        self._validated = (0.0, 0.0)
        self.save_hyperparameters(ready.recipe.model_dump(mode="json"))

    @property
    def ranks(self) -> Ranks:
        """This process among those of the Trainer."""
        return Ranks(self.trainer.global_rank, self.trainer.world_size, str(self.device))

    def configure_callbacks(self) -> list[Any]:
        """No callbacks: the first hook that is called, before Lightning gives advice that does not hold here."""
        refuse(self.trainer, self.bf16)
        return []

    def setup(self, stage: str) -> None:
        """Begin at the first update; a checkpoint that is loaded after this moves on from there."""
        self.step = 0

    def configure_optimizers(self) -> Any:
        """The recipe's AdamW, and its learning rate of every update."""
        settings, updates = self.ready.recipe.train, self.ready.plan.updates
        peak = settings.learning_rate
        assert peak is not None
        optimizer = adamw(trainable(self.model), settings, self.ready.rate_factor)
        set_rate(optimizer, 1.0)  # the schedule's factor is the rate itself
        scheduler = LambdaLR(optimizer, lambda step: learning_rate(step, updates, peak, settings))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        """A run of which all updates are taken has no more to do."""
        self._stop_at_the_end()

    def training_step(self, batch: UpdateBatch, batch_idx: int) -> None:
        """One update. Raises TrainingError where it is not finite, or more updates are asked for than the recipe has."""
        settings, updates = self.ready.recipe.train, self.ready.plan.updates
        if self.step == updates:
            cure = "leave min_steps and min_epochs away, or raise train.num_train_epochs or train.max_steps"
            raise TrainingError(f"the recipe's {updates} updates are done, and the Trainer wants more", cure=cure)
        assert batch.step == self.step
        optimizer, scheduler = self.optimizers(), self.lr_schedulers()
        assert not isinstance(optimizer, list) and isinstance(scheduler, LambdaLR)
        optimizer.zero_grad(set_to_none=True)
        strategy = self.trainer.strategy
        # DDP would reduce at every backward, of which ranks have different numbers; `find_gradient` sums over them once
        with strategy.block_backward_sync() if isinstance(strategy, DDPStrategy) else contextlib.nullcontext():
            found = find_gradient(
                self.model,
                self.ready.task,
                batch.micro_batches,
                self.manual_backward,
                seed=self.ready.recipe.seed,
                step=self.step,
                max_grad_norm=settings.max_grad_norm,
                ranks=self.ranks,
                bf16=self.bf16,
            )
        rate = scheduler.get_last_lr()[0]
        if found.weight != 0:  # NaN is not
            refuse_non_finite(found, self.step, batch.rows)
            optimizer.step()
        scheduler.step()
        self.step += 1
        self._stop_at_the_end()
        self.log("train_loss", found.loss, prog_bar=True, batch_size=len(batch.rows))
        self.log_dict({"grad_norm": found.norm, "lr": rate}, batch_size=len(batch.rows))

    def _stop_at_the_end(self) -> None:
        if self.step == self.ready.plan.updates:
            self.trainer.should_stop = True

    def on_validation_epoch_start(self) -> None:
        """Nothing is summed yet."""
        self._validated = (0.0, 0.0)

    def validation_step(self, batch: UpdateBatch, batch_idx: int) -> None:
        """Add the losses and weights of some rows to those before."""
        total, weight = self._validated
        with runtime.autocast(self.device, self.bf16):
            loss, group_weight = self.ready.task.group_loss(self.ready.model, batch.micro_batches)
        self._validated = total + loss, weight + group_weight

    def on_validation_epoch_end(self) -> None:
        """`val_loss` is one sum over one weight, never a mean of batches; it is the same on every rank."""
        total, weight = self.ranks.sum(*self._validated)
        self.log("val_loss", total / weight if weight else math.nan, prog_bar=True, sync_dist=self.ranks.world > 1)

    def predict_step(self, batch: Sequence[Record], batch_idx: int) -> list[dict[str, Any]]:
        """`{"id": , "input": , "answer": }` of every row, the answer in the user's own terms."""
        task, tokens = self.ready.task, self.ready.recipe.evaluate.max_new_tokens
        assert tokens is not None
        if not batch:
            return []
        with runtime.autocast(self.device, self.bf16):
            answers = task.served(self.ready.model, batch, max_new_tokens=tokens).answers
        return [
            {"id": record.where, "input": task.shown(record), "answer": answer}
            for record, answer in zip(batch, answers, strict=True)
        ]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep of the weights those that learn, and add what exact resuming needs."""
        learnt, whole = self._learnt(), checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: tensor for name, tensor in whole.items() if name in learnt}
        checkpoint["pegbox"] = {"step": self.step}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises RecipeError unless the checkpoint holds exactly the weights that this recipe trains."""
        saved = {name: tensor.shape for name, tensor in checkpoint["state_dict"].items()}
        if odd := sorted({name for name, _ in saved.items() ^ self._learnt().items()}):
            cure = "make the modules from the recipe that the checkpoint was trained by"
            raise RecipeError(f"the checkpoint does not fit the recipe: {', '.join(odd[:3])}", cure=cure)
        self.step = checkpoint["pegbox"]["step"]

    def _learnt(self) -> dict[str, torch.Size]:
        return {f"model.{name}": parameter.shape for name, parameter in trainable(self.model).items()}

    @rank_zero_only
    def save(self, folder: str | Path) -> None:
        """Write the model as it is now as a run's `model/`: PEFT's layout for an adapter, else the hub's.

        Raises RecipeError where the folder is not empty.
        """
        path = Path(folder)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RecipeError("the folder is not empty", where=str(path), cure="give a new one")
        save_model(self.ready, path)


def refuse(trainer: Trainer, bf16: bool) -> None:
    """Raise RecipeError where a setting of the Trainer would change the updates that the recipe asks for."""
    wrong = {
        "precision": trainer.precision not in (("32-true", "bf16-mixed") if bf16 else ("32-true",)),
        "strategy": type(trainer.strategy) not in (SingleDeviceStrategy, DDPStrategy),  # their subclasses cut the model
        "accumulate_grad_batches": trainer.accumulate_grad_batches != 1,
        "gradient_clip_val": bool(trainer.gradient_clip_val),
        "overfit_batches": bool(trainer.overfit_batches),  # type: ignore[attr-defined]  # set behind mypy's back
    }
    for setting in filter(wrong.__getitem__, wrong):
        what = "this setting of the Trainer would change the updates of the recipe"
        raise RecipeError(what, where=setting, cure=f"leave it away; {INSTEAD[setting]}")
