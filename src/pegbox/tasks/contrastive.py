"""InfoNCE over a whole update: each text has to find the one that matches it among all texts of the update.

    s_ij   = cos(q_i, d_j) / temperature
    loss_i = -log( exp(s_ii) / sum over j of exp(s_ij) )        d: the pairs of all rows, d_i that of row i; all negatives

(van den Oord et al. 2018, arXiv 1807.03748; over the batch: Henderson et al. 2017, arXiv 1705.00652.) A column that is
known to be no wrong answer is left out of row i's sum: text i itself, and whatever text is the pair of i or of a text
equal to i. Otherwise rows that share an answer would be taught to part from it.

The more wrong answers, the harder and the more useful, so they are those of the whole update on all ranks, however it is
cut; memory holds the graph of one micro-batch at a time (gradient caching: Gao et al. 2021, arXiv 2101.06983):

1. all vectors e are computed without a graph, and gathered from all ranks; so is g = dloss/de;
2. each micro-batch is computed once more, by the same noise, and the sum of its <e, g> goes backward: which is dloss/dtheta.

There is one difference: the last micro-batch keeps its graph from the first time, so that an update that fits in one is
computed once. Every rank has the whole loss and sends back the part that its own vectors have in it; these parts add up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from pegbox import runtime
from pegbox.models.batch import Batch
from pegbox.runtime import Ranks

QUERY, PAIR, NEGATIVE = ROLES = range(3)  # what a text is in its row
Embed = Callable[[Batch], torch.Tensor]  # the vectors [t, D] of a batch's texts
Objective = Callable[["Texts", slice], tuple[torch.Tensor, float]]  # the loss of some rows among all, and its weight


@dataclass(frozen=True)
class Texts:
    """Texts of some rows: vectors [t, D], `roles` and `keys` int64 [t]. The i-th query and the i-th pair are of one row."""

    vectors: torch.Tensor
    roles: torch.Tensor
    keys: torch.Tensor

    @classmethod
    def of(cls, batch: Batch, vectors: torch.Tensor) -> Texts:
        """Those of a batch."""
        assert batch.roles is not None and batch.keys is not None
        return cls(vectors, batch.roles, batch.keys)

    @classmethod
    def joined(cls, parts: Sequence[Texts]) -> Texts:
        """One behind the other."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in ("vectors", "roles", "keys")))

    def detached(self) -> Texts:
        """The same without a graph."""
        return replace(self, vectors=self.vectors.detach())

    @property
    def rows(self) -> int:
        """How many rows they are of."""
        return int((self.roles == QUERY).sum())

    def gathered(self, ranks: Ranks) -> list[Texts]:
        """Those of every rank, in the order of the ranks."""
        numbers = ranks.gather(torch.stack([self.roles, self.keys], dim=1))
        return [Texts(vectors, *told.T) for vectors, told in zip(ranks.gather(self.vectors), numbers, strict=True)]


def similarities(texts: Texts, temperature: float) -> torch.Tensor:
    """[n, m], the cosine of each query with each pair, then each negative, by the temperature; -inf where none is wrong."""
    with torch.autocast(texts.vectors.device.type, enabled=False):
        query, pair, negative = (functional.normalize(texts.vectors[texts.roles == role]) for role in ROLES)
        found = query @ torch.cat([pair, negative]).T / temperature
        return found.masked_fill(no_wrong_answers(texts), -torch.inf)


def no_wrong_answers(texts: Texts) -> torch.Tensor:
    """bool [n, m]: the texts that a query is not to be told apart from, but for its own pair."""
    query, pair, negative = (texts.keys[texts.roles == role] for role in ROLES)
    every = torch.cat([pair, negative])
    different, number = torch.unique(query, return_inverse=True)
    right = torch.zeros(len(different), len(every), device=every.device)  # of each different query
    right.index_add_(0, number, (pair[:, None] == every).to(right.dtype))
    found = (right > 0)[number] | (query[:, None] == every)
    found[range(len(query)), range(len(query))] = False
    return found


def update(
    embed: Embed,
    objective: Objective,
    batches: Sequence[Batch],
    backward: Callable[[torch.Tensor], None],
    *,
    nothing: torch.Tensor,
    ranks: Ranks,
) -> tuple[float, float]:
    """The loss and weight of this rank's rows among those of all ranks; `backward` is called for each micro-batch.

    `nothing`: the vectors [0, 0] of a rank without a row. Raises OutOfMemoryError on every rank where one has too little.
    """
    parts = ranks.attempt(lambda: _first_pass(embed, batches))
    numbers = torch.empty(0, dtype=torch.long, device=nothing.device)
    own = Texts.joined([part.texts for part in parts] or [Texts(nothing, numbers, numbers)]).detached()
    of_ranks = own.gathered(ranks)
    before, every = of_ranks[: ranks.rank], Texts.joined(of_ranks)
    every.vectors.requires_grad_()
    total, _ = objective(every, slice(0, every.rows))
    (gradient,) = torch.autograd.grad(total, every.vectors)
    start = sum(len(texts.keys) for texts in before)
    _second_pass(embed, parts, gradient[start : start + len(own.keys)], backward)
    first = sum(texts.rows for texts in before)
    with torch.no_grad():
        loss, weight = objective(every, slice(first, first + own.rows))
    return loss.item(), weight


@dataclass(frozen=True)
class _Part:
    """A micro-batch, its texts with their vectors, and from where on their noise was drawn."""

    batch: Batch
    texts: Texts
    noise: tuple[torch.Tensor, ...]


def _first_pass(embed: Embed, batches: Sequence[Batch]) -> list[_Part]:
    """All vectors, those of the last micro-batch with their graph."""
    parts = []
    for place, batch in enumerate(batches, start=1):
        noise = runtime.noise_state(batch.input_ids.device)
        with torch.set_grad_enabled(place == len(batches)):
            parts.append(_Part(batch, Texts.of(batch, embed(batch)), noise))
    return parts


def _second_pass(
    embed: Embed, parts: Sequence[_Part], gradient: torch.Tensor, backward: Callable[[torch.Tensor], None]
) -> None:
    """Send the gradient [t, D] of all vectors back through the model; the graph that is there goes first."""
    shares = gradient.split([len(part.texts.keys) for part in parts])
    for part, share in reversed(list(zip(parts, shares, strict=True))):
        vectors = part.texts.vectors
        if not vectors.requires_grad:
            runtime.draw_again(part.noise, part.batch.input_ids.device)
            vectors = embed(part.batch)
        backward((vectors * share).sum())
