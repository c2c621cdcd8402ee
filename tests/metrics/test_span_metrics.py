"""Entity spans against seqeval: the spans that tags mean, and the scores of whole corpora."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities

from pegbox.metrics import METRICS, spans_of_tags

ORACLES = {"f1": f1_score, "precision": precision_score, "recall": recall_score}
TYPES = ["PER", "LOC", "Straße-2", "人"]
# first those of a scheme, then bare ones, and such as are none
PREFIXES = {"BIO": "BIO", "BIOES": "BIOES", "IOB1": "IO", "I alone": "I"}
STRANGE = ["O", "B", "I", "E", "S", "PER", "B-", "I-", "O-PER", "X-LOC", "X", "I-PER", "E-LOC", ".-PER", "B-LOC"]


def drawn_tags(rng: np.random.Generator, scheme: str, length: int) -> list[str]:
    """Any order of tags: most are inconsistent."""
    types = rng.choice(TYPES, rng.integers(1, 3))
    prefixes = rng.choice(list(PREFIXES[scheme]), length)
    return ["O" if prefix == "O" else f"{prefix}-{rng.choice(types)}" for prefix in prefixes]


def changed(rng: np.random.Generator, tags: Sequence[str], other: Sequence[str]) -> list[str]:
    keep = rng.random()
    return [one if rng.random() < keep else two for one, two in zip(tags, other, strict=True)]


def answers_of(tags: Sequence[Sequence[str]]) -> list[list[dict[str, Any]]]:
    return [
        [
            {"label": label, "start": 7 * first, "end": 7 * last + 6, "first_word": first, "last_word": last}
            for label, first, last in spans_of_tags(row)
        ]
        for row in tags
    ]


def test_the_spans_of_1000_fuzzed_rows_of_each_scheme_are_seqevals() -> None:
    for seed in range(1_000):
        rng = np.random.default_rng(seed)
        for scheme in PREFIXES:
            tags = drawn_tags(rng, scheme, int(rng.integers(0, 12)))
            assert spans_of_tags(tags) == get_entities(tags)


def test_tags_of_no_scheme_are_read_as_seqeval_reads_them() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "seems not to be NE tag"
        for seed in range(1_000):
            rng = np.random.default_rng(seed)
            tags = rng.choice(STRANGE, rng.integers(0, 10)).tolist()
            assert spans_of_tags(tags) == get_entities(tags)


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("B-PER I-PER O B-LOC", [("PER", 0, 1), ("LOC", 3, 3)]),
        ("B-PER B-PER", [("PER", 0, 0), ("PER", 1, 1)]),
        ("I-PER I-PER B-PER I-LOC", [("PER", 0, 1), ("PER", 2, 2), ("LOC", 3, 3)]),  # IOB1, and a change of type
        ("B-PER I-PER E-PER S-LOC", [("PER", 0, 2), ("LOC", 3, 3)]),
        ("O I-PER E-LOC O", [("PER", 1, 1), ("LOC", 2, 2)]),
        ("PER PER O", [("ER", 0, 1)]),  # without "-" the first letter is the prefix
        ("", []),
        ("O O", []),
    ],
)
def test_the_spans_of_worked_examples(tags: str, spans: list[tuple[str, int, int]]) -> None:
    assert spans_of_tags(tags.split()) == spans


@pytest.mark.parametrize("name", ORACLES)
def test_values_of_1000_fuzzed_corpora_are_seqevals(name: str) -> None:
    seen = set()
    for seed in range(1_000):
        rng = np.random.default_rng(seed)
        scheme = str(rng.choice(list(PREFIXES)))
        true = [drawn_tags(rng, scheme, int(rng.integers(0, 9))) for _ in range(rng.integers(1, 8))]
        given = [changed(rng, row, drawn_tags(rng, scheme, len(row))) for row in true]
        if rng.random() < 0.1:
            given = [["O"] * len(row) for row in true]
        if rng.random() < 0.1:
            true = [["O"] * len(row) for row in true]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = ORACLES[name](true, given)
        assert METRICS[name](answers_of(given), answers_of(true)) == pytest.approx(expected, abs=1e-12)
        seen.add(expected)
    assert {0.0, 1.0} < seen and len(seen) > 50


def token_f1(given: Sequence[str], true: Sequence[str]) -> float:
    """What is wrongly reported as F1 of entities: right tags among those that are not O."""
    right = sum(one == two != "O" for one, two in zip(given, true, strict=True))
    return 2 * right / (sum(tag != "O" for tag in given) + sum(tag != "O" for tag in true))


def test_whole_spans_count_and_not_words() -> None:
    """INVARIANTS 36. Mutation: F1 over tags, which calls a span that ends too early nearly right."""
    true, given = ["B-ORG", "I-ORG", "I-ORG", "O"], ["B-ORG", "I-ORG", "O", "O"]
    assert token_f1(given, true) == 0.8
    assert METRICS["f1"](answers_of([given]), answers_of([true])) == f1_score([true], [given]) == 0.0


def test_counts_are_added_up_over_rows_and_f1_is_not_averaged() -> None:
    """INVARIANTS 24. Mutation: the mean of the rows' F1."""
    true = [["B-PER"] * 9, ["B-PER", "O"]]
    given = [["B-PER"] * 9, ["O", "B-PER"]]
    assert METRICS["f1"](answers_of(given), answers_of(true)) == pytest.approx(0.9)
    assert METRICS["f1"].by_row(METRICS["f1"].statistics(answers_of(given), answers_of(true))).mean() == 0.5


def a_span(**changes: Any) -> dict[str, Any]:
    return {"label": "PER", "start": 0, "end": 9, "first_word": 0, "last_word": 1} | changes


def test_label_and_words_make_a_span_right_and_characters_do_not() -> None:
    f1 = METRICS["f1"]
    assert f1([[a_span(start=1, end=3)]], [[a_span()]]) == 1.0
    for wrong in ({"label": "LOC"}, {"first_word": 1}, {"last_word": 2}):
        assert f1([[a_span(**wrong)]], [[a_span()]]) == 0.0
    assert f1([[a_span(), a_span()]], [[a_span()]]) == 1.0  # said twice is said once, as in seqeval


def test_a_span_is_right_in_its_own_row_only() -> None:
    """Mutation: the spans of all rows thrown together."""
    assert METRICS["recall"]([[a_span()], []], [[], [a_span()]]) == 0.0


def test_a_missing_answer_is_one_wrong_span_and_no_answer_without_spans() -> None:
    answers, references = [[a_span()], []], [[a_span()], []]
    assert [METRICS[name](answers, references) for name in ORACLES] == [1.0, 1.0, 1.0]
    assert METRICS["f1"]([[a_span()], None], references) == pytest.approx(2 / 3)
    assert METRICS["precision"]([[a_span()], None], references) == 0.5
    assert METRICS["recall"]([[a_span()], None], references) == 1.0
