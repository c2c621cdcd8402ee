"""Lines of `predictions.jsonl` for each kind of task that is no conversation, with answers as systems of some skill give them."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from made_run import lines_of, recipe_of

from pegbox.recipe import Recipe
from pegbox.tasks.calibration import by_label, tempered

Lines = list[dict[str, Any]]


def label_lines(names: Sequence[str], rows: int = 240, *, skill: float = 0.8, temperature: float = 2.0) -> Lines:
    """Single labels with probabilities, tuned's too sure before the temperature; few mistakes are of far-off labels."""
    rng = np.random.default_rng(4)
    right = rng.integers(0, len(names), rows)

    def said(share: float) -> np.ndarray:
        off = right + rng.choice([-2, -1, 1, 2], rows)
        return np.where(rng.random(rows) < share, right, off % len(names))

    answers = {"trivial": np.zeros(rows, dtype=int), "bag_of_words": said(skill - 0.25), "tuned": said(skill)}
    lines = lines_of(
        {system: [names[index] for index in given] for system, given in answers.items()},
        [names[index] for index in right],
        [f"text {row:03} " + "on and on " * int(rng.integers(1, 9)) for row in range(rows)],
    )
    sharp = rng.uniform(0.5, 6.0, rows)
    logits = rng.normal(0, 1, (rows, len(names)))
    logits[np.arange(rows), answers["tuned"]] = logits.max(axis=1) + sharp
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    given = by_label(names, tempered(shares / shares.sum(axis=1, keepdims=True), temperature))
    return [line | {"probabilities": {"tuned": p}} for line, p in zip(lines, given, strict=True)]


def set_lines(names: Sequence[str], rows: int = 200) -> Lines:
    """Sets of labels, empty ones among them."""
    rng = random.Random(3)

    def other(labels: list[str], share: float) -> list[str]:
        return sorted(name for name in names if (name in labels) != (rng.random() > share))

    right = [sorted(name for name in names if rng.random() < 0.3) for _ in range(rows)]
    answers = {"trivial": [list(names)] * rows, "linear_probe": [other(labels, 0.7) for labels in right]}
    answers["tuned"] = [other(labels, 0.93) for labels in right]
    return lines_of(answers, right, [f"text {row}" for row in range(rows)])


def number_lines(targets: int = 1, rows: int = 180, *, scale: float = 1.0, offset: float = 0.0) -> Lines:
    """Numbers around `offset`; tuned is near them, the probe shrinks to the mean."""
    rng = np.random.default_rng(5)
    right = rng.normal(0, 1, (rows, targets))
    said = {
        "trivial": np.zeros((rows, targets)),
        "bag_of_words": 0.4 * right + rng.normal(0, 0.6, (rows, targets)),
        "tuned": 0.9 * right + rng.normal(0, 0.25, (rows, targets)),
    }

    def told(values: np.ndarray) -> list[Any]:
        values = np.round(values * scale + offset, 6 - math.floor(math.log10(scale)))
        return [row if targets > 1 else row[0] for row in values.tolist()]

    return lines_of(
        {name: told(given) for name, given in said.items()}, told(right), [f"text {n}" for n in range(rows)]
    )


WORDS = ("Anna", "Otto", "Lena Maria Berg", "Reykjavik", "the river", "Oslo", "walks", "to", "sees", "and", "then")
LABELS = {"Anna": "PER", "Otto": "PER", "Lena Maria Berg": "PER", "Reykjavik": "LOC", "the river": "LOC", "Oslo": "LOC"}


def entity_lines(rows: int = 120, length: int = 6) -> Lines:
    """Spans in texts: some missed, some invented, some with another label or other words; and texts without any."""
    rng = random.Random(6)
    texts, references = [], []
    for row in range(rows):
        words = [rng.choice(WORDS if row % 6 else WORDS[6:]) for _ in range(length)]
        texts.append(" ".join(words))
        references.append(spans_of(words))

    def said(reference: list[dict[str, Any]], text: str, skill: float) -> list[dict[str, Any]]:
        found = []
        for span in reference:
            draw = rng.random()
            if draw < skill:
                found.append(span)
            elif draw < skill + 0.4 * (1 - skill):
                found.append(span | {"label": "LOC" if span["label"] == "PER" else "PER"})
            elif draw < skill + 0.7 * (1 - skill) and span["last_word"] > span["first_word"]:
                first = text[span["start"] :].split(" ")[0]
                found.append(span | {"last_word": span["first_word"], "end": span["start"] + len(first)})
        if not reference and rng.random() > skill:
            found.append({"label": "ORG", "start": 0, "end": len(text.split(" ")[0]), "first_word": 0, "last_word": 0})
        return found

    answers = {
        "trivial": [said(right, text, 0.5) for right, text in zip(references, texts, strict=True)],
        "tuned": [said(right, text, 0.85) for right, text in zip(references, texts, strict=True)],
    }
    return lines_of(answers, references, texts)


