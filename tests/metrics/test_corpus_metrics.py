"""BLEU, chrF and TER against sacreBLEU, ROUGE against its package, perplexity against its definition.

INVARIANTS row 25: BLEU is sacreBLEU's to 1e-9, and its signature is that of what computed it; with the bugs put in. That it
stands beside the number: `test_seq2seq_answers`, `test_report_page`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rouge_score import rouge_scorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER

from pegbox.metrics import METRICS, Metric, corpus, rouge

WORDS = [
    "the",
    "The",
    "a",
    "lamp",
    "Lampe",
    "door,",
    "is",
    "on",
    "off.",
    "in",
    "kitchen;",
    "küche",
    "12.5",
    "$3",
    "don't",
    "灯",
    "привет",
    "שלום",
    "पानी",
    "😀",
    "(",
    ")",
]
SACREBLEU = {"bleu": BLEU, "chrf": CHRF, "ter": TER}


def value(name: str, answers: Sequence[object], references: Sequence[object]) -> float:
    return value_of(METRICS[name], answers, references)


def value_of(metric: Metric, answers: Sequence[object], references: Sequence[object]) -> float:
    assert metric.value is not None
    return float(metric.value(metric.statistics(answers, references).sum(axis=0)))


def fuzzed(rng: np.random.Generator, n: int) -> tuple[list[str], list[str]]:
    """Pairs from equal to unrelated; some texts are empty, some blank, some shorter than four words."""
    answers, references = [], []
    for _ in range(n):
        reference = list(rng.choice(WORDS, rng.integers(0, 16)))
        keep = rng.random()
        answer = [word if rng.random() < keep else str(rng.choice(WORDS)) for word in reference if rng.random() < 0.9]
        answers.append(" ".join(answer) if rng.random() < 0.95 else rng.choice(["", "  ", "\n"]))
        references.append(" ".join(reference))
    return answers, references


@pytest.mark.parametrize("name", SACREBLEU)
def test_values_of_fuzzed_corpora_are_sacrebleus(name: str) -> None:
    for seed in range(120):
        rng = np.random.default_rng(seed)
        answers, references = fuzzed(rng, int(rng.integers(1, 12)))
        expected = SACREBLEU[name]().corpus_score(answers, [references]).score
        assert value(name, answers, references) == pytest.approx(expected, abs=1e-9)


def check_200_fuzzed_pairs(metric: Metric) -> None:
    """Some have no answer at all, which is an empty one."""
    answers, references = fuzzed(np.random.default_rng(7), 200)
    given = [None if not answer and row % 2 else answer for row, answer in enumerate(answers)]
    assert {None, "", *answers[:3]} < set(given)
    expected = SACREBLEU[metric.name]().corpus_score(answers, [references]).score
    assert 5 < expected < 105
    assert value_of(metric, given, references) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", SACREBLEU)
def test_the_value_of_200_fuzzed_pairs_is_sacrebleus(name: str) -> None:
    check_200_fuzzed_pairs(METRICS[name])


@pytest.mark.parametrize("options", [{"tokenize": "intl"}, {"tokenize": "none"}, {"lowercase": True}], ids=str)
def test_other_words_or_lower_case_are_caught(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(BLEU):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given | options)

    monkeypatch.setattr("sacrebleu.metrics.bleu.BLEU", Other)
    with pytest.raises(AssertionError):
        check_200_fuzzed_pairs(METRICS["bleu"])
    with pytest.raises(AssertionError):
        check_signature("bleu", monkeypatch)


@pytest.mark.parametrize("name", SACREBLEU)
def test_a_mean_over_rows_is_caught(name: str) -> None:
    metric = METRICS[name]

    def each(answers: Sequence[Any], references: Sequence[Any]) -> Any:
        values = metric.value(metric.statistics(answers, references))  # type: ignore[misc]
        return np.stack([values, np.ones_like(values)], axis=1)

    with pytest.raises(AssertionError):
        check_200_fuzzed_pairs(replace(metric, statistics=each, value=lambda sums: sums[..., 0] / sums[..., 1]))


@pytest.mark.parametrize("name", SACREBLEU)
def test_resamples_from_sums_equal_sacrebleu_on_the_resampled_rows(name: str) -> None:
    rng = np.random.default_rng(8)
    answers, references = fuzzed(rng, 30)
    metric = METRICS[name]
    statistics = metric.statistics(answers, references)
    drawn = rng.integers(0, 30, size=(40, 30))
    values = metric.value(statistics[drawn].sum(axis=1))
    for rows, found in zip(drawn, values, strict=True):
        corpus = SACREBLEU[name]().corpus_score([answers[row] for row in rows], [[references[row] for row in rows]])
        assert found == pytest.approx(corpus.score, abs=1e-9)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("", ""),
        ("", "x"),
        ("x", ""),
        ("a b c", "a b c"),
        ("a b c d", "a b c d"),
        ("a b c d e", "a x c y e"),
        ("p q r s t", "a b c d e"),
        ("a a a a", "a b c d e f g h"),
    ],
)
@pytest.mark.parametrize("name", SACREBLEU)
def test_degenerate_sentences_score_as_in_sacrebleu(name: str, answer: str, reference: str) -> None:
    expected = SACREBLEU[name]().corpus_score([answer], [[reference]]).score
    assert value(name, [answer], [reference]) == pytest.approx(expected, abs=1e-9)


def check_signature(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what sacreBLEU prints of the scorer that the statistics come from."""
    used: list[Any] = []
    right = corpus._sacrebleu_statistics
    monkeypatch.setattr(
        corpus, "_sacrebleu_statistics", lambda scorer, *rows: used.append(scorer) or right(scorer, *rows)
    )
    METRICS[name].statistics(["a b"], ["a b"])
    (scorer,) = used
    scorer.corpus_score(["a b"], [["a b"]])
    assert METRICS[name].signature == str(scorer.get_signature())


