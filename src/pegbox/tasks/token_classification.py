"""`token_classification`: a tag for every word of a text, by a new head; judged by the spans that the tags make.

A row is words and tags. The words joined by single spaces are a text, tokenized as any other (`tasks.words`), and each
word is labelled at one token: its first, as BERT does it; its last where the checkpoint is a causal language model,
which has not seen the whole word before. The loss is over words: long words do not count for more.

What a span is depends on the tags, and is told by their names:

- marked, `B-PER I-PER O` (BIO, IOB1, BIOES, and the same under other letters: BILOU, BMES): as seqeval reads them,
  leniently, so that any sequence of predicted tags makes spans;
- kinds with a word for none, `PER PER O`: neighbours of one kind are one span, since no mark could divide them;
- a tag for each word, `NOUN VERB` (parts of speech): each word is a span. Precision, recall and F1 of spans are then all
  the share of words that are tagged rightly.

A new head knows nothing before it is trained, so there is no zero-shot answer to compare with.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from transformers import PreTrainedModel

from pegbox.data.records import Example, Record, TaggedWords
from pegbox.errors import DataError
from pegbox.metrics.spans import spans_of_tags
from pegbox.models.batch import Batch, at_least_float32, on_rows_of_like_length
from pegbox.models.outputs import learnt_logits
from pegbox.tasks.base import Advance, Predictions, Task
from pegbox.tasks.words import Offsets, label_places, running_text

ROWS_AT_ONCE = 64
OUTSIDE = "O"
MARKS = {"B": "B", "I": "I", "E": "E", "S": "S", "L": "E", "U": "S", "M": "I", "W": "S"}  # BIOES by any other letters
MARKED = re.compile(rf"[{''.join(MARKS)}](-.+)?", re.DOTALL)


class TokenClassification(Task):
    """Learns the tag of each word."""

    kind = "token_classification"
    head = "token_classification"
    metrics = ("f1", "precision", "recall")
    row_metric = "f1"
    loss_unit = "word"
    over_tokens = True
    trivial_name = "most frequent tag of each word"
    pipeline_tag = "token-classification"

    _labels: tuple[str, ...] = ()

    @property
    def zero_shot(self) -> bool:
        """A new head knows nothing yet."""
        return False

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the tags, sorted."""
        return self._labels

    def observe(self, records: Sequence[Record]) -> None:
        """Collect the tags' names. Raises DataError where there is but one, or where they do not say what a span is."""
        self._labels = tuple(sorted({tag for record in records for tag in _content(record).tags}))
        refuse_unclear(self._labels)

    def label_counts(self, train: Sequence[Record]) -> Mapping[str, int]:
        """The number of words with each tag."""
        return Counter(tag for record in train for tag in _content(record).tags)

    def state(self) -> dict[str, Any]:
        """The tags' names."""
        return {"labels": list(self._labels)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The tags' names, in the order of the trained head."""
        self._labels = tuple(state["labels"])

    def encode(self, record: Record) -> Example:
        """The text, with each word's tag at its place; a tag that is not known is not learnt.

        Raises ValueError where a word has no token of its own.
        """
        index = {label: number for number, label in enumerate(self._labels)}
        return self._example(record, [index.get(tag, -1) for tag in _content(record).tags])

    def _example(self, record: Record, targets: Sequence[int]) -> Example:
        """The text, with a target for each word (-1: none)."""
        text, words = running_text(_content(record).tokens)
        encoded = self.renderer.tokenizer(text, truncation=False, verbose=False, return_offsets_mapping=True)
        ids = tuple(encoded["input_ids"])
        labels, weights = [-1] * len(ids), [0.0] * len(ids)
        places = label_places(words, encoded["offset_mapping"], last="causal_lm" in self.heads)
        for place, target in zip(places, targets, strict=True):
            labels[place], weights[place] = target, float(target >= 0)
        types = tuple(encoded.get("token_type_ids", ()))
        return Example(record.where, ids, tuple(weights), token_labels=tuple(labels), token_type_ids=types)

    def scored(self, model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The head's outputs [N, C] at the N words, the indices of their tags, and a weight of one for each word."""
        return _outputs(model, batch), batch.targets, batch.weights

    def primary(self, train: Sequence[Record]) -> str:
        """F1 of spans: a tag too few or too many costs the whole name."""
        return "f1"

    def shown(self, record: Record) -> str:
        """The words, joined by single spaces; offsets of spans count the characters of this text."""
        return running_text(_content(record).tokens)[0]

    def typed(self, text: str) -> Mapping[str, Any]:
        """The words of a text, parted where it has white space."""
        return {"tokens": text.split()}

    def reference(self, record: Record) -> list[dict[str, Any]]:
        """The spans of the row's tags."""
        return self._spans(record, _content(record).tags)

    def _spans(self, record: Record, tags: Sequence[str]) -> list[dict[str, Any]]:
        words = running_text(_content(record).tokens)[1]
        return [_span(words, *found) for found in entities(tags, self._labels)]

    def predict(
        self,
        model: PreTrainedModel,
        records: Sequence[Record],
        *,
        shots: Sequence[Record] = (),
        max_new_tokens: int = 0,
        advance: Advance = lambda rows: None,
    ) -> Predictions:
        """The spans of each word's likeliest tag."""
        examples = [self._example(record, [0] * len(_content(record).tokens)) for record in records]
        answers: list[Any] = [None] * len(examples)

        def answer(chosen: list[int]) -> None:
            batch = self.collate([examples[index] for index in chosen], packed=False, share_prefix=False)
            likeliest = iter(_outputs(model, batch.to(model.device)).argmax(1).tolist())
            for index in chosen:
                tags = [self._labels[next(likeliest)] for _ in _content(records[index]).tokens]
                answers[index] = self._spans(records[index], tags)
            advance(len(chosen))

        with torch.inference_mode():
            on_rows_of_like_length(examples, ROWS_AT_ONCE, answer)
        return Predictions(tuple(answers))

    def trivial(self, train: Sequence[Record], test: Sequence[Record]) -> Predictions:
        """Each word's most frequent tag in train, and the most frequent of all for a word that train has not.

        It looks at single words, as they are written, and at nothing around them. Of equals the first in the alphabet.
        """
        counts: dict[str, Counter[str]] = {}
        for content in map(_content, train):
            for word, tag in zip(content.tokens, content.tags, strict=True):
                counts.setdefault(word, Counter())[tag] += 1
        usual = {word: _most_frequent(tags) for word, tags in counts.items()}
        unknown = _most_frequent(self.label_counts(train))
        return Predictions(
            tuple(self._spans(row, [usual.get(word, unknown) for word in _content(row).tokens]) for row in test)
        )


# ---- tags and spans --------------------------------------------------------------------------------------------------


def refuse_unclear(labels: Sequence[str]) -> None:
    """Raise DataError where tags are all alike, are numbers, or are marked in part only."""
    inside = [label for label in labels if label != OUTSIDE]
    cure = "write tags like O, B-PER, I-PER, or one kind for each word (NOUN, VERB)"
    if len(labels) < 2:
        raise DataError("all words have the same tag", where="data.train", cure="give rows of two tags or more")
    if all(label.isdecimal() for label in inside):
        what = f"the tags are numbers ({', '.join(inside[:3])}), which do not say what is a span"
        raise DataError(what, where="data.train", cure=f"replace them by their names: {cure}")
    odd = [label for label in inside if not MARKED.fullmatch(label)]
    if odd and any("-" in label for label in inside if MARKED.fullmatch(label)):
        what = f"some tags begin with a mark of {', '.join(MARKS)} and some do not: {', '.join(odd[:5])}"
        raise DataError(what, where="data.train", cure=cure)


def entities(tags: Sequence[str], labels: Sequence[str]) -> list[tuple[str, int, int]]:
    """The spans of a row's tags as (label, first word, last word); `labels`, all tags there are, say how to read them."""
    if all(MARKED.fullmatch(label) for label in labels if label != OUTSIDE):
        return list(spans_of_tags([_in_bioes(tag) for tag in tags]))
    if OUTSIDE not in labels:
        return [(tag, place, place) for place, tag in enumerate(tags)]
    runs = [(tag, [place for place, _ in run]) for tag, run in groupby(enumerate(tags), key=lambda pair: pair[1])]
    return [(tag, places[0], places[-1]) for tag, places in runs if tag != OUTSIDE]


def _in_bioes(tag: str) -> str:
    """A marked tag by the letters of BIOES; any other is outside."""
    return MARKS[tag[0]] + tag[1:] if MARKED.fullmatch(tag) else OUTSIDE


def _span(words: Sequence[Offsets], label: str, first: int, last: int) -> dict[str, Any]:
    """A span as answers and references hold it; `start`, `end` in characters of the text."""
    start, end = words[first][0], words[last][1]
    return {"label": label, "start": start, "end": end, "first_word": first, "last_word": last}


def _most_frequent(counts: Mapping[str, int]) -> str:
    return min(counts, key=lambda tag: (-counts[tag], tag))


# ---- the model -------------------------------------------------------------------------------------------------------


def _outputs(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The head's outputs [N, C] at the words, in at least float32."""
    return at_least_float32(learnt_logits(model, batch))


def _content(record: Record) -> TaggedWords:
    assert isinstance(record.content, TaggedWords)
    return record.content
