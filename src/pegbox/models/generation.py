"""Batched greedy decoding in which each row gets the answer that it gets alone.

The tokens that all prompts begin with are computed once, and their keys and values are shared by the rows. Rows are
padded on the left, before the shared tokens, so that every row's last token stands in the last column and the distance
of two real tokens in columns is their distance in positions (sliding windows count columns). Positions count real
tokens only and padding is masked. Rows that have said their stop token leave the batch. A model that left padding would
change (recurrent, convolutional, positions from elsewhere) answers row by row instead, by Transformers' own loop.

`stream` gives one answer token by token, by the same loop with one row; it can go on from the keys and values that the
turn before has left (`Kept`). What is drawn at random is drawn by Transformers, with the model's own settings.

Floating-point sums depend on the shape of a batch, so a row whose two best logits were ever closer than `CLOSE` could
have gone the other way alone: such rows are counted, not hidden.

Shapes: n rows, P shared tokens, Hk key heads of width D, V the vocabulary.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import Cache, DynamicCache, PreTrainedModel

from pegbox.kernels.growing_cache import growing_cache
from pegbox.models import transformers_loop
from pegbox.models.batch import attends_only, on_rows_of_like_length
from pegbox.models.positions import writable
from pegbox.models.prefix_tree import shared_prefix

CLOSE = 1e-4

KeysAndValues = list[tuple[torch.Tensor, torch.Tensor]]


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
    cache: Cache | None = None

    def shared_with(self, prompt: Sequence[int]) -> tuple[int, KeysAndValues]:
        """How many first tokens need not be computed again, P, and their keys and values [1, Hk, P, D]."""
        prefix = shared_prefix([self.ids, prompt]) if self.cache is not None else 0
        if self.cache is None or not prefix:
            return 0, []
        return prefix, [(keys[:, :, :prefix], values[:, :, :prefix]) for keys, values in _columns(self.cache)]


def _columns(cache: Cache) -> KeysAndValues:
    layers: list[Any] = cache.layers  # by type they may be empty, or of another kind
    return [(layer.keys, layer.values) for layer in layers]


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    stop_ids: frozenset[int],
    max_new_tokens: int,
    batch_size: int = 64,
    advance: Callable[[int], None] = lambda rows: None,
) -> list[Answer]:
    """The greedy answer to each prompt (without its stop token), in the order of the prompts.

    `advance` is told how many rows were finished. Prompts are token ids and not empty; the model is in eval mode.
    """
    assert not model.training and all(prompts)
    if not _batches(model):
        return [_alone(model, prompt, stop_ids, max_new_tokens, advance) for prompt in prompts]
    answers = [Answer() for _ in prompts]
    prefix = shared_prefix(prompts)
    shared = _prefill(model, prompts[0][:prefix]) if prefix else []

    def answer(chosen: list[int]) -> None:
        rows, new = _Rows(model, [prompts[i] for i in chosen], prefix, shared), [Answer() for _ in chosen]
        for _ in _decode(rows, list(new), stop_ids, max_new_tokens):
            pass
        for index, given in zip(chosen, new, strict=True):
            answers[index] = given
        advance(len(chosen))

    on_rows_of_like_length(prompts, batch_size, answer)
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
    if do_sample or not _batches(model):
        most = min(max_new_tokens, room(model, prompt))
        yield from transformers_loop.stream(model, prompt, stop_ids, most, do_sample=do_sample)
        return
    kept = Kept() if kept is None else kept
    rows, answer = _Rows(model, [prompt], *kept.shared_with(prompt)), Answer()
    for _ in _decode(rows, [answer], stop_ids, max_new_tokens):
        # an answer may be left at any point: only the columns that are in every layer by now are claimed
        kept.ids, kept.cache = (*prompt, *answer.input_ids)[: rows.mask.shape[1]], rows.cache
        if not answer.stopped:
            yield answer.input_ids[-1]


def room(model: PreTrainedModel, prompt: Sequence[int]) -> int:
    """How many tokens may follow a prompt: until the model's positions end, behind which the last is not given to it."""
    positions = writable(model.config)
    return sys.maxsize if positions is None else positions - len(prompt) + 1


def _batches(model: PreTrainedModel) -> bool:
    """True where rows padded on the left get the logits that they get alone."""
    known = inspect.signature(model.forward).parameters
    return attends_only(model) and {"position_ids", "past_key_values", "logits_to_keep"} <= known.keys()


