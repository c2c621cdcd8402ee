"""Losses: pure functions from outputs and targets to the loss of each example, and how they are summed.

An update's loss is one sum over one weight, so that it does not depend on how the update is cut. With l_i of row i (of
its label, target or token) and its weight w_i,

    sum = sum_i w_i l_i        weight = sum_i w_i        loss of the update = sum of the sums / sum of the weights

    cross_entropy         l = -log p_y                        p = softmax(outputs), y the right label
    focal                 l = -(1 - p_y)^gamma log p_y        Lin et al. 2017, arXiv 1708.02002
    binary_cross_entropy  l = -v y log p - (1 - y) log(1 - p) p = sigmoid(outputs), y 1 or 0, v the label's weight
    focal, labels 1 or 0  l = -v_y (1 - p_y)^gamma log p_y    p_y = p or 1 - p; v_y = v where y is 1, else 1
    mse, mae, huber       l = e^2, |e|, e^2 / 2 up to delta and delta (|e| - delta / 2) from there; e = output - target

Class weights of one label out of several multiply w_i, in the sum *and* in the weight: the loss is that of the same rows
with each repeated as often as its label weighs (INVARIANTS 27). Where every label is there or not, the weight is that of
its presence alone, in the sum only, as in torch's `pos_weight`: labels weigh the same among each other, and the weight
counts rows x labels. Lin et al. weigh the two sides alpha and 1 - alpha; here they are v and 1. Label smoothing is
torch's: part of the target spread over all labels, each with its class weight. `1 - p_y` is computed as a probability
of its own, in logarithms: so its power has a finite gradient for any gamma, also where p_y rounds to 1.

Everything is computed in the outputs' type, or in float32 where that is shorter, outside of autocast.

Shapes: N rows or tokens, C labels, K numbers a row. `outputs` [N, C] or [N, K]; `targets` int64 [N], float [N, C] or
[N, K]; `weights` [N]. Nothing is ever broadcast: [N, 1] against [N] would be N x N errors (INVARIANTS 26).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.nn import functional

from pegbox.errors import RecipeError
from pegbox.recipe import MAE, MSE, BinaryCrossEntropy, Cosine, CrossEntropy, Focal, Huber, InfoNCE, Loss
from pegbox.tasks.own_loss import Criterion as Criterion  # named here for the tasks
from pegbox.tasks.own_loss import Own, own_loss

Settings = Loss | Own
Weights = tuple[float, ...] | None


def build(settings: Settings, labels: Sequence[str] = (), counts: Mapping[str, int] = {}, rows: int = 0) -> Criterion:
    """What sums the loss of a batch: `criterion(outputs, targets, weights) -> (sum, weight)`.

    `labels`: in the order of the outputs; `counts`: how often each occurs in train, `rows`: among how many rows.
    `settings` may be a function of the user's. Raises RecipeError: class weights that do not fit the labels, a function
    that cannot be loaded.
    """
    criterion: Criterion
    if isinstance(settings, CrossEntropy):
        weights = _class_weights(settings.class_weights, labels, counts)
        criterion = partial(_cross_entropy, weights, settings.label_smoothing)
    elif isinstance(settings, Focal):
        of_one = _class_weights(settings.class_weights, labels, counts)
        of_each = _positive_weights(settings.class_weights, labels, counts, rows)
        criterion = partial(_focal, of_one, of_each, settings.gamma)
    elif isinstance(settings, BinaryCrossEntropy):
        of_each = _positive_weights(settings.class_weights, labels, counts, rows)
        criterion = partial(_of_cells, partial(binary_cross_entropy, positive_weights=of_each))
    elif isinstance(settings, Huber):
        criterion = partial(_of_cells, partial(huber, delta=settings.delta))
    elif isinstance(settings, InfoNCE):
        criterion = partial(_cross_entropy, None, 0.0)
    elif isinstance(settings, Cosine):
        criterion = partial(_of_cells, mse)
    elif isinstance(settings, MSE | MAE):
        criterion = partial(_of_cells, mse if isinstance(settings, MSE) else mae)
    else:
        criterion = own_loss(settings)
    return partial(_exactly, criterion)


# ---- the loss of each example ----------------------------------------------------------------------------------------


def cross_entropy(
    outputs: torch.Tensor, targets: torch.Tensor, class_weights: Weights = None, label_smoothing: float = 0.0
) -> torch.Tensor:
    """[N] from outputs [N, C] and targets int64 [N], each times its label's weight."""
    _one_target_a_row(outputs, targets)
    weight = None if class_weights is None else outputs.new_tensor(class_weights)
    return functional.cross_entropy(outputs, targets, weight=weight, reduction="none", label_smoothing=label_smoothing)


def focal(outputs: torch.Tensor, targets: torch.Tensor, gamma: float) -> torch.Tensor:
    """[N] from outputs [N, C > 1] and targets int64 [N]."""
    _one_target_a_row(outputs, targets)
    right = targets[:, None]
    whole = outputs.logsumexp(1)
    log_p = outputs.gather(1, right)[:, 0] - whole
    log_rest = outputs.scatter(1, right, -torch.inf).logsumexp(1) - whole  # log(1 - p)
    return -(gamma * log_rest).exp() * log_p


def binary_cross_entropy(
    outputs: torch.Tensor, targets: torch.Tensor, positive_weights: Weights = None
) -> torch.Tensor:
    """[N, C] from outputs and targets (1 or 0) [N, C]; presence times the label's weight."""
    _one_target_a_cell(outputs, targets)
    weight = None if positive_weights is None else outputs.new_tensor(positive_weights)
    return functional.binary_cross_entropy_with_logits(outputs, targets, pos_weight=weight, reduction="none")


