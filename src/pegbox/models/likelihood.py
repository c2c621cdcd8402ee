"""How likely a causal language model is to go on from a prompt with each of some answers.

    l(answer) = sum over t of log p(answer_t | prompt, answer_<t)

What is the same is computed once: the tokens that prompts begin with (`models.waiting`), the rest of each prompt, which all
answers share, and the answers behind it. Prompts are read several at a time, padded on the left; then answers stand behind
them as rows, those of several prompts together, padded on the right, which a causal model's real tokens never see. An
answer's last token need not be computed on, so one of a single token costs nothing more. A model with layers that are no
attention (recurrent, convolutional) reads prompt and answer whole, one answer at a time.

Shapes: n rows, S columns of the longest prompt of a batch, m tokens of the longest answer, Hk key heads of width D, V the
vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from pegbox.models.aside import known_aside
from pegbox.models.batch import at_least_float32
from pegbox.models.decoding import Row, Rows, batches, half
from pegbox.models.waiting import Waiting

PROMPTS_AT_ONCE = 32
ANSWERS_AT_ONCE = 128
KEYS_AT_ONCE = 2**15  # the most tokens of all rows of a batch, those of the prompt in every row


@torch.inference_mode()
def log_likelihoods(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    advance: Callable[[int], None] = lambda rows: None,
) -> NDArray[np.float64]:
    """float64 [prompts, answers], in nats. Prompts and answers are token ids and not empty; the model is in eval mode."""
    assert not model.training and all(prompts) and all(answers)
    found = np.empty((len(prompts), len(answers)))
    if not batches(model):
        for row, prompt in zip(found, prompts, strict=True):
            row[:] = list(_whole(model, prompt, answers))
            advance(1)
        return found
    waiting = Waiting(model, [Row(list(prompt), index) for index, prompt in enumerate(prompts)])
    with known_aside(model, waiting) as aside:
        most = PROMPTS_AT_ONCE
        while waiting:
            rows = Rows(model, min(most, len(waiting)), aside)
            try:
                group = waiting.next(rows.slots)
                first = rows.join(group).log_softmax(-1)
                found[[row.index for row in group]] = _behind(rows, first, answers)
            except Exception as error:
                most = half(error, rows.asked)
            else:
                waiting.joined(group)
                advance(len(group))
    return found


def _behind(rows: Rows, first: torch.Tensor, answers: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """float64 [n, answers] behind rows that were read, whose next tokens have log-probabilities `first` [n, V]."""
    found: NDArray[np.float64] = first[:, [answer[0] for answer in answers]].double().cpu().numpy()
    pairs = [(row, index) for index, answer in enumerate(answers) if len(answer) > 1 for row in range(len(first))]
    pairs.sort(key=lambda pair: len(answers[pair[1]]))
    while pairs:
        part = _part(pairs, answers, rows.end - rows.start)
        steps = rows.beside([row for row, _ in part], [answers[index][:-1] for _, index in part]).log_softmax(-1)
        for (row, index), step in zip(part, steps, strict=True):
            found[row, index] += _sum(step, answers[index][1:])
        pairs = pairs[len(part) :]
    return found


def _part(
    pairs: Sequence[tuple[int, int]], answers: Sequence[Sequence[int]], columns: int
) -> Sequence[tuple[int, int]]:
    """The first pairs of row and answer, of like length, so that little is padded, as many as memory asks for."""
    most = max(1, min(ANSWERS_AT_ONCE, KEYS_AT_ONCE // columns))
    longest = len(answers[pairs[0][1]]) * 3 // 2
    return [pair for pair in pairs[:most] if len(answers[pair[1]]) <= longest]


def _whole(model: PreTrainedModel, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> Iterator[float]:
    """The log-likelihoods behind a prompt that is read anew for each answer."""
    for answer in answers:
        ids = torch.tensor([[*prompt, *answer[:-1]]], device=model.device)
        logits = at_least_float32(model(ids, use_cache=False).logits[0, len(prompt) - 1 :])
        yield _sum(logits.log_softmax(-1), answer)


def _sum(log_p: torch.Tensor, tokens: Sequence[int]) -> float:
    """The sum of the log-probabilities [t, V] of the first tokens."""
    places = torch.arange(len(tokens), device=log_p.device)
    return log_p[places, list(tokens)].double().sum().item()
