"""`masked_lm`: an encoder reads on in the texts of a field, by BERT's objective; its run is the next recipe's `model:`.

Of each text a share of the tokens is chosen; 80 % of them are masked, 10 % become a random token, 10 % stay, and the
model says what stood there (Devlin et al. 2019, arXiv 1810.04805). The choice is made anew for every update (dynamic
masking: Liu et al. 2019, arXiv 1907.11692), from the seed, the update and the text alone, so that it is the same however
the update is cut, on whatever rank, and after resuming. Of n tokens floor(n p + u) are chosen, u uniform in [0, 1): each
with probability p. BERT's own code rounds instead; as there, at least one is chosen.

Judged by pseudo-perplexity (Salazar et al. 2020, arXiv 1910.14659): each token masked by itself, the others in sight,

    exp( sum of -log p(token | all others) / number of tokens )

over at most 32 tokens of a text. Which these are hangs on the text alone: they are the same for every system and in every
run, whatever its seed, and so can be compared.

Further reading before a task: Gururangan et al. 2020, "Don't stop pretraining" (arXiv 2004.10964). It can hurt as well.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from random import Random

import torch
from transformers import PreTrainedModel

from pegbox.data.records import Example, PlainText, Record
from pegbox.data.render import Renderer
from pegbox.errors import RecipeError
from pegbox.models.batch import Batch, at_least_float32
from pegbox.models.outputs import chosen_logits
from pegbox.recipe import MaskedLM as Settings
from pegbox.recipe import Recipe
from pegbox.tasks.base import Advance, Predictions, Task, Unfit
from pegbox.tasks.likelihoods import Likelihood, likelihood, unigram

MASKED, RANDOM = 0.8, 0.1  # shares of the chosen tokens; the rest stays as it is
MOST_SCORED = 32  # tokens of a text, each of which takes a forward pass of the text
TOKENS_AT_ONCE = 4096  # of the masked copies of a text


class MaskedLM(Task):
    """Learns the masked tokens of texts."""

    kind = "masked_lm"
    head = "masked_lm"
    metrics = ("perplexity",)
    trivial_name = "token frequencies"
    pipeline_tag = "fill-mask"
    unfit = Unfit(
        frozenset({"causal_lm", "seq2seq"}),
        "the model writes text and learns no masked tokens",
        "give an encoder (BERT and its kin), or learn the texts by `task: completion`",
    )
    over_tokens = True
    few_shot = False  # an encoder takes no examples
    permutes = False

    def __init__(self, renderer: Renderer, recipe: Recipe, heads: frozenset[str] = frozenset()) -> None:
        super().__init__(renderer, recipe, heads)
        if renderer.tokenizer.mask_token_id is None:
            cure = "give an encoder (BERT and its kin) whose tokenizer_config.json names its mask_token"
            raise RecipeError("the model's tokenizer has no mask token", where="model", cure=cure)

    @property
    def zero_shot(self) -> bool:
        """Only a head that the checkpoint brings along knows something."""
        return self.head in self.heads

    @cached_property
    def words(self) -> tuple[int, ...]:
        """The ids of all tokens but the special ones, in order."""
        return tuple(sorted(set(self.renderer.tokenizer.get_vocab().values()) - self.renderer.special))

    def encode(self, record: Record) -> Example:
        """The whole text as the tokenizer serves it; every token that is not special can be learnt."""
        encoded = self.renderer.tokenizer(_text(record), truncation=False, verbose=False)
        ids, types = tuple(encoded["input_ids"]), tuple(encoded.get("token_type_ids", ()))
        weights = tuple(float(token not in self.renderer.special) for token in ids)
        return Example(record.where, ids, weights, token_labels=ids, token_type_ids=types)

    def drawn(self, example: Example, step: int) -> Example:
        """The example with some tokens masked or changed; those chosen have a weight, and no other."""
        settings, places = self.recipe.task, _learnt(example)
        assert isinstance(settings, Settings)
        draw = _generator(example.token_labels, f"{self.recipe.seed} {step}")
        count = math.floor(len(places) * settings.mlm_probability + draw.random())
        chosen = sorted(draw.sample(places, min(len(places), max(1, count))))
        ids, weights = list(example.token_labels), [0.0] * len(example)
        for place in chosen:
            weights[place], fate = example.loss_weights[place], draw.random()
            if fate < MASKED:
                ids[place] = self.renderer.tokenizer.mask_token_id
            elif fate < MASKED + RANDOM:
                ids[place] = draw.choice(self.words)
        return replace(example, input_ids=tuple(ids), loss_weights=tuple(weights))

    def scored(self, model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The logits [N, V] at the chosen tokens, which they were, and their weights."""
        return at_least_float32(chosen_logits(model, batch)), batch.targets, batch.weights

    def primary(self, train: Sequence[Record]) -> str:
        """Pseudo-perplexity."""
        return "perplexity"

    def shown(self, record: Record) -> str:
        """The text."""
        return _text(record)

    def reference(self, record: Record) -> str:
        """The text."""
        return _text(record)

    def scored_places(self, example: Example) -> list[int]:
        """Where the tokens stand by which a text is judged: all that are not special, of more than 32 so many drawn."""
        places = _learnt(example)
        if len(places) <= MOST_SCORED:
            return places
        return sorted(_generator(example.token_labels, "scored").sample(places, MOST_SCORED))

    def predict(
        self,
        model: PreTrainedModel,
        records: Sequence[Record],
        *,
        shots: Sequence[Record] = (),
        max_new_tokens: int = 0,
        advance: Advance = lambda rows: None,
    ) -> Predictions:
        """`{"nll": nats, "tokens": n}` of each text, its tokens masked one at a time."""
        answers = []
        with torch.inference_mode():
            for record in records:
                answers.append(self._pseudo_likelihood(model, self.encode(record)))
                advance(1)
        return Predictions(tuple(answers))

    def _pseudo_likelihood(self, model: PreTrainedModel, example: Example) -> Likelihood:
        copies = self._masked_one_by_one(example)
        at_once = max(1, TOKENS_AT_ONCE // max(1, len(example)))
        parts: list[Likelihood] = [{"nll": 0.0, "tokens": 0}]
        for start in range(0, len(copies), at_once):
            batch = self.collate(copies[start : start + at_once], packed=False, share_prefix=False)
            logits, targets, _ = self.scored(model, batch.to(model.device))
            parts.append(likelihood(logits, targets))
        return {key: sum(part[key] for part in parts) for key in parts[0]}

    def _masked_one_by_one(self, example: Example) -> list[Example]:
        """A copy of the example for each scored token, which is masked in it and alone has a weight."""
        copies = []
        for place in self.scored_places(example):
            ids, weights = list(example.token_labels), [0.0] * len(example)
            ids[place], weights[place] = self.renderer.tokenizer.mask_token_id, 1.0
            copies.append(replace(example, input_ids=tuple(ids), loss_weights=tuple(weights)))
        return copies

    def trivial(self, train: Sequence[Record], test: Sequence[Record]) -> Predictions:
        """How often each token occurs in the training texts."""
        seen = ([example.token_labels[t] for t in _learnt(example)] for example in map(self.encode, train))
        scored = [[e.token_labels[t] for t in self.scored_places(e)] for e in map(self.encode, test)]
        return Predictions(unigram(seen, scored, len(self.renderer.tokenizer)))


def _text(record: Record) -> str:
    assert isinstance(record.content, PlainText)
    return record.content.text


def _learnt(example: Example) -> list[int]:
    """Where the tokens stand that can be learnt."""
    return [place for place, weight in enumerate(example.loss_weights) if weight > 0]


def _generator(ids: Sequence[int], purpose: str) -> Random:
    """A generator that a text, by its ids, and a purpose fix."""
    digest = hashlib.sha256(f"{purpose}\0{' '.join(map(str, ids))}".encode()).digest()
    return Random(int.from_bytes(digest[:8], "big"))
