"""`seq2seq`: a text made from another by an encoder-decoder (T5, BART, Marian, mBART): translations, summaries, rewordings.

    p(target | source) = product over t of p(y_t | y_1 ... y_(t-1), source)        y_U: the stop token, learnt once

The source is tokenized as the tokenizer serves it, behind `data.instruction` where the recipe has one ("translate English to
German: "). Of the target the text and the stop token are learnt. What the tokenizer puts before a target (a token for its
language, BART's `<s>`) is given to the decoder, in training as in use, and not learnt: it is the same in all rows. mBART puts
its language behind the stop token; there it is the token with which the decoder begins, as in mBART's own training, and
nothing behind the stop token is learnt.

A source and a target that do not fit the model's positions, each by itself, are refused like any row that is too long.

The trivial rival is the better of two on the training rows: the most frequent target, or a copy of the source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from pegbox.data.prompts import led
from pegbox.data.records import Example, Record, SourceTarget
from pegbox.data.render import Renderer
from pegbox.data.sizes import sizes_of
from pegbox.metrics import lookup
from pegbox.models.batch import Batch, at_least_float32
from pegbox.models.encoder_decoder import Manner, decoder_start, pad_pairs, write, written_logits
from pegbox.models.generation import Answer, count_close
from pegbox.models.language_codes import set_languages
from pegbox.recipe import Recipe
from pegbox.recipe import Seq2Seq as Settings
from pegbox.tasks.asked import Asked
from pegbox.tasks.base import Advance, Predictions, Task, Unfit
from pegbox.tasks.translation_memory import remembered

FREQUENT, COPY = "most frequent target", "copy of the source"
COMPARED = 1000  # rows of train on which the two trivial rivals are compared


class Seq2Seq(Task):
    """Learns the targets of sources."""

    kind = "seq2seq"
    head = "seq2seq"
    metrics = ("chrf", "bleu", "rouge1", "rouge2", "rougeL", "exact_match", "length_ratio")
    trivial_name = FREQUENT
    unfit = Unfit(
        frozenset({"causal_lm", "masked_lm"}),
        "the model has no decoder beside an encoder",
        "give an encoder-decoder (T5, BART and their kin); a decoder learns the same rows by `task: chat`",
    )
    places = False
    few_shot = False  # an encoder-decoder takes no examples
    _trivial = FREQUENT

    def __init__(self, renderer: Renderer, recipe: Recipe, heads: frozenset[str] = frozenset()) -> None:
        super().__init__(renderer, recipe, heads)
        settings = recipe.task
        assert isinstance(settings, Settings)
        set_languages(renderer.tokenizer, settings.source_lang, settings.target_lang)

    @property
    def fingerprint(self) -> list[Any]:
        """The languages, too: the tokenizer may have been saved with them."""
        return [*super().fingerprint, self.renderer.source(""), self.renderer.around_target()]

    @cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before a target, and behind its stop token."""
        before, behind = self.renderer.around_target()
        return before, behind[1:]

    def fit(self, train: Sequence[Record]) -> None:
        """Find the better of the two trivial rivals, by the metric of the verdict, on rows of train."""
        super().fit(train)
        if not train:
            return
        some, metric = train[:COMPARED], lookup(self.recipe.evaluate.primary or self.primary(train))
        right = [self.reference(record) for record in some]
        frequent, copied = metric([_most_frequent(train)] * len(some), right), metric([*map(self.shown, some)], right)
        copy_is_better = copied > frequent if metric.greater_is_better else copied < frequent
        self._trivial = COPY if copy_is_better else FREQUENT

    def state(self) -> dict[str, Any]:
        """Which trivial rival it has."""
        return {"trivial": self._trivial}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The trivial rival that was found on the training rows."""
        self._trivial = state["trivial"]

    def encode(self, record: Record) -> Example:
        """The source, and the target behind it; the target's text and its stop token have a weight."""
        content, (before, _) = _content(record), self._around
        source, target = self.renderer.source(content.source), self.renderer.target(content.target)
        weights = [0.0] * (len(source) + len(before)) + [1.0] * len(target)
        lengths = (len(source), len(before) + len(target))
        return Example(record.where, (*source, *before, *target), tuple(weights), lengths=lengths)

    def collate(self, examples: Sequence[Example], *, packed: bool, share_prefix: bool) -> Batch:
        """Sources and targets, padded: an encoder-decoder is never packed."""
        assert not packed
        return pad_pairs(examples, int(self.renderer.tokenizer.pad_token_id))

    def scored(self, model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The logits [N, V] of the learnt tokens, which they are, and their weights."""
        return at_least_float32(written_logits(model, batch, self._start(model))), batch.targets, batch.weights

    def _start(self, model: PreTrainedModel) -> int:
        """The token with which the decoder begins: the language that the tokenizer puts behind a target, or the model's."""
        _, behind = self._around
        return behind[0] if behind else decoder_start(model)

    def manner(self, model: PreTrainedModel, max_new_tokens: int) -> Manner:
        """How the model answers: as the recipe has it, for the untouched and for the tuned model alike."""
        opening, pad = (self._start(model), *self._around[0]), int(self.renderer.tokenizer.pad_token_id)
        stops, beams = self.renderer.stop_ids, self.recipe.evaluate.num_beams
        return Manner(opening, stops, pad, self.never_said, max_new_tokens, beams)

    @property
    def never_said(self) -> Sequence[int]:
        """The padding token, where it does not end an answer."""
        pad = int(self.renderer.tokenizer.pad_token_id)
        return () if pad in self.renderer.stop_ids else (pad,)

    def asked(self, model: PreTrainedModel, example: Example) -> Asked:
        """The source, and up to its last token what the decoder is given."""
        source, opening = example.lengths[0], self.manner(model, 1).opening
        given = (opening[0], *example.input_ids[source:-1])
        places = tuple(range(len(opening) - 1, len(given)))
        return Asked(example.input_ids[:source], places=places, prompt=opening, given=given)

    def written(self, model: PreTrainedModel, asked: Sequence[Asked], max_new_tokens: int) -> list[Answer]:
        """The greedy answers to the sources, whatever beams the recipe has."""
        greedy = replace(self.manner(model, max_new_tokens), num_beams=1)
        return write(model, [row.input_ids for row in asked], greedy)

    def longest_answer(self, train: Sequence[Example]) -> int:
        """The tokens with a weight, the stop token among them."""
        return int(sizes_of(train).learnt.max())

    def prompt_length(self, record: Record, shots: Sequence[Record]) -> int:
        """The length of the source."""
        return len(self.renderer.source(_content(record).source))

    def primary(self, train: Sequence[Record]) -> str:
        """chrF: it reads characters, and so serves all languages and scripts."""
        return "chrf"

    def shown(self, record: Record) -> str:
        """The source without what the recipe puts before each."""
        instruction, source = self.recipe.data.instruction, _content(record).source
        return source if instruction is None else source.removeprefix(led(instruction))

    def typed(self, text: str) -> Mapping[str, Any]:
        """The text as a source."""
        return {"source": text}

    def reference(self, record: Record) -> str:
        """The target."""
        return _content(record).target

    def predict(
        self,
        model: PreTrainedModel,
        records: Sequence[Record],
        *,
        shots: Sequence[Record] = (),
        max_new_tokens: int,
        advance: Advance = lambda rows: None,
    ) -> Predictions:
        """What the model writes, greedily or by the recipe's beams, without its stop token."""
        sources = [self.renderer.source(_content(record).source) for record in records]
        written = write(model, sources, self.manner(model, max_new_tokens), advance=advance)
        texts = tuple(self.renderer.written(answer.input_ids) for answer in written)
        return Predictions(texts, sum(1 for _ in count_close(written)))

    def trivial(self, train: Sequence[Record], test: Sequence[Record]) -> Predictions:
        """The most frequent target, of equals the first in the alphabet; or each source as it is."""
        if self._trivial == COPY:
            return Predictions(tuple(map(self.shown, test)))
        return Predictions((_most_frequent(train),) * len(test))

    def rivals(
        self,
        base: PreTrainedModel,
        train: Sequence[Record],
        validation: Sequence[Record],
        test: Sequence[Record],
    ) -> Mapping[str, Predictions]:
        """What a memory of the training rows makes of each source."""
        return remembered(self, train, test)

    def save_beside(self, model: PreTrainedModel, folder: Path) -> None:
        """A generation config by which Transformers answers as the model was measured."""
        tokens = self.recipe.evaluate.max_new_tokens
        assert tokens is not None
        GenerationConfig(**self.manner(model, tokens).settings).save_pretrained(folder)


def _most_frequent(train: Sequence[Record]) -> str:
    counts = Counter(_content(record).target for record in train)
    return min(counts, key=lambda text: (-counts[text], text))


def _content(record: Record) -> SourceTarget:
    assert isinstance(record.content, SourceTarget)
    return record.content
