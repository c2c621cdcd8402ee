"""BLEU and chrF against sacreBLEU, perplexity against its definition."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from pegbox.metrics import METRICS

WORDS = [
    "the",
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
    "😀",
    "(",
    ")",
]
SACREBLEU = {"bleu": BLEU, "chrf": CHRF}


def value(name: str, answers: Sequence[object], references: Sequence[object]) -> float:
    metric = METRICS[name]
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


@pytest.mark.parametrize("name", SACREBLEU)
def test_the_value_of_200_fuzzed_pairs_is_sacrebleus(name: str) -> None:
    answers, references = fuzzed(np.random.default_rng(7), 200)
    expected = SACREBLEU[name]().corpus_score(answers, [references]).score
    assert 5 < expected < 95
    assert value(name, answers, references) == pytest.approx(expected, abs=1e-9)


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


@pytest.mark.parametrize("name", SACREBLEU)
def test_the_signature_is_the_one_sacrebleu_prints(name: str) -> None:
    scorer = SACREBLEU[name]()
    scorer.corpus_score(["a b"], [["a b"]])
    assert METRICS[name].signature == str(scorer.get_signature())


def test_answers_that_end_in_a_full_stop_cause_no_warnings(caplog: pytest.LogCaptureFixture) -> None:
    METRICS["bleu"].statistics(["it is on ."] * 150, ["it is on ."] * 150)
    assert caplog.records == []


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
