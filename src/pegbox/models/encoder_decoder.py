"""Encoder-decoders that write: a batch of sources and targets, the logits of the targets, and answers in batches.

    the decoder is given    start, y_1, ..., y_(U-1)
    and predicts            y_1,   y_2, ..., y_U              y_U is the stop token

So a target is learnt from a batch of its own, shifted by one place; `start` is the model's, or the token of a language. What
stands behind a target's end is padding that a causal decoder never sees from a real place, and that carries no loss.

Answers: sources are padded on the right and their padding is masked; all decoders begin with the same tokens in the same
columns, so nothing is padded there, and each row gets the answer that it gets alone (`models.generation` says how close
calls are counted). Rows that have said their stop token leave the batch. Beam search is Transformers' own, with no setting
but the number of beams: length_penalty 1, no n-gram forbidden, no length forced. The padding token is never said: it stands
for nothing, but some models (Marian) give it the highest logit.

Shapes: n or B rows, T tokens of the longest source, U of the longest target, V the vocabulary, N learnt tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel

from pegbox.data.records import Example
from pegbox.errors import RecipeError
from pegbox.models import transformers_loop
from pegbox.models.batch import Batch, at_least_float32, on_rows_of_like_length
from pegbox.models.generation import Answer, best, room

Advance = Callable[[int], None]
AT_ONCE = 64  # answers that are written together, those of beams among them


# ---- learning --------------------------------------------------------------------------------------------------------


def pad_pairs(examples: Sequence[Example], pad_id: int) -> Batch:
    """Sources and targets, one row an example, each padded on the right."""
    borders = [example.lengths[0] for example in examples]
    sources = [example.input_ids[:border] for example, border in zip(examples, borders, strict=True)]
    targets = [example.input_ids[border:] for example, border in zip(examples, borders, strict=True)]
    weights = [example.loss_weights[border:] for example, border in zip(examples, borders, strict=True)]
    input_ids, mask = _padded(sources, pad_id)
    target_ids, _ = _padded(targets, pad_id)
    wide = target_ids.shape[1]
    learnt = [
        (row * wide + place, token, weight)
        for row, pair in enumerate(zip(targets, weights, strict=True))
        for place, (token, weight) in enumerate(zip(*pair, strict=True))
        if weight > 0
    ]
    return Batch(
        input_ids,
        mask,
        None,
        places=torch.tensor([place for place, _, _ in learnt], dtype=torch.long),
        targets=torch.tensor([token for _, token, _ in learnt], dtype=torch.long),
        weights=torch.tensor([weight for _, _, weight in learnt]),
        labels=torch.empty(len(examples), 0, dtype=torch.float64),
        starts=(starts := torch.arange(len(examples)) * input_ids.shape[1]),
        ends=starts + mask.sum(1) - 1,
        target_ids=target_ids,
    )


def _padded(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, int64 [B, size of the longest]."""
    size = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad_id] * (size - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (size - len(row)) for row in rows])
    return ids, mask


def shifted(target_ids: torch.Tensor, start: int) -> torch.Tensor:
    """What the decoder is given, int64 [B, U]: the targets one place to the right, behind the token that begins them."""
    begun = target_ids.new_full((len(target_ids), 1), start)
    return torch.cat([begun, target_ids[:, :-1]], dim=1)


def written_logits(model: PreTrainedModel, batch: Batch, start: int) -> torch.Tensor:
    """The logits [N, V] that predict the learnt tokens of the targets."""
    assert batch.target_ids is not None
    given = shifted(batch.target_ids, start)
    every: torch.Tensor = model(**batch.inputs, decoder_input_ids=given, use_cache=False).logits
    return every.flatten(0, 1).index_select(0, batch.places)


def decoder_start(model: PreTrainedModel) -> int:
    """The token with which the model's decoder begins. Raises RecipeError where it has none."""
    for config in (model.config, model.generation_config):
        found = getattr(config, "decoder_start_token_id", None)
        if found is not None:
            return int(found)
    cure = "name it in the model's config.json: decoder_start_token_id"
    raise RecipeError("the model does not say with which token its decoder begins", where="model", cure=cure)


