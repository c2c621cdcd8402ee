"""The losses that a recipe can ask for, and which of them fits which task. The maths is in `pegbox.tasks.losses`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from pegbox.recipe.own import as_reference, is_own, split
from pegbox.recipe.values import Amount, ClassWeights, Frozen, Number

WEIGHTS = "a weight for each label, or 'balanced': from how often train has it; default: none"


class CrossEntropy(Frozen):
    """-log of the probability of the right label, tag or token."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: Number = Field(
        default=0.0, ge=0, lt=1, description="share of the target that is spread over all labels (arXiv 1512.00567)"
    )
    class_weights: ClassWeights = Field(default=None, description=WEIGHTS)


class Focal(Frozen):
    """Cross-entropy in which what is already right counts for less (Lin et al. 2017, arXiv 1708.02002)."""

    kind: Literal["focal"] = "focal"
    gamma: Number = Field(default=2.0, ge=0, description="how much less; 0 is cross-entropy")
    class_weights: ClassWeights = Field(default=None, description=WEIGHTS)


class BinaryCrossEntropy(Frozen):
    """Cross-entropy of each label by itself: is it there or not."""

    kind: Literal["binary_cross_entropy"] = "binary_cross_entropy"
    class_weights: ClassWeights = Field(
        default=None,
        description="what each label's presence weighs against its absence, or 'balanced': negatives / positives of "
        "train; default: none",
    )


class MSE(Frozen):
    """The squared error, in squared standard deviations of the target."""

    kind: Literal["mse"] = "mse"


class MAE(Frozen):
    """The absolute error, in standard deviations of the target: outliers pull less."""

    kind: Literal["mae"] = "mae"


class Huber(Frozen):
    """Half the squared error up to `delta`, and straight on from there (Huber 1964)."""

    kind: Literal["huber"] = "huber"
    delta: Amount = Field(default=1.0, description="where it turns, in standard deviations of the target")


class InfoNCE(Frozen):
    """-log of the share of the right text among all texts of the update (van den Oord et al. 2018, arXiv 1807.03748)."""

    kind: Literal["info_nce"] = "info_nce"


class Cosine(Frozen):
    """The squared error of the cosine of two texts against their score."""

    kind: Literal["cosine"] = "cosine"


def _formed(reference: str) -> str:
    split(reference)
    return reference


OwnReference = Annotated[str, AfterValidator(_formed)]


class OwnLoss(Frozen):
    """A function of your own: `loss(outputs, targets, weights) -> (sum, weight)`; see the guide to losses."""

    kind: Literal["own"] = "own"
    function: OwnReference = Field(description="PATH.py:NAME; the path is relative to the recipe")


def _whole(value: Any) -> Any:
    """A plain string stands for a kind, or for a function of one's own; so does the function itself."""
    value = as_reference(value)
    if not isinstance(value, str):
        return value
    return {"kind": "own", "function": value} if is_own(value) else {"kind": value}


BuiltIn = CrossEntropy | Focal | BinaryCrossEntropy | MSE | MAE | Huber | InfoNCE | Cosine
Loss = BuiltIn | OwnLoss
_Tagged = Annotated[Loss, Field(discriminator="kind")]
LossOrNone = Annotated[_Tagged | None, BeforeValidator(_whole, json_schema_input_type=str | _Tagged | None)]

# task kind -> the losses that fit it, the task's own first; a function of the user's fits all
FITTING: Mapping[str, tuple[type[BuiltIn], ...]] = {
    "chat": (CrossEntropy,),
    "completion": (CrossEntropy,),
    "classification": (CrossEntropy, Focal),
    "multilabel": (BinaryCrossEntropy, Focal),
    "regression": (MSE, MAE, Huber),
    "token_classification": (CrossEntropy, Focal),
    "masked_lm": (CrossEntropy,),
    "seq2seq": (CrossEntropy,),
    "embedding": (InfoNCE, Cosine),
}
UNLABELLED = ("chat", "completion", "masked_lm", "seq2seq")  # tasks whose classes are the tokens of the vocabulary


def refuse_misfit(loss: Loss | None, task: str) -> None:
    """Raise ValueError, with the cure, where a loss cannot serve a task."""
    if loss is None or isinstance(loss, OwnLoss):
        return
    if not isinstance(loss, FITTING[task]):
        kinds = ", ".join(f"{kind.model_fields['kind'].default}" for kind in FITTING[task])
        others = f"take {kinds} or a function of your own (./my_loss.py:name)"
        raise ValueError(f"train.loss: {loss.kind} does not fit task: {task}; {others}")
    if task in UNLABELLED and isinstance(loss, CrossEntropy) and loss.class_weights is not None:
        raise ValueError(
            f"train.loss.class_weights has no effect with task: {task}, which has no labels; leave it away"
        )
