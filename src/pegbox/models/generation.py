"""Batched greedy decoding in which each row gets the answer that it gets alone.

Rows that have said their stop token leave the batch at once, and prompts that wait take their places, several at a time
(`models.decoding` says how rows are laid out). What prompts begin with is computed once for all that do
(`models.waiting`). A model that left padding would change (recurrent, convolutional, positions from elsewhere) answers
row by row instead, by Transformers' own loop.

How many rows are answered at once memory says; where it was too much all the same, half as many go on, from the tokens
that they have.

`stream` gives one answer token by token, by the same loop with one row; it can go on from the keys and values that the
turn before has left (`Kept`). What is drawn at random is drawn by Transformers, with the model's own settings.

Floating-point sums depend on the shape of a batch, so a row whose two best logits were ever closer than `CLOSE` could
have gone the other way alone: such rows are counted, not hidden.

Shapes: n rows, Hk key heads of width D, V the vocabulary.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel

from pegbox import runtime
from pegbox.models import transformers_loop
from pegbox.models.aside import known_aside
from pegbox.models.decoding import NOTHING, Known, Row, Rows, affordable, batches, half
from pegbox.models.positions import writable
from pegbox.models.prefix_tree import shared_prefix
from pegbox.models.waiting import Waiting

CLOSE = 1e-4
AT_ONCE = 128  # rows; more of them gain little (docs/log.md)
REFILL = 8  # rows join when this part of the places is free, so that they join several at a time


@dataclass
class Answer:
    """What was generated for one prompt. `margin`: the least distance of the two best logits on the way."""

    input_ids: list[int] = field(default_factory=list)
    stopped: bool = False
    margin: float = float("inf")

    def add(self, token: int, margin: float, stop_ids: frozenset[int]) -> None:
        """Note the next token, or that it was a stop token, which is not kept."""
        self.margin = min(self.margin, margin)
        self.stopped = token in stop_ids
        if not self.stopped:
            self.input_ids.append(token)


@dataclass
class Kept:
    """Keys and values of the `ids` that a model has seen last, for a prompt that begins with the same."""

    ids: Sequence[int] = ()
    known: Known = NOTHING

    def shared_with(self, prompt: Sequence[int]) -> Known:
        """What need not be computed again."""
        prefix = shared_prefix([self.ids, prompt]) if self.known.length else 0
        return Known(prefix, self.known.between(0, prefix)) if prefix else NOTHING


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    stop_ids: frozenset[int],
    max_new_tokens: int,
    batch_size: int = AT_ONCE,
    advance: Callable[[int], None] = lambda rows: None,
) -> list[Answer]:
    """The greedy answer to each prompt (without its stop token), in the order of the prompts.

    At most `batch_size` rows are answered at once, fewer where memory has no room for their keys and values. `advance` is
    told how many rows were finished. Prompts are token ids and not empty; the model is in eval mode.

    Raises OutOfMemoryError where memory has no room for a single row.
    """
    assert not model.training and all(prompts)
    if not batches(model):
        return [_alone(model, prompt, stop_ids, max_new_tokens, advance) for prompt in prompts]
    answers = [Answer() for _ in prompts]
    if max_new_tokens < 1 or not prompts:
        advance(len(prompts))
        return answers
    rows = [Row(list(prompt), at, _most(model, prompt, max_new_tokens)) for at, prompt in enumerate(prompts)]
    waiting = Waiting(model, rows)
    with known_aside(model, waiting) as aside:
        longest = max(len(row.ids) + row.left for row in rows) - aside.length
        slots = min(batch_size, len(prompts), affordable(model, longest))
        for finished in _all(Rows(model, slots, aside), waiting, answers, stop_ids):
            advance(finished)
    return answers


@torch.inference_mode()
def stream(
    model: PreTrainedModel,
    prompt: Sequence[int],
    *,
    stop_ids: frozenset[int],
    max_new_tokens: int,
    do_sample: bool = False,
    kept: Kept | None = None,
) -> Generator[int, None, None]:
    """The tokens of one answer as they come, without its stop token: those of `generate`, to rounding.

    With `kept` what the prompt has in common with the turn before is not computed again (greedy answers of models that
    answer in batches). `do_sample` draws with the model's own generation settings (temperature, top_p, ...), from
    torch's global generator, as Transformers does: seed that for the same answer again.
    """
    assert not model.training and prompt
    most = _most(model, prompt, max_new_tokens)
    if do_sample or not batches(model):
        yield from transformers_loop.stream(model, prompt, stop_ids, most, do_sample=do_sample)
        return
    kept = Kept() if kept is None else kept
    rows, answer = Rows(model, 1), Answer()
    row = Row(list(prompt), left=most, known=kept.shared_with(prompt))
    while row.left:
        logits = rows.step() if rows.live else rows.join([row])
        # an answer may be left at any point: only the columns that are in every layer by now are claimed
        kept.ids, kept.known = tuple(row.ids), rows.columns(0)
        _hear(logits, [row], [answer], stop_ids)
        if not answer.stopped:
            yield row.ids[-1]


def room(model: PreTrainedModel, prompt: Sequence[int]) -> int:
    """How many tokens may follow a prompt: until the model's positions end, behind which the last is not given to it."""
    positions = writable(model.config)
    return sys.maxsize if positions is None else positions - len(prompt) + 1


