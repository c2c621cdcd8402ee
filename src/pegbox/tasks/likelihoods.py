"""How likely a text is: the answers of tasks of which the text itself is the target, judged by perplexity.

    {"nll": nats over the scored tokens, "tokens": how many these are}

Their trivial rival knows how often each token occurs in train, add-one smoothed over a vocabulary of V:

    p(token) = (count + 1) / (all counts + V)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch.nn.functional import cross_entropy

Likelihood = dict[str, float]


def likelihood(logits: torch.Tensor, targets: torch.Tensor) -> Likelihood:
    """Of one text, from logits [N, V] and targets [N]; summed in float64."""
    losses = cross_entropy(logits, targets, reduction="none")
    return {"nll": losses.double().sum().item(), "tokens": len(losses)}


def unigram(train: Iterable[Sequence[int]], test: Sequence[Sequence[int]], vocabulary: int) -> tuple[Likelihood, ...]:
    """Of each text of `test` (its scored tokens), by the frequencies of the tokens of `train`."""
    counts = Counter(token for text in train for token in text)
    total = counts.total() + vocabulary
    return tuple(
        {"nll": -sum(math.log((counts[token] + 1) / total) for token in text), "tokens": len(text)} for text in test
    )
