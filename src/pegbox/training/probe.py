"""A probe: the forward and backward pass of some rows as an update would take them, for what it costs.

Nothing is changed by it: no optimizer steps, gradients are dropped, noise and buffers are put back.

What a batch has to do is counted in operations, so that the seconds of another can be told from those of two:

    seconds = fixed * batches + work / rate        work = a T + b N + c pairs

T tokens, N that are learnt (the head is computed there alone), pairs of tokens that see each other in attention; a, b and c
follow from the model's shape: two operations a weight forward, two for the inputs' gradient, two more where it learns.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from pegbox import runtime
from pegbox.data.records import Example
from pegbox.models.batch import Batch
from pegbox.models.heads import output_layer
from pegbox.models.quantization import count
from pegbox.runs.checkpoint import trainable
from pegbox.runtime import OutOfMemoryError, Ranks
from pegbox.tasks import Task
from pegbox.training.measured import Cost, dearest, measure
from pegbox.training.plan import Plan

AGAIN = 4.0  # seconds of a single micro-batch: what takes less is tried twice
# how far gradients computed in two ways may be apart, as a share of their length: in float32 and in bfloat16
ALIKE = {False: 1e-4, True: 3e-2}


@dataclass(frozen=True)
class Piece:
    """A micro-batch: its examples, and the same as tensors."""

    examples: Sequence[Example]
    batch: Batch

    @property
    def tokens(self) -> int:
        """The tokens that are computed, padding included."""
        written = self.batch.target_ids
        return self.batch.input_ids.numel() + (0 if written is None else written.numel())

    @property
    def pairs(self) -> int:
        """The pairs of tokens that see each other; in a padded batch all are computed."""
        if self.batch.layout is None:
            return self.tokens * self.batch.input_ids.shape[1]
        return sum(len(example) ** 2 for example in self.examples) // 2


@dataclass(frozen=True)
class Work:
    """Operations of a model for each token, for each learnt token, for each pair; and the share of the way forward."""

    token: float
    learnt: float
    pair: float
    forward: float

    @classmethod
    def of(cls, model: PreTrainedModel, *, recomputed: bool = False) -> Work:
        """The model's, as its weights learn now."""
        head: Any = output_layer(model)
        last: torch.nn.Parameter | None = None if head is None else head.weight
        embedded = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
        inside = [p for p in model.parameters() if p.ndim == 2 and id(p) not in embedded and p is not last]
        ways = 4 if recomputed else 2
        token = sum((ways + 2 + 2 * p.requires_grad) * count(p) for p in inside)
        config = model.config.get_text_config()
        pair = 2.0 * (ways + 4) * config.num_hidden_layers * config.hidden_size
        learnt = 0 if last is None else (4 + 2 * last.requires_grad) * count(last)
        return cls(token, learnt, pair, 2 * sum(map(count, inside)) / max(1, token))

    def __call__(self, piece: Piece) -> float:
        """The operations of a micro-batch, forward and backward."""
        return self.token * piece.tokens + self.learnt * len(piece.batch.places) + self.pair * piece.pairs


def kept_of_a_token(model: PreTrainedModel) -> int:
    """Bytes that a learnt token keeps for the way back, roughly, from the model's shape.

    In each layer 16 vectors of the hidden size and 6 of the intermediate; the logits three times.
    """
    config = model.config.get_text_config()
    inside = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    return int(4 * (config.num_hidden_layers * (16 * config.hidden_size + 6 * inside) + 3 * config.vocab_size))


@dataclass(frozen=True)
class Tried:
    """What some micro-batches of one update cost: the bytes of all, the seconds of the last."""

    pieces: Sequence[Piece]
    cost: Cost

    @property
    def tokens(self) -> int:
        """Of the largest."""
        return max(piece.tokens for piece in self.pieces)

    def last(self, work: Work) -> tuple[float, float]:
        """The work and the seconds of the last of them."""
        return work(self.pieces[-1]), self.cost.seconds


@dataclass(frozen=True)
class Line:
    """A straight line that neither starts below zero nor falls."""

    start: float
    slope: float

    @classmethod
    def through(cls, points: Sequence[tuple[float, float]]) -> Line:
        """Through the first and the last of points in ascending order; through the origin where these are one."""
        (x1, y1), (x2, y2) = points[0], points[-1]
        if x2 <= x1:
            return cls(0.0, max(0.0, y2) / max(x2, 1))
        slope = max(0.0, y2 - y1) / (x2 - x1)
        return cls(max(0.0, y2 - slope * x2), slope)

    def __call__(self, x: float) -> float:
        """The height at x."""
        return self.start + self.slope * x