def _most(model: PreTrainedModel, prompt: Sequence[int], max_new_tokens: int) -> int:
    return min(max_new_tokens, max(1, room(model, prompt)))


def best(logits: torch.Tensor) -> tuple[torch.Tensor, list[float]]:
    """The likeliest token of each row, int64 [n], of equals the first; and how far the second best is behind it.

    Where that is not a number (logits that are not finite) it counts as nothing, so that the row is seen to be close.
    """
    best = logits.topk(2, dim=-1).values
    margins: list[float] = (best[:, 0] - best[:, 1]).nan_to_num(0.0).tolist()
    return logits.argmax(-1), margins


def _all(rows: Rows, waiting: Waiting, answers: Sequence[Answer], stop_ids: frozenset[int]) -> Iterator[int]:
    """Answers all rows that wait; yields how many were finished. Where memory is short, half as many go on."""
    while waiting or rows.live:
        try:
            yield from _on(rows, waiting, answers, stop_ids)
        except Exception as error:
            slots, going = half(error, rows.asked), [row for row in rows.live if row.left]
            yield len(rows.live) - len(going)  # memory may have been short when rows that have finished were to leave
            waiting.back(going)
            rows = Rows(rows.model, slots, rows.aside)
        else:
            return
        runtime.release_memory()


def _on(rows: Rows, waiting: Waiting, answers: Sequence[Answer], stop_ids: frozenset[int]) -> Iterator[int]:
    """The one loop: rows join where several places are free, or every row gets its next token."""
    while waiting or rows.live:
        heard = list(rows.live)
        if waiting and rows.free >= min(len(waiting), max(1, rows.slots // REFILL)):
            heard = waiting.next(rows.free)
            logits = rows.join(heard)
            waiting.joined(heard)
        else:
            logits = rows.step()
        first = len(rows.live) - len(heard)
        _hear(logits, heard, [answers[row.index] for row in heard], stop_ids)
        finished = [place for place, row in enumerate(heard, start=first) if not row.left]
        rows.leave(finished)
        yield len(finished)


def _hear(logits: torch.Tensor, rows: Sequence[Row], answers: Sequence[Answer], stop_ids: frozenset[int]) -> None:
    """Give each row its next token, by its logits [n, V]."""
    tokens, margins = best(logits)
    for row, answer, token, margin in zip(rows, answers, tokens.tolist(), margins, strict=True):
        answer.add(token, margin, stop_ids)
        row.ids.append(token)
        row.left = 0 if answer.stopped else row.left - 1


def _alone(
    model: PreTrainedModel,
    prompt: Sequence[int],
    stop_ids: frozenset[int],
    max_new_tokens: int,
    advance: Callable[[int], None],
) -> Answer:
    """The greedy answer to one prompt by Transformers' own loop."""
    answer, most = Answer(), _most(model, prompt, max_new_tokens)
    for logits in transformers_loop.greedy_logits(model, prompt, stop_ids, most):
        tokens, margins = best(logits)
        answer.add(int(tokens), margins[0], stop_ids)
    advance(1)
    return answer


def count_close(answers: Sequence[Answer]) -> Iterator[int]:
    """The indices of rows whose answer hung on less than `CLOSE`."""
    return (index for index, answer in enumerate(answers) if answer.margin < CLOSE)