# ---- answering -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Manner:
    """How answers are written: the tokens that the decoder begins with, those that end an answer, the one that pads,
    those that are `never` said; at most so many tokens; `num_beams`: 1 is greedy.
    """

    opening: Sequence[int]
    stop_ids: frozenset[int]
    pad_id: int
    never: Sequence[int]
    max_new_tokens: int
    num_beams: int = 1

    @property
    def settings(self) -> dict[str, Any]:
        """The same as Transformers' generation config has it; what it does not name has no effect there."""
        start, *forced = self.opening
        return {
            "decoder_start_token_id": start,
            "forced_bos_token_id": forced[0] if forced else None,
            "eos_token_id": sorted(self.stop_ids),
            "pad_token_id": self.pad_id,
            "suppress_tokens": list(self.never) or None,
            "max_new_tokens": self.max_new_tokens,
            "num_beams": self.num_beams,
            "do_sample": False,
        }


@torch.inference_mode()
def write(
    model: PreTrainedModel,
    sources: Sequence[Sequence[int]],
    manner: Manner,
    *,
    advance: Advance = lambda rows: None,
) -> list[Answer]:
    """The answer to each source (without its stop token), in their order; of beams no margin is known.

    Sources are token ids and not empty; the model is in eval mode. `advance` is told how many rows were finished.
    """
    assert not model.training and all(sources)
    answers = [Answer() for _ in sources]
    answered = _greedy if manner.num_beams == 1 else _by_beams

    def answer(chosen: list[int]) -> None:
        ids, mask = (part.to(model.device) for part in _padded([sources[index] for index in chosen], manner.pad_id))
        for index, given in zip(chosen, answered(model, ids, mask, manner), strict=True):
            answers[index] = given
        advance(len(chosen))

    on_rows_of_like_length(sources, max(1, AT_ONCE // manner.num_beams), answer)
    return answers


def _most(model: PreTrainedModel, manner: Manner) -> int:
    return min(manner.max_new_tokens, room(model, manner.opening))


class _Rows:
    """The rows still being written: what the encoder made of their sources, and the decoder's cache."""

    def __init__(self, model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, opening: Sequence[int]) -> None:
        self.model, self.mask = model, mask
        encoder: Any = model.get_encoder()
        self.read = encoder(input_ids=ids, attention_mask=mask)
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.given = torch.tensor([list(opening)] * len(ids), device=ids.device)

    def logits(self) -> torch.Tensor:
        """The logits [n, V] of the next token, at least float32; what was given is now in the cache."""
        out = self.model(
            encoder_outputs=self.read,
            attention_mask=self.mask,
            decoder_input_ids=self.given,
            past_key_values=self.cache,
            use_cache=True,
        )
        return at_least_float32(out.logits[:, -1])

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows only, int64 [m]."""
        self.cache.batch_select_indices(rows)
        self.mask, self.given = self.mask[rows], self.given[rows]
        self.read["last_hidden_state"] = self.read.last_hidden_state[rows]


def _greedy(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, manner: Manner) -> list[Answer]:
    """The likeliest token each time, for all rows together."""
    rows, answers = _Rows(model, ids, mask, manner.opening), [Answer() for _ in ids]
    going, most = list(answers), _most(model, manner)
    for _ in range(most):
        logits = rows.logits()
        logits[:, list(manner.never)] = -torch.inf
        tokens, margins = best(logits)
        for answer, token, margin in zip(going, tokens.tolist(), margins, strict=True):
            answer.add(token, margin, manner.stop_ids)
        rows.given = tokens[:, None]
        left = [place for place, answer in enumerate(going) if not answer.stopped]
        if not left:
            break
        if len(left) < len(going):
            rows.keep(torch.tensor(left, device=tokens.device))
            going = [going[place] for place in left]
    return answers


def _by_beams(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, manner: Manner) -> list[Answer]:
    """By Transformers' beam search."""
    given = torch.tensor([list(manner.opening)] * len(ids), device=ids.device)
    settings = manner.settings | {"max_new_tokens": _most(model, manner)}
    with transformers_loop.own_settings(model, settings):
        written = model.generate(ids, attention_mask=mask, decoder_input_ids=given)  # type: ignore[operator]
    answers = []
    for said in written[:, len(manner.opening) :].tolist():
        end = next((place for place, token in enumerate(said) if token in manner.stop_ids), None)
        answers.append(Answer(said[:end], stopped=end is not None))
    return answers
