"""What the learning curves show, in words: whether training and validation part ways, from when on, and what to do then."""

from __future__ import annotations

from collections.abc import Sequence

from pegbox.evaluation.overfitting import LEAST, Line, Parting, lowest, points, risen
from pegbox.recipe import Train


def told(log: Sequence[Line], parted: Parting | None, chosen: int, train: Train) -> str:
    """What stands above the learning curves. `chosen`: the update of the weights that were kept."""
    if parted is None:
        return _not_parted(log)
    epochs = [f" (epoch {_epoch(point.epoch)})" for point in points(log) if point.step == chosen]
    kept = f"The weights of update {chosen:,}{''.join(epochs)} were kept, from {_side(parted, chosen)} it"
    after = _side(parted, chosen) == "after"
    return f"{_parted(parted)} {kept}{_choice(parted, train) if after else f'. {_cure(parted, train)}'}"


def card_line(parted: Parting, chosen: int) -> str:
    """One line of the model card."""
    return (
        f"Overfitting: training and validation part ways from update {parted.start.step:,} (epoch "
        f"{_epoch(parted.start.epoch)}) on; the weights are from {_side(parted, chosen)} it"
    )


def _parted(parted: Parting) -> str:
    best, start, end = parted.best, parted.start, parted.end
    worse = "" if parted.worse is None else f" ({_percent(parted.worse)} worse)"
    return (
        f"Training and validation part ways from epoch {_epoch(start.epoch)} on (update {start.step:,}), which is "
        f"overfitting: the validation loss, {best.validation:.4g} at its best, ends at {end.validation:.4g}{worse}, while the "
        f"training loss went on falling, from {best.training:.4g} to {end.training:.4g}."
    )


def _side(parted: Parting, chosen: int) -> str:
    return "before" if chosen < parted.start.step else "after"


def _choice(parted: Parting, train: Train) -> str:
    """By what weights from after the parting were chosen: by another number than the loss, which may still get better."""
    name = train.metric_for_best_model.rpartition(":")[2]
    best = f"update {parted.best.step:,} (epoch {_epoch(parted.best.epoch)})"
    return f", by their {name} on the validation rows; train.metric_for_best_model=loss keeps those of {best}."


def _cure(parted: Parting, train: Train) -> str:
    """What would end the run in time, and what would put the parting off."""
    best = parted.best
    shorter = f"fewer epochs (train.num_train_epochs={_epoch(best.epoch)})"
    if train.max_steps is not None:
        shorter = f"fewer updates (train.max_steps={best.step})"
    waits = train.early_stopping_patience is None and train.metric_for_best_model == "loss"
    patience = " or train.early_stopping_patience=3" if waits else ""
    return f"Cure: {shorter}{patience}; more rows or a lower train.learning_rate put it off."


def _not_parted(log: Sequence[Line]) -> str:
    found = points(log)
    if len(found) < LEAST:
        return f"Fewer than {LEAST} validations cannot tell whether training and validation part ways."
    best, end = lowest(found), found[-1]
    if end.validation == best.validation:
        return "Training and validation do not part ways: the last validation loss is the lowest."
    rise = risen(best, end)
    height = "" if rise is None else f" by {_percent(rise)}"
    why = "but so is the training loss" if end.training > best.training else "which may be noise"
    return f"Training and validation do not clearly part ways: the last validation loss is above the lowest{height}, {why}."


def _percent(share: float) -> str:
    """Per cent, with a decimal below ten."""
    if share < 0.001:
        return "less than 0.1 %"
    return f"{100 * share:,.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"


def _epoch(epoch: float) -> str:
    """An epoch with three digits, which a recipe can have too."""
    return f"{epoch:.3g}" if epoch < 1000 else f"{epoch:.0f}"