def sigmoid_focal(
    outputs: torch.Tensor, targets: torch.Tensor, gamma: float, positive_weights: Weights = None
) -> torch.Tensor:
    """[N, C] from outputs and targets (1 or 0) [N, C]; presence times the label's weight."""
    _one_target_a_cell(outputs, targets)
    signed = outputs * (2 * targets - 1)
    losses = -(gamma * functional.logsigmoid(-signed)).exp() * functional.logsigmoid(signed)
    if positive_weights is None:
        return losses
    return losses * (1 + targets * (outputs.new_tensor(positive_weights) - 1))


def mse(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """[N, K] squared errors."""
    _one_target_a_cell(outputs, targets)
    return functional.mse_loss(outputs, targets, reduction="none")


def mae(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """[N, K] absolute errors."""
    _one_target_a_cell(outputs, targets)
    return functional.l1_loss(outputs, targets, reduction="none")


def huber(outputs: torch.Tensor, targets: torch.Tensor, delta: float = 1.0) -> torch.Tensor:
    """[N, K] half squared errors up to `delta`, a straight line of slope delta from there."""
    _one_target_a_cell(outputs, targets)
    return functional.huber_loss(outputs, targets, reduction="none", delta=delta)


def _one_target_a_row(outputs: torch.Tensor, targets: torch.Tensor) -> None:
    assert outputs.dim() == 2 and targets.shape == outputs.shape[:1], (outputs.shape, targets.shape)


def _one_target_a_cell(outputs: torch.Tensor, targets: torch.Tensor) -> None:
    assert outputs.dim() == 2 and targets.shape == outputs.shape, (outputs.shape, targets.shape)


# ---- sums and weights ------------------------------------------------------------------------------------------------


def _exactly(
    criterion: Criterion, outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """The criterion in at least float32: all that is no index in the type of the outputs."""
    assert weights.shape == targets.shape[:1] == outputs.shape[:1], (outputs.shape, targets.shape, weights.shape)
    outputs = outputs if outputs.dtype == torch.float64 else outputs.float()
    targets = targets.to(outputs.dtype) if targets.is_floating_point() else targets
    with torch.autocast(outputs.device.type, enabled=False):
        return criterion(outputs, targets, weights.to(outputs.dtype))


def _cross_entropy(
    class_weights: Weights, smoothing: float, outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, float]:
    losses = cross_entropy(outputs, targets, class_weights, smoothing)
    return (losses * weights).sum(), _weighted(weights, class_weights, targets).sum().item()


def _focal(
    of_one: Weights,
    of_each: Weights,
    gamma: float,
    outputs: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
) -> tuple[torch.Tensor, float]:
    if targets.is_floating_point():
        return _of_cells(partial(sigmoid_focal, gamma=gamma, positive_weights=of_each), outputs, targets, weights)
    weights = _weighted(weights, of_one, targets)
    return (focal(outputs, targets, gamma) * weights).sum(), weights.sum().item()


def _weighted(weights: torch.Tensor, class_weights: Weights, targets: torch.Tensor) -> torch.Tensor:
    return weights if class_weights is None else weights * weights.new_tensor(class_weights)[targets]


def _of_cells(
    losses: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    outputs: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
) -> tuple[torch.Tensor, float]:
    """Every label or number of a row with the row's weight."""
    return (losses(outputs, targets) * weights[:, None]).sum(), weights.sum().item() * outputs.shape[1]


# ---- weights of labels -----------------------------------------------------------------------------------------------


def _class_weights(asked: Any, labels: Sequence[str], counts: Mapping[str, int]) -> Weights:
    """One weight a label; 'balanced' is scikit-learn's n / (C n_c), over the labels that train has.

    A label that no row of train has gets 0: it cannot be learnt, and its validation rows choose no checkpoint.
    """
    if asked != "balanced":
        return _given(asked, labels)
    seen = [counts.get(label, 0) for label in labels]
    if not any(seen):
        cure = "leave it away, or give rows that have labels"
        raise RecipeError("no row of train has a label to balance", where="train.loss.class_weights", cure=cure)
    present = sum(count > 0 for count in seen)
    return tuple(sum(seen) / (present * count) if count else 0.0 for count in seen)


def _positive_weights(asked: Any, labels: Sequence[str], counts: Mapping[str, int], rows: int) -> Weights:
    """One weight a label; 'balanced' is negatives / positives, as torch's documentation of `pos_weight` has it.

    A label that all rows of train have, or none, has nothing to balance and gets 1.
    """
    if asked != "balanced":
        return _given(asked, labels)
    assert rows
    seen = [counts.get(label, 0) for label in labels]
    return tuple((rows - count) / count if 0 < count < rows else 1.0 for count in seen)


def _given(asked: Mapping[str, float] | None, labels: Sequence[str]) -> Weights:
    if asked is None:
        return None
    unknown, missing = sorted(set(asked) - set(labels)), sorted(set(labels) - set(asked))
    if unknown or missing:
        said = [f"names labels that no row has: {_listed(unknown)}"] if unknown else []
        said += [f"lacks {_listed(missing)}"] if missing else []
        cure = f"give one weight for each of the labels {_listed(sorted(labels))}"
        raise RecipeError(" and ".join(said), where="train.loss.class_weights", cure=cure)
    return tuple(asked[label] for label in labels)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(map(repr, names[:8])) + more