def _prefill(model: PreTrainedModel, ids: Sequence[int]) -> KeysAndValues:
    """Keys and values [1, Hk, P, D] of every layer for the shared prefix, of sliding layers too."""
    cache = DynamicCache()  # without the config, which would make sliding layers forget what lies outside the window
    given = torch.tensor([list(ids)], device=model.device)
    model(given, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return _columns(cache)


class _Rows:
    """The rows still being answered: their cache, which columns are real, and each row's next position."""

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], prefix: int, shared: KeysAndValues
    ) -> None:
        self.model, size = model, max(map(len, prompts))
        self.room = [room(model, prompt) for prompt in prompts]
        padding = [size - len(prompt) for prompt in prompts]
        ids = [[0] * empty + list(prompt) for empty, prompt in zip(padding, prompts, strict=True)]
        before = torch.tensor(padding, device=model.device)[:, None]
        columns = torch.arange(size, device=model.device)[None]
        self.mask = (columns >= before).long()
        self.positions = (columns - before).clamp(min=0)[:, prefix:]
        self.ids = torch.tensor(ids, device=model.device)[:, prefix:]
        self.cache = growing_cache()
        places = (columns - before).clamp(min=0)[:, :prefix]  # [n, P]: a row's column c holds token c - padding
        for layer, (keys, values) in enumerate(shared):
            keys, values = (kept[0][:, places].transpose(0, 1) for kept in (keys, values))  # [n, Hk, P, D]
            self.cache.update(keys, values, layer)

    def logits(self) -> torch.Tensor:
        """The logits [n, V] after the last column, at least float32; the columns given are now in the cache."""
        out = self.model(
            input_ids=self.ids,
            attention_mask=self.mask,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = out.logits[:, -1]
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def append(self, tokens: torch.Tensor) -> None:
        """Give each row its next token, int64 [n]."""
        self.ids = tokens[:, None]
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        self.positions = self.positions[:, -1:] + 1

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows only, int64 [m]."""
        self.cache.batch_select_indices(rows)
        self.ids, self.mask, self.positions = self.ids[rows], self.mask[rows], self.positions[rows]
        self.room = [self.room[row] for row in rows.tolist()]


def best(logits: torch.Tensor) -> tuple[torch.Tensor, list[float]]:
    """The likeliest token of each row, int64 [n], of equals the first; and how far the second best is behind it.

    Where that is not a number (logits that are not finite) it counts as nothing, so that the row is seen to be close.
    """
    best = logits.topk(2, dim=-1).values
    margins: list[float] = (best[:, 0] - best[:, 1]).nan_to_num(0.0).tolist()
    return logits.argmax(-1), margins


def _decode(rows: _Rows, answers: list[Answer], stop_ids: frozenset[int], max_new_tokens: int) -> Iterator[None]:
    """The one loop: adds a token to each answer that goes on, and yields, until all have stopped."""
    for step in range(max_new_tokens):
        tokens, margins = best(rows.logits())
        for answer, token, margin in zip(answers, tokens.tolist(), margins, strict=True):
            answer.add(token, margin, stop_ids)
        yield
        going = [index for index, answer in enumerate(answers) if not answer.stopped and step + 1 < rows.room[index]]
        if not going or step + 1 == max_new_tokens:
            return
        rows.append(tokens)
        if len(going) < len(answers):
            rows.keep(torch.tensor(going, device=tokens.device))
            answers = [answers[index] for index in going]


def _alone(
    model: PreTrainedModel,
    prompt: Sequence[int],
    stop_ids: frozenset[int],
    max_new_tokens: int,
    advance: Callable[[int], None],
) -> Answer:
    """The greedy answer to one prompt by Transformers' own loop."""
    answer = Answer()
    most = min(max_new_tokens, room(model, prompt))
    for logits in transformers_loop.greedy_logits(model, prompt, stop_ids, most):
        tokens, margins = best(logits)
        answer.add(int(tokens), margins[0], stop_ids)
    advance(1)
    return answer


def count_close(answers: Sequence[Answer]) -> Iterator[int]:
    """The indices of rows whose answer hung on less than `CLOSE`."""
    return (index for index, answer in enumerate(answers) if answer.margin < CLOSE)