def spans_of(words: Sequence[str]) -> list[dict[str, Any]]:
    """The spans of a text that is made of these pieces."""
    found, place, start = [], 0, 0
    for piece in words:
        count = len(piece.split(" "))
        if piece in LABELS:
            where = {"start": start, "end": start + len(piece), "first_word": place, "last_word": place + count - 1}
            found.append({"label": LABELS[piece], **where})
        place, start = place + count, start + len(piece) + 1
    return found


def masked_lines(rows: int = 60) -> Lines:
    """Likelihoods of masked tokens."""
    rng = np.random.default_rng(8)
    texts = [f"a text of the field, number {row}" for row in range(rows)]
    nll = {"trivial": 6.0, "base": 3.0, "tuned": 2.0}
    answers = {
        name: [{"nll": float(9 * (mean + rng.normal(0, 0.3))), "tokens": 9} for _ in range(rows)]
        for name, mean in nll.items()
    }
    return lines_of(answers, texts, texts)


def ranked_lines(rows: int = 80) -> Lines:
    """What a search found first, and where it had the right text."""
    rng = np.random.default_rng(9)
    texts = [f"the answer number {row}" for row in range(rows)]

    def said(skill: float) -> list[dict[str, Any]]:
        ranks = np.where(rng.random(rows) < skill, 1, rng.integers(2, rows, rows)).tolist()
        firsts = [texts[row] if rank == 1 else texts[(row + 1) % rows] for row, rank in enumerate(ranks)]
        return [{"first": first, "ranks": [rank]} for first, rank in zip(firsts, ranks, strict=True)]

    answers = {"trivial": said(0.02), "bm25": said(0.4), "base": said(0.5), "tuned": said(0.95)}
    return lines_of(answers, texts, [f"question {row}" for row in range(rows)])


def sequence_lines(rows: int = 60) -> Lines:
    """Texts turned round: some answers as they are, some without a word."""
    rng = random.Random(10)
    sources = [
        " ".join(rng.sample(("the", "light", "in", "kitchen", "is", "on"), 5)) + f" {row}" for row in range(rows)
    ]
    right = [" ".join(reversed(source.split())) for source in sources]
    answers = {"trivial": sources, "translation_memory": right[1:] + right[:1], "base": [""] * rows}
    answers["tuned"] = [text if rng.random() < 0.8 else text.partition(" ")[2] for text in right]
    return lines_of(answers, right, sources)


NAMES = ("art", "business", "law", "medicine", "politics", "science", "sports", "travel")
MANY = tuple(f"chapter {n:02}: {'diseases of the ' * (n % 3)}{'abcdefghij'[n % 10] * 4}" for n in range(22))

# the recipe, the lines and what the task found out, of a run of each kind
MADE: dict[str, tuple[Recipe, Lines, dict[str, Any]]] = {
    "classification": (
        recipe_of("classification", "f1_macro", "accuracy", "auroc", "calibration_error", method="full"),
        label_lines(NAMES),
        {"temperature": 2.0},
    ),
    "many_labels": (
        recipe_of("classification", "f1_macro", "accuracy", method="full"),
        label_lines(MANY, 900),
        {"temperature": 0.7},
    ),
    "multilabel": (recipe_of("multilabel", "f1_macro", "f1_weighted", "accuracy"), set_lines(NAMES), {}),
    "regression": (recipe_of("regression", "rmse", "mae", "r2", "pearson", "spearman"), number_lines(), {}),
    "targets": (
        recipe_of("regression", "rmse", "r2"),
        number_lines(4, scale=250.0, offset=1990.0),
        {"targets": ["year", "valence, felt", "dominance", "arousal"]},
    ),
    "token_classification": (
        recipe_of("token_classification", "f1", "precision", "recall"),
        entity_lines(),
        {},
    ),
    "masked_lm": (recipe_of("masked_lm", "perplexity"), masked_lines(), {}),
    "seq2seq": (
        recipe_of("seq2seq", "chrf", "bleu", "rougeL", "length_ratio"),
        sequence_lines(),
        {"trivial": "copy of the source"},
    ),
    "embedding": (
        recipe_of("embedding", "ndcg", "mrr", "recall_at_1", "recall_at_5", "recall_at_10", method="full"),
        ranked_lines(),
        {"largest_score": None, "trivial": "most frequent first"},
    ),
}
