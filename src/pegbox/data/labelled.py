"""Formats of rows with labels, scores or tags: a text (or a pair of texts) and what is to be said of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pegbox.data.cells import items, name, number, text, truth
from pegbox.data.records import LabelledText, LabelSetText, MatchedTexts, ScoredText, TaggedWords


def labelled_text(values: Mapping[str, Any]) -> LabelledText:
    """`text` (and `text_pair`) with a `label`: a name, or a whole number read as a name."""
    return LabelledText(text(values, "text"), name(values["label"], "label"), _pair(values))


def label_set_text(values: Mapping[str, Any]) -> LabelSetText:
    """`text` (and `text_pair`) with `labels`: a list of names, or several columns of 0 and 1, each named by its label."""
    given = values["labels"]
    if isinstance(given, Mapping):
        labels = [column for column, cell in given.items() if truth(cell, column)]
    else:
        labels = [name(item, "labels") for item in items(given, "labels")]
    if len(set(labels)) < len(labels):
        raise ValueError("'labels' has a name twice")
    return LabelSetText(text(values, "text"), tuple(sorted(labels)), _pair(values))


def scored_text(values: Mapping[str, Any]) -> ScoredText:
    """`text` (and `text_pair`) with a `score`: a number, a list of numbers, or several columns of them."""
    given = values["score"]
    if isinstance(given, Mapping):
        scores = {column: number(cell, column) for column, cell in given.items()}
    elif isinstance(given, list) or (isinstance(given, str) and given.lstrip().startswith("[")):
        scores = {f"score {i}": number(item, "score") for i, item in enumerate(items(given, "score"), start=1)}
        if not scores:
            raise ValueError("'score' is an empty list")
    else:
        scores = {"score": number(given, "score")}
    return ScoredText(text(values, "text"), scores, _pair(values))


def tagged_words(values: Mapping[str, Any]) -> TaggedWords:
    """`tokens`, the words of a sentence, and `tags`, one for each."""
    tokens, tags = items(values["tokens"], "tokens"), items(values["tags"], "tags")
    if not tokens:
        raise ValueError("'tokens' is an empty list")
    if len(tokens) != len(tags):
        raise ValueError(f"there are {len(tokens)} tokens and {len(tags)} tags")
    if odd := [word for word in tokens if not isinstance(word, str) or not word.strip()]:
        raise ValueError(f"'tokens' must be words, and one of them is {str(odd[0])[:40]!r}")
    return TaggedWords(tuple(tokens), tuple(name(tag, "tags") for tag in tags))


def matched_texts(values: Mapping[str, Any]) -> MatchedTexts:
    """`text` and a `text_pair` that matches it; beside them there may be a `negative`, a text that does not.

    A table has an empty cell where a row has none.
    """
    negative = None if values.get("negative") in (None, "") else text(values, "negative")
    return MatchedTexts(text(values, "text"), text(values, "text_pair"), negative)


def scored_pair(values: Mapping[str, Any]) -> MatchedTexts:
    """`text`, `text_pair` and a `score`, how alike they are."""
    return MatchedTexts(text(values, "text"), text(values, "text_pair"), score=number(values["score"], "score"))


def labelled_pair(values: Mapping[str, Any]) -> MatchedTexts:
    """`text`, `text_pair` and a `label`: 1 where they match, 0 where they do not."""
    return MatchedTexts(text(values, "text"), text(values, "text_pair"), score=float(truth(values["label"], "label")))


def _pair(values: Mapping[str, Any]) -> str | None:
    return text(values, "text_pair") if "text_pair" in values else None
