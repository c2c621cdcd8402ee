"""Metrics of a whole corpus: bleu, chrf, ter, length_ratio, perplexity.

    bleu       = 100 BP (p_1 p_2 p_3 p_4)^(1/4), p_n = matched / given n-grams of words over the corpus, BP = exp(1 - r/c)
                 for a corpus of c words under the references' r (Papineni et al. 2002); exponential smoothing
    chrf       = 100 (1 + 4) P R / (4 P + R), precision and recall of character 1- to 6-grams, averaged over the orders
                 that occur on both sides (Popovic 2015)
    ter        = 100 edits / words of the references; an edit inserts, deletes or replaces a word, or shifts several
                 (Snover et al. 2006). The search for shifts takes a second for a text of 60 words that is all wrong
    length_ratio = c / r, as BLEU counts words: below 1 the answers are too short, and neither way is better
    perplexity = exp(sum of negative log-likelihoods in nats / sum of tokens)

The statistics of BLEU, chrF and TER are sacreBLEU's own, per sentence (Post 2018). Its score of a corpus takes a loop in Python;
the same formula stands here over any leading dimensions, as 10,000 resamples need it, and a test holds both together.

A missing answer (None) is an empty text in the first four, and of infinite perplexity. So is an answer whose likelihood
is NaN: a model that gives no probability predicts as badly as can be, and NaN would spoil every sum without saying so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from pegbox.metrics.base import TEXTS, FloatArray, Kind, Metric, divide

LIKELIHOODS = Kind(
    "likelihoods of texts", lambda answer, reference: isinstance(answer, Mapping) and answer.keys() >= {"nll", "tokens"}
)
_BLEU_ORDER = 4
_CHRF_BETA_SQUARED = 4.0


def _sacrebleu_statistics(scorer: Any, answers: Sequence[Any], references: Sequence[Any]) -> FloatArray:
    """Per row what sacreBLEU adds up; it has no public name for that, and its own bootstrap uses this one."""
    texts = ["" if answer is None else answer for answer in answers]
    rows = scorer._extract_corpus_statistics(texts, [list(references)]) if texts else []
    return np.array(rows, dtype=np.float64).reshape(len(texts), -1)


def _bleu_statistics(answers: Sequence[Any], references: Sequence[Any]) -> FloatArray:
    """[n, 10]: words of the answer, words of the reference, matched 1- to 4-grams, given 1- to 4-grams."""
    from sacrebleu.metrics.bleu import BLEU  # imported late: it brings its data sets' catalogue along

    # `force`: no warning about answers that end in " ."; the score is the same
    return _sacrebleu_statistics(BLEU(force=True), answers, references)


def _bleu(sums: FloatArray) -> FloatArray:
    given_words, reference_words = sums[..., 0], sums[..., 1]
    matched, given = sums[..., 2 : 2 + _BLEU_ORDER], sums[..., 2 + _BLEU_ORDER :]
    # the i-th order without a match counts as a match of 1 / 2^i
    halvings = 0.5 ** np.cumsum(matched == 0, axis=-1)
    precisions = divide(np.where(matched == 0, halvings, matched), given, empty=0.0)
    shortness = divide(reference_words, given_words, empty=np.inf)
    brevity = np.exp(np.minimum(0.0, 1.0 - shortness))
    defined = (matched.sum(axis=-1) > 0) & (given > 0).all(axis=-1)
    logarithms = np.log(np.where(defined[..., None], precisions, 1.0))
    return np.where(defined, 100.0 * brevity * np.exp(logarithms.mean(axis=-1)), 0.0)


def _chrf_statistics(answers: Sequence[Any], references: Sequence[Any]) -> FloatArray:
    """[n, 18]: for each order 1 to 6, n-grams of the answer, of the reference, and in common."""
    from sacrebleu.metrics.chrf import CHRF

    return _sacrebleu_statistics(CHRF(), answers, references)


def _chrf(sums: FloatArray) -> FloatArray:
    counts = sums.reshape(*sums.shape[:-1], -1, 3)
    given, wanted, matched = counts[..., 0], counts[..., 1], counts[..., 2]
    occurs = (given > 0) & (wanted > 0)
    orders = occurs.sum(axis=-1)
    precision = divide(np.where(occurs, divide(matched, given, empty=0.0), 0.0).sum(axis=-1), orders, empty=0.0)
    recall = divide(np.where(occurs, divide(matched, wanted, empty=0.0), 0.0).sum(axis=-1), orders, empty=0.0)
    weighted = _CHRF_BETA_SQUARED * precision + recall
    return 100.0 * divide((1.0 + _CHRF_BETA_SQUARED) * precision * recall, weighted, empty=0.0)


def _ter_statistics(answers: Sequence[Any], references: Sequence[Any]) -> FloatArray:
    """[n, 2]: edits, words of the reference."""
    from sacrebleu.metrics.ter import TER

    return _sacrebleu_statistics(TER(), answers, references)


def _ter(sums: FloatArray) -> FloatArray:
    edits, words = sums[..., 0], sums[..., 1]
    return 100.0 * np.where(words > 0, divide(edits, words, empty=0.0), edits > 0)


def _length_statistics(answers: Sequence[Any], references: Sequence[Any]) -> FloatArray:
    """[n, 2]: words of the answer, words of the reference."""
    return _bleu_statistics(answers, references)[:, :2]


def _length_ratio(sums: FloatArray) -> FloatArray:
    return divide(sums[..., 0], sums[..., 1], empty=0.0)


def _likelihood_statistics(answers: Sequence[Any], references: Sequence[Any]) -> FloatArray:
    """[n, 2] from answers `{"nll": nats, "tokens": number}`; the references are part of the likelihood already."""
    assert len(answers) == len(references), f"{len(answers)} answers to {len(references)} rows"
    rows = np.zeros((len(answers), 2))
    for row, answer in enumerate(answers):
        nll, tokens = (math.nan, 1.0) if answer is None else (float(answer["nll"]), float(answer["tokens"]))
        rows[row] = (math.inf if math.isnan(nll) else nll), tokens
    return rows


def _perplexity(sums: FloatArray) -> FloatArray:
    with np.errstate(over="ignore"):  # beyond exp(709) it is infinite
        return np.exp(divide(sums[..., 0], sums[..., 1], empty=np.nan))


BLEU_METRIC = Metric(
    "bleu",
    _bleu_statistics,
    _bleu,
    greater_is_better=True,
    kind=TEXTS,
    signature=f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{version('sacrebleu')}",
)
CHRF_METRIC = Metric(
    "chrf",
    _chrf_statistics,
    _chrf,
    greater_is_better=True,
    kind=TEXTS,
    signature=f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{version('sacrebleu')}",
)
TER_METRIC = Metric(
    "ter",
    _ter_statistics,
    _ter,
    greater_is_better=False,
    kind=TEXTS,
    signature=f"nrefs:1|case:lc|tok:tercom|norm:no|punct:yes|asian:no|version:{version('sacrebleu')}",
)
LENGTH_RATIO = Metric(
    "length_ratio",
    _length_statistics,
    _length_ratio,
    greater_is_better=True,
    kind=TEXTS,
    describes=True,
    signature=BLEU_METRIC.signature,
)
PERPLEXITY = Metric("perplexity", _likelihood_statistics, _perplexity, greater_is_better=False, kind=LIKELIHOODS)
