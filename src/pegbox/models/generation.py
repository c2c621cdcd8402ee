"""Batched greedy decoding in which each row gets the answer that it gets alone.

The tokens that all prompts begin with are computed once, and their keys and values are shared by the rows. Behind them
the rest of each prompt is padded on the left, so that every row's last token stands in the last column; positions
count real tokens only and padding is masked. Rows that have said their stop token leave the batch.

Floating-point sums depend on the shape of a batch, so a row whose two best logits were ever closer than `CLOSE` could
have gone the other way alone: such rows are counted, not hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from transformers import DynamicCache, PreTrainedModel

from pegbox.models.batch import shared_prefix

CLOSE = 1e-4


@dataclass
class Answer:
    """What was generated for one prompt. `margin`: the least distance of the two best logits on the way."""

    input_ids: list[int] = field(default_factory=list)
    stopped: bool = False
    margin: float = float("inf")


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

    `advance` is told how many rows were finished. Prompts are token ids and not empty.
    """
    assert not model.training and all(prompts)
    answers = [Answer() for _ in prompts]
    prefix = shared_prefix(prompts) if len(prompts) > 1 else 0
    shared = _prefill(model, prompts[0][:prefix]) if prefix else None
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        rows = _Rows(model, [list(prompts[i]) for i in chosen], prefix, shared)
        _decode(rows, [answers[i] for i in chosen], stop_ids, max_new_tokens)
        advance(len(chosen))
    return answers


def _prefill(model: PreTrainedModel, ids: Sequence[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values [1, Hk, P, D] of every layer for the shared prefix."""
    cache = DynamicCache(config=model.config)
    given = torch.tensor([list(ids)], device=model.device)
    model(given, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return [(layer.keys, layer.values) for layer in cache.layers]


class _Rows:
    """The rows still being answered: their cache, which columns are real, and each row's next position."""

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: list[list[int]],
        prefix: int,
        shared: list[tuple[torch.Tensor, torch.Tensor]] | None,
    ) -> None:
        self.model, n = model, len(prompts)
        self.cache = DynamicCache(config=model.config)
        for layer, (keys, values) in enumerate(shared or ()):
            self.cache.update(keys.expand(n, -1, -1, -1), values.expand(n, -1, -1, -1), layer)
        rests = [prompt[prefix:] for prompt in prompts]
        size = max(map(len, rests))
        self.ids = torch.tensor([[0] * (size - len(rest)) + rest for rest in rests], device=model.device)
        real = torch.tensor([[0] * (size - len(rest)) + [1] * len(rest) for rest in rests], device=model.device)
        self.mask = torch.cat([real.new_ones(n, prefix), real], dim=1)
        self.positions = (self.mask.cumsum(1) - 1).clamp(min=0)[:, prefix:]

    def logits(self) -> torch.Tensor:
        """The logits [n, V] after the last column; the columns given are now in the cache."""
        out = self.model(
            input_ids=self.ids,
            attention_mask=self.mask,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        assert isinstance(out.logits, torch.Tensor)
        return out.logits[:, -1].float()

    def append(self, tokens: torch.Tensor) -> None:
        """Give each row its next token, int64 [n]."""
        self.ids = tokens[:, None]
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        self.positions = self.positions[:, -1:] + 1

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows only, int64 [m]."""
        self.cache.batch_select_indices(rows)
        self.ids, self.mask, self.positions = self.ids[rows], self.mask[rows], self.positions[rows]


def _decode(rows: _Rows, answers: list[Answer], stop_ids: frozenset[int], max_new_tokens: int) -> None:
    for step in range(max_new_tokens):
        best = rows.logits().topk(2, dim=-1)
        tokens, margins = best.indices[:, 0], (best.values[:, 0] - best.values[:, 1]).tolist()
        going = []
        for index, (token, margin) in enumerate(zip(tokens.tolist(), margins, strict=True)):
            answers[index].margin = min(answers[index].margin, margin)
            answers[index].stopped = token in stop_ids
            if not answers[index].stopped:
                answers[index].input_ids.append(token)
                going.append(index)
        if not going or step + 1 == max_new_tokens:
            return
        rows.append(tokens)
        if len(going) < len(answers):
            rows.keep(torch.tensor(going, device=tokens.device))
            answers = [answers[index] for index in going]


def sample(model: PreTrainedModel, prompt: Sequence[int], *, stop_ids: frozenset[int], max_new_tokens: int) -> list[int]:
    """One answer drawn with the model's own generation settings (temperature, top_p, ...), by Transformers."""
    given = torch.tensor([list(prompt)], device=model.device)
    drawn = model.generate(
        given,
        attention_mask=torch.ones_like(given),
        do_sample=True,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(stop_ids),
        pad_token_id=min(stop_ids),
    )
    ids: list[int] = drawn[0, len(prompt) :].tolist()
    return ids[:-1] if ids and ids[-1] in stop_ids else ids


def count_close(answers: Sequence[Answer]) -> Iterator[int]:
    """The indices of rows whose answer hung on less than `CLOSE`."""
    return (index for index, answer in enumerate(answers) if answer.margin < CLOSE)
