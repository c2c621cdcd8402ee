"""How likely a causal language model is to go on from a prompt with each of some answers.

    l(answer) = sum over t of log p(answer_t | prompt, answer_<t)

What is the same is computed once: the keys and values of the tokens that all prompts begin with, then those of the rest
of each prompt, which all answers share; the answers stand behind them as rows, padded on the right, which a causal model's
real tokens never see. An answer's last token need not be computed on, so one of a single token costs nothing more. A model
with layers that are no attention (recurrent, convolutional) reads prompt and answer whole, one answer at a time.

Shapes: T tokens of a prompt, n answers of at most m tokens, Hk key heads of width D, V the vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Cache, PreTrainedModel

from pegbox.kernels.growing_cache import growing_cache
from pegbox.models.batch import at_least_float32, attends_only
from pegbox.models.prefix_tree import shared_prefix

ANSWERS_AT_ONCE = 64
KEYS_AT_ONCE = 2**15  # the most tokens of all rows of a batch, those of the prompt in every row

KeysAndValues = Sequence[tuple[torch.Tensor, torch.Tensor]]


@torch.inference_mode()
def log_likelihoods(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    advance: Callable[[int], None] = lambda rows: None,
) -> NDArray[np.float64]:
    """float64 [prompts, answers], in nats. Prompts and answers are token ids and not empty; the model is in eval mode."""
    assert not model.training and all(prompts) and all(answers)
    prefix = shared_prefix(prompts) if _keeps(model) else 0
    shared = _read(model, prompts[0][:prefix], [])[1] if prefix else []
    found = np.empty((len(prompts), len(answers)))
    for row, prompt in zip(found, prompts, strict=True):
        row[:] = list(
            _kept(model, prompt[prefix:], answers, shared) if _keeps(model) else _whole(model, prompt, answers)
        )
        advance(1)
    return found


def _keeps(model: PreTrainedModel) -> bool:
    """True where keys and values are all that a model remembers of what it has read."""
    known = inspect.signature(model.forward).parameters
    return attends_only(model) and {"position_ids", "past_key_values", "logits_to_keep"} <= known.keys()


def _kept(
    model: PreTrainedModel, rest: Sequence[int], answers: Sequence[Sequence[int]], shared: KeysAndValues
) -> list[float]:
    """The log-likelihoods behind a prompt, of which the keys and values of all but the `rest` are known."""
    first, columns = _read(model, rest, shared)
    found: dict[int, float] = {}
    for part in _parts(answers, columns[0][0].shape[2]):
        some = [answers[index] for index in part]
        found |= dict(zip(part, _behind(model, some, first, columns), strict=True))
    return [found[index] for index in range(len(answers))]


def _parts(answers: Sequence[Sequence[int]], tokens: int) -> Iterator[list[int]]:
    """The indices of answers of like length, so that little is padded, as many at once as memory asks for."""
    left = sorted(range(len(answers)), key=lambda index: len(answers[index]))
    while left:
        most = max(1, min(ANSWERS_AT_ONCE, KEYS_AT_ONCE // tokens))
        longest = len(answers[left[0]]) * 3 // 2
        part = [index for index in left[:most] if len(answers[index]) <= longest]
        yield part
        left = left[len(part) :]


def _read(model: PreTrainedModel, ids: Sequence[int], before: KeysAndValues) -> tuple[torch.Tensor, KeysAndValues]:
    """The log-probabilities [V] of what follows ids, and the keys and values [1, Hk, T, D] of each layer by then."""
    cache = _cache(before, 1)
    logits = _forward(model, [ids], cache, logits_to_keep=1)
    layers: list[Any] = cache.layers
    return logits[0, -1].log_softmax(-1), [(layer.keys, layer.values) for layer in layers]


def _behind(
    model: PreTrainedModel, answers: Sequence[Sequence[int]], first: torch.Tensor, columns: KeysAndValues
) -> list[float]:
    """The log-likelihoods of some answers behind what was read."""
    found: list[float] = first[[answer[0] for answer in answers]].double().tolist()
    size = max(map(len, answers)) - 1
    if size == 0:
        return found
    ids = [[*answer[:-1], *[0] * (size + 1 - len(answer))] for answer in answers]
    steps = _forward(model, ids, _cache(columns, len(answers))).log_softmax(-1)
    return [begun + _sum(step, answer[1:]) for begun, step, answer in zip(found, steps, answers, strict=True)]


def _whole(model: PreTrainedModel, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> Iterator[float]:
    """The log-likelihoods behind a prompt that is read anew for each answer."""
    for answer in answers:
        ids = torch.tensor([[*prompt, *answer[:-1]]], device=model.device)
        logits = at_least_float32(model(ids, use_cache=False).logits[0, len(prompt) - 1 :])
        yield _sum(logits.log_softmax(-1), answer)


def _forward(model: PreTrainedModel, ids: Sequence[Sequence[int]], cache: Cache, **options: Any) -> torch.Tensor:
    """The logits [n, ids, V], at least float32, of rows of ids behind a cache that grows by them."""
    begun = cache.get_seq_length()
    positions = torch.arange(begun, begun + len(ids[0]), device=model.device).expand(len(ids), -1)
    given = torch.tensor([list(row) for row in ids], device=model.device)
    out = model(given, position_ids=positions, past_key_values=cache, use_cache=True, **options)
    return at_least_float32(out.logits)


def _cache(columns: KeysAndValues, rows: int) -> Cache:
    """A cache of so many rows, each with the same columns [1, Hk, T, D] in each layer."""
    cache = growing_cache()
    for layer, (keys, values) in enumerate(columns):
        cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)
    return cache


def _sum(log_p: torch.Tensor, tokens: Sequence[int]) -> float:
    """The sum of the log-probabilities [t, V] of the first tokens."""
    places = torch.arange(len(tokens), device=log_p.device)
    return log_p[places, list(tokens)].double().sum().item()
