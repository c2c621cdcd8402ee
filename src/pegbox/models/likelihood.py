"""How likely a causal language model is to go on from a prompt with each of some answers, or with a text of its own.

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

import itertools
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
LOGITS_AT_ONCE = 2**26  # the most logits

Advance = Callable[[int], None]
Answers = Sequence[Sequence[int]]


def log_likelihoods(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    advance: Advance = lambda rows: None,
) -> NDArray[np.float64]:
    """float64 [prompts, answers], in nats. Prompts and answers are token ids and not empty; the model is in eval mode."""
    return np.stack([np.empty(len(answers)), *_of_each(model, prompts, [answers] * len(prompts), advance)])[1:]


def text_log_likelihoods(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    texts: Sequence[Sequence[int]],
    advance: Advance = lambda rows: None,
) -> NDArray[np.float64]:
    """float64 [n], in nats: of each text behind the prompt of its own."""
    return np.array([found.item() for found in _of_each(model, prompts, [[text] for text in texts], advance)])


@torch.inference_mode()
def _of_each(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], answers: Sequence[Answers], advance: Advance
) -> list[NDArray[np.float64]]:
    """Of each prompt, float64 [its answers]."""
    assert not model.training and all(prompts) and all(map(all, answers))
    found = [np.empty(0)] * len(prompts)
    if not batches(model):
        for index, (prompt, own) in enumerate(zip(prompts, answers, strict=True)):
            found[index] = np.array(list(_whole(model, prompt, own)))
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
                for row, its in zip(group, _behind(rows, first, [answers[row.index] for row in group]), strict=True):
                    found[row.index] = its
            except Exception as error:
                most = half(error, rows.asked)
            else:
                waiting.joined(group)
                advance(len(group))
    return found


def _behind(rows: Rows, first: torch.Tensor, answers: Sequence[Answers]) -> list[NDArray[np.float64]]:
    """Of each row that was read, float64 [its answers]; its next token has the log-probabilities `first` [n, V]."""
    found = [
        step[[answer[0] for answer in own]].double().cpu().numpy() for step, own in zip(first, answers, strict=True)
    ]
    pairs = [(row, index) for row, own in enumerate(answers) for index, answer in enumerate(own) if len(answer) > 1]
    pairs.sort(key=lambda pair: len(answers[pair[0]][pair[1]]))
    while pairs:
        part = _part([len(answers[row][index]) for row, index in pairs], rows.end - rows.start, first.shape[-1])
        continued = [answers[row][index] for row, index in pairs[:part]]
        steps = rows.beside([row for row, _ in pairs[:part]], [answer[:-1] for answer in continued]).log_softmax(-1)
        for (row, index), step, answer in zip(pairs, steps, continued, strict=False):
            found[row][index] += _sum(step, answer[1:])
        pairs = pairs[part:]
    return found


def _part(lengths: Sequence[int], columns: int, vocabulary: int) -> int:
    """How many of the next answers, of these ascending lengths, are computed at once: of like length, so that little is
    padded, and as many as memory asks for."""
    most, longest = min(ANSWERS_AT_ONCE, KEYS_AT_ONCE // columns), lengths[0] * 3 // 2
    fitting = itertools.takewhile(
        lambda length: length[1] <= longest and length[0] * length[1] * vocabulary <= LOGITS_AT_ONCE,
        enumerate(lengths[: max(1, most)], start=1),
    )
    return max(1, len(list(fitting)))


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