@pytest.mark.parametrize("name", SACREBLEU)
def test_the_signature_is_that_of_the_scorer_that_counted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_signature(name, monkeypatch)


def test_what_is_counted_as_for_bleu_or_rouge_says_how() -> None:
    assert METRICS["length_ratio"].signature == METRICS["bleu"].signature
    assert {METRICS[name].signature for name in ("rouge1", "rouge2", "rougeL")} == {rouge.ROUGE1.signature}
    assert rouge.ROUGE1.signature.startswith("stem:no|version:")


def test_answers_that_end_in_a_full_stop_cause_no_warnings(caplog: pytest.LogCaptureFixture) -> None:
    METRICS["bleu"].statistics(["it is on ."] * 150, ["it is on ."] * 150)
    assert caplog.records == []


def test_the_length_ratio_is_the_one_that_sacrebleu_tells_beside_bleu() -> None:
    for seed in range(60):
        answers, references = fuzzed(np.random.default_rng(seed), 9)
        expected = BLEU().corpus_score(answers, [references])
        assert value("length_ratio", answers, references) == pytest.approx(expected.ratio, abs=1e-12)


def check_rouge(name: str) -> None:
    """The mean of what its package says of each row; no answer is worth nothing."""
    scorer = rouge_scorer.RougeScorer([name])
    for seed in range(60):
        answers, references = fuzzed(np.random.default_rng(seed), 9)
        rows = [scorer.score(right, said)[name].fmeasure for said, right in zip(answers, references, strict=True)]
        given = [None if not answer.strip() and seed % 2 else answer for answer in answers]
        assert value(name, given, references) == pytest.approx(float(np.mean(rows)), abs=1e-12)


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL"])
def test_rouge_is_its_packages(name: str) -> None:
    check_rouge(name)


def test_recall_in_the_place_of_f1_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    class Recalling(rouge_scorer.RougeScorer):
        def score(self, target: str, prediction: str) -> Any:
            found = super().score(target, prediction)
            return {name: one._replace(fmeasure=one.recall) for name, one in found.items()}

    right = rouge_scorer.RougeScorer
    monkeypatch.setattr(rouge_scorer, "RougeScorer", lambda names, **options: (Recalling if options else right)(names))
    with pytest.raises(AssertionError):
        check_rouge("rouge1")


@pytest.mark.parametrize(
    ("name", "score"),
    [("rouge1", 2 * 4 / 9), ("rouge2", 0.0), ("rougeL", 2 * 3 / 9)],
)
def test_rouge_by_hand(name: str, score: float) -> None:
    """Four of the words are common, no two neighbours are, and three stand in the same order."""
    assert value(name, ["a b c d"], ["a c b d x"]) == pytest.approx(score)
    assert value(name, ["灯"], ["灯"]) == 0  # a script that the package does not know


def perplexity(rows: list[dict[str, float] | None]) -> float:
    return value("perplexity", rows, [""] * len(rows))


def test_perplexity_weighs_tokens_and_not_rows() -> None:
    rows = [{"nll": 2.0, "tokens": 1}, {"nll": 30.0, "tokens": 29}]
    assert perplexity(rows) == pytest.approx(math.exp(32 / 30))
    assert not METRICS["perplexity"].greater_is_better


@pytest.mark.parametrize("answer", [None, {"nll": math.nan, "tokens": 3}, {"nll": math.inf, "tokens": 3}])
def test_a_row_without_a_likelihood_makes_the_perplexity_infinite(answer: dict[str, float] | None) -> None:
    assert perplexity([{"nll": 2.0, "tokens": 4}, answer]) == math.inf


def test_a_perplexity_beyond_floats_is_infinite_and_that_of_nothing_undefined() -> None:
    assert perplexity([{"nll": 1e6, "tokens": 1}]) == math.inf
    assert math.isnan(perplexity([{"nll": 0.0, "tokens": 0}]))


def test_a_mean_of_sentence_scores_is_another_number() -> None:
    """So the tests above do tell a corpus metric from one that is averaged over rows."""
    answers, references = fuzzed(np.random.default_rng(9), 40)
    for name in SACREBLEU:
        statistics = METRICS[name].statistics(answers, references)
        assert abs(METRICS[name].value(statistics).mean() - value(name, answers, references)) > 1