def some_of(count: int, most: int) -> list[int]:
    """At most so many of the first `count` numbers, evenly spread."""
    return [index * count // min(count, most) for index in range(min(count, most))]


@dataclass(frozen=True)
class Probe:
    """The model and the task that are tried."""

    model: PreTrainedModel
    task: Task
    seed: int
    bf16: bool
    ranks: Ranks

    def piece(self, examples: Sequence[Example], plan: Plan) -> Piece:
        """Some examples as one micro-batch of update 0."""
        drawn = [self.task.drawn(example, 0) for example in examples]
        return Piece(drawn, self.task.collate(drawn, packed=plan.packed, share_prefix=plan.share_prefix))

    def update(self, pieces: Sequence[Piece]) -> Cost:
        """What the pieces of one update cost on the rank where they cost most: their bytes, and the seconds of the last.

        A first one takes longer, for pages are new and the libraries make their code ready. Where there is no other, and it is
        short, it is tried again. Raises OutOfMemoryError, on all ranks.
        """
        cost = self._tried(pieces)
        if len(pieces) > 1 or cost.seconds >= AGAIN:
            return cost
        again = self._tried(pieces)
        return Cost(again.seconds, max(cost.memory, again.memory))

    def _tried(self, pieces: Sequence[Piece]) -> Cost:
        def tried() -> Cost:
            ends = [time.perf_counter()]
            with untouched(self.model):
                cost = measure(self.model.device, lambda: self.gradient(pieces, ends))
            # a task whose loss couples the rows of an update may go back otherwise than piece by piece
            piecewise = len(ends) == 1 + len(pieces)
            return replace(cost, seconds=ends[-1] - ends[-2] if piecewise else cost.seconds / len(pieces))

        return dearest(self.ranks, self.ranks.attempt(tried))

    def gradient(self, pieces: Sequence[Piece], ends: list[float] | None = None) -> None:
        """Leave the gradient of the pieces' loss in the parameters, as update 0 would; `ends`: add when each was computed."""
        drop_gradients(self.model)
        self.model.train()
        runtime.seed_noise(self.seed, 0, self.ranks.rank)
        device = self.model.device

        def backward(loss: torch.Tensor) -> None:
            loss.backward()
            if ends is not None:
                runtime.synchronize(device)
                ends.append(time.perf_counter())

        with torch.enable_grad(), runtime.autocast(device, self.bf16):  # whoever asks may have it off
            self.task.update_loss(self.model, [piece.batch.to(device) for piece in pieces], backward)

    def is_alike(self, piece: Piece, switch: Callable[[bool], None]) -> bool:
        """Switch on another way to compute; whether the gradient is what it was.

        Where it is not, where the model cannot or memory ran out, it is off again.
        """
        try:
            alike = self.ranks.attempt(lambda: self._is_alike(piece, switch))
        except OutOfMemoryError:
            alike = False
        if self.ranks.sum(float(not alike))[0]:
            switch(False)
            return False
        return True

    def _is_alike(self, piece: Piece, switch: Callable[[bool], None]) -> bool:
        plain = self._gradients([piece])
        try:
            switch(True)
            again = self._gradients([piece])
        except (TypeError, ValueError, RuntimeError) as error:  # layers that hand on to each other what is not kept
            if runtime.is_out_of_memory(error):
                raise
            return False
        apart = sum(float((one - other).norm()) for one, other in zip(plain, again, strict=True))
        return apart <= ALIKE[self.bf16] * sum(float(one.norm()) for one in plain)

    def _gradients(self, pieces: Sequence[Piece]) -> list[torch.Tensor]:
        """Of each parameter that learns; zero where it has none."""
        with untouched(self.model):
            self.gradient(pieces)
            learnt = trainable(self.model).values()
            return [torch.zeros_like(p) if p.grad is None else p.grad for p in learnt]


def drop_gradients(model: PreTrainedModel) -> None:
    """As before the first update."""
    for parameter in model.parameters():
        parameter.grad = None


@contextlib.contextmanager
def untouched(model: PreTrainedModel) -> Iterator[None]:
    """Afterwards the model and all generators are what they were, and there are no gradients."""
    noise, others, more = runtime.noise_state(model.device), np.random.get_state(), random.getstate()
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    training = model.training
    try:
        yield
    finally:
        drop_gradients(model)
        # torch holds on to a graph whose way back failed until it goes another (pytorch/pytorch, issue 82218)
        with torch.enable_grad():
            torch.zeros((), device=model.device, requires_grad=True).backward()
        model.train(training)
        with torch.no_grad():
            for buffer, before in buffers:
                if buffer.shape == before.shape:
                    buffer.copy_(before)
        runtime.draw_again(noise, model.device)
        np.random.set_state(others)
        random.setstate(more)
