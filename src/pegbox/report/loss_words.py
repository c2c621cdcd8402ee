"""The loss of a run in words: its name with its settings, and what its numbers count."""

from __future__ import annotations

from collections.abc import Mapping

from pegbox.recipe import FITTING, BinaryCrossEntropy, CrossEntropy, Focal, Huber, Loss, OwnLoss, Recipe
from pegbox.recipe.own import split
from pegbox.report.wording import some
from pegbox.tasks import TASKS

NAMED = 8  # labels of which the weights are said
NAMES = {
    "cross_entropy": "cross-entropy",
    "focal": "focal loss",
    "binary_cross_entropy": "cross-entropy of each label by itself",
    "mse": "squared error of standardised values",
    "mae": "absolute error of standardised values",
    "huber": "Huber's loss of standardised values",
    "info_nce": "InfoNCE among all texts of the update",
    "cosine": "squared error of the cosine",
}
COUNTED = {
    "cross_entropy": "{weighted}nats per {unit}",
    "focal": "per {unit} ({weighted}focal)",
    "binary_cross_entropy": "{weighted}nats per {unit}",
    "mse": "squared deviations per {unit}",
    "mae": "deviations per {unit}",
    "huber": "per {unit} (Huber)",
    "info_nce": "nats per {unit}",
    "cosine": "squared cosines per {unit}",
}
WEIGHING = (CrossEntropy, Focal, BinaryCrossEntropy)


def loss_of(recipe: Recipe) -> Loss:
    """The loss that the recipe asks for; without one the task's own."""
    return recipe.train.loss or FITTING[recipe.task.kind][0]()


def unit(recipe: Recipe) -> str:
    """What a value of the loss counts, and what it is a mean over: "nats per row"."""
    loss = loss_of(recipe)
    if isinstance(loss, OwnLoss):
        return f"by your own {split(loss.function)[1]}"
    weighted = "weighted " if isinstance(loss, WEIGHING) and loss.class_weights else ""
    return COUNTED[loss.kind].format(unit=_mean_over(recipe), weighted=weighted)


def _mean_over(recipe: Recipe) -> str:
    """Every label of a row counts where each is told by itself."""
    each = BinaryCrossEntropy in FITTING[recipe.task.kind]
    return f"{TASKS[recipe.task.kind].loss_unit}{' and label' if each else ''}"


def told(recipe: Recipe) -> str:
    """The loss and what is set of it."""
    loss = loss_of(recipe)
    if isinstance(loss, OwnLoss):
        return f"your own: {loss.function}"
    parts = [NAMES[loss.kind]]
    if isinstance(loss, Focal):
        parts.append(f"gamma {loss.gamma:g}")
    if isinstance(loss, Huber):
        parts.append(f"straight from {loss.delta:g} deviations on")
    if isinstance(loss, CrossEntropy) and loss.label_smoothing:
        parts.append(f"label smoothing {loss.label_smoothing:g}")
    if isinstance(loss, WEIGHING) and loss.class_weights is not None:
        parts.append(_weights(loss.class_weights))
    return ", ".join(parts)


def _weights(given: str | Mapping[str, float]) -> str:
    if isinstance(given, str):
        return f"class weights {given}"
    return f"class weights {some([f'{label} {weight:g}' for label, weight in given.items()], NAMED)}"
