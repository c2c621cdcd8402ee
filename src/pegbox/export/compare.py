"""Is an export the model that was measured? What both say to the same rows, held against each other.

    largest difference    max |a - b| over all logits compared
    mean KL               mean over places of the divergence, in nats, of what the logits mean:
        one of several        sum p (log p - log q),  p = softmax
        each by itself        the same of each label and its absence, summed,  p = sigmoid
        numbers               (a - b)^2 / 2 summed, of normal distributions of deviation 1 around them

The KL is what a reader of the answers can notice; a shift of all logits, say, changes nothing in the first case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from pegbox.export.probe import Said

ROUNDING = 1e-3  # of float32 in another order of summation, as a share of the largest logit


@dataclass(frozen=True)
class Difference:
    """How far an export is from the model that was measured, over `places` compared.

    `answers` that were asked for, how many are `other`, and of how many of those less than rounding decides (`close`).
    `serving`: what it is served with that is not as it was.
    """

    places: int
    largest: float
    scale: float
    mean_kl: float
    answers: int
    other: int
    close: int
    serving: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """For `export.json`."""
        return {
            "places": self.places,
            "largest_difference": self.largest,
            "largest_logit": self.scale,
            "mean_kl": self.mean_kl,
            "answers": self.answers,
            "answers_that_differ": self.other,
        }


Divergence = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def difference(measured: Said, exported: Said, close: Sequence[bool], kl: Divergence) -> Difference:
    """Hold what an export says against what the measured model said; `close[i]`: rounding may turn answer i."""
    pairs = list(zip(measured.logits, exported.logits, strict=True))
    assert all(ours.shape == theirs.shape for ours, theirs in pairs)
    divergence = torch.cat([kl(ours.double(), theirs.double()) for ours, theirs in pairs])
    answered = list(zip(measured.answers, exported.answers, strict=True))
    other = [index for index, (ours, theirs) in enumerate(answered) if list(ours) != list(theirs)]
    return Difference(
        places=len(divergence),
        largest=max(float((ours - theirs).abs().max()) for ours, theirs in pairs),
        scale=max(float(ours.abs().max()) for ours, _ in pairs),
        mean_kl=float(divergence.mean()),
        answers=len(answered),
        other=len(other),
        close=sum(close[index] for index in other),
        serving=[WORDS[key] for key, value in measured.serving.items() if exported.serving.get(key) != value],
    )


WORDS = {
    "tokens": "texts become other tokens",
    "template": "the chat template is another",
    "stop_ids": "answers end at other tokens",
}


def categorical(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """[places] of logits [places, V] over what excludes each other."""
    p, q = ours.log_softmax(-1), theirs.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def _each_by_itself(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """[places] of logits [places, K] of labels that may all be there."""
    signs = ((ours, theirs), (-ours, -theirs))
    return sum((p.sigmoid() * (logsigmoid(p) - logsigmoid(q))).sum(-1) for p, q in signs)  # type: ignore[return-value]


def _numbers(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """[places] of numbers [places, K]."""
    return ((ours - theirs).square() / 2).sum(-1)


# Transformers' name for what a head's outputs mean, else the head -> their divergence
OUTPUTS: Mapping[str | None, Divergence] = {
    "multi_label_classification": _each_by_itself,
    "regression": _numbers,
    "embedding": _numbers,
}


def fault(found: Difference, mean_kl: float | None, *, exact: bool) -> str | None:
    """Why an export is not the model that was measured; None where it is, or nothing is promised (`mean_kl` None).

    `exact`: it computes in float32 with the same numbers, so that answers may turn only where rounding decides.
    """
    if found.serving:
        return "; ".join(found.serving)
    if mean_kl is not None and not found.mean_kl <= mean_kl:
        return f"its outputs diverge by {found.mean_kl:.3g} nats on average, and {mean_kl:g} are allowed"
    if exact and not found.largest <= ROUNDING * max(found.scale, 1.0):
        return f"a logit differs by {found.largest:.3g}, of {found.scale:.3g}"
    if exact and found.other > found.close:
        return f"{found.other} of {found.answers} greedy answers differ"
    return None
