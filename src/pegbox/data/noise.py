"""Which rows probably have the wrong label: confident learning (Northcutt et al. 2021, arXiv 1911.00068).

    p [n, K]   what a scorer that has not learnt the row says of it (stratified k-fold)
    score      log(p_j / p_given), j being the likeliest other label: the rows are ranked by it
    t_j        the mean of p_j over the rows that are labelled j: how sure the scorer is of j where j is given

The paper reports a row where p_j >= t_j. By that alone every twelfth clean row of a hard set is accused, a rare label,
whose t_j is next to nothing, draws rows to itself, and of labels that have nothing to do with their texts each third is
doubted. So a row is reported where besides

    p_j / p_given > 10, also when each is divided by its label's share of the rows: a frequent label is no argument;
    the scorer knows j: of the rows that it takes for j and is as sure of as t_j, others' share is at most 2/3 of what
    it is of all rows.

Then at most 0.4 % of clean rows are reported; where 10 % of the labels were changed, more than nine in ten of those that
are reported were, and few are reported where words hardly tell the labels (`benchmarks/label_noise.py`).

The scorer is a bag of words, tf-idf of words and pairs of neighbours, hashed so that memory is bounded, under one
logistic regression a label, solved in the dual: that ranks as well as a multinomial one at a fifth of the time. Which
hash a word has and how rare it is is no label's doing, so that the features are made once for all folds.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Scorer = Callable[[Sequence[str], IntArray, Sequence[str]], FloatArray]
"""(texts to learn, the number of each one's label [n], other texts) -> float [others, K]: probabilities of each label."""

FOLDS = 5  # a label with fewer rows is not judged: some fold would know nothing of it
FEWEST = 50  # rows: of fewer, nothing is said
ODDS = 10.0  # another label must be so many times as likely as the given one
KNOWN = 2 / 3  # of the share of other labels, at most, where the scorer is sure of one
LEAST = 1e-9  # a probability: below it there is nothing to tell apart
HASHED = 2**18  # features
STRENGTH = 10.0  # C of logistic regression

# words; signs by themselves; and characters of scripts without spaces (Thai to Myanmar, Khmer, Japanese, Chinese)
_SINGLE = "\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORDS = rf"[{_SINGLE}]|[^\W{_SINGLE}]+|[^\w\s]"


@dataclass(frozen=True)
class Suspect:
    """A row by its index, its label, the one that would fit better, and log(p_suggested / p_given).

    `reported`: beyond all thresholds, so that a person should look at it.
    """

    index: int
    given: str
    suggested: str
    score: float
    reported: bool


def suspects(texts: Sequence[str], labels: Sequence[str], *, scorer: Scorer | None = None, seed: int) -> list[Suspect]:
    """The rows that a person should look at, the most suspicious first."""
    return [row for row in ranked(texts, labels, scorer=scorer, seed=seed) if row.reported]


def ranked(texts: Sequence[str], labels: Sequence[str], *, scorer: Scorer | None = None, seed: int) -> list[Suspect]:
    """Every row that can be judged, the most suspicious first; none where rows or labels are too few.

    `scorer`: by default the bag of words; `seed`: of the folds.
    """
    counts = Counter(labels)
    names = sorted(name for name, count in counts.items() if count >= FOLDS)
    rows = [index for index, label in enumerate(labels) if counts[label] >= FOLDS]
    if len(rows) < FEWEST or len(names) < 2:
        return []
    number = {name: place for place, name in enumerate(names)}
    given = np.array([number[labels[index]] for index in rows], dtype=np.int64)
    shares = out_of_fold([texts[index] for index in rows], given, scorer, seed)
    suggested, score, reported = judge(shares, given)
    return [
        Suspect(rows[at], names[given[at]], names[suggested[at]], float(score[at]), bool(reported[at]))
        for at in np.argsort(-score, kind="stable").tolist()
    ]


def judge(shares: FloatArray, given: IntArray) -> tuple[IntArray, FloatArray, NDArray[np.bool_]]:
    """Of probabilities [n, K] and labels [n]: the likeliest other label [n], its log odds [n], whether to report it [n].

    Each label must have a row.
    """
    rows, counts = np.arange(len(given)), np.bincount(given)
    own = shares[rows, given]
    others = shares.copy()
    others[rows, given] = -1.0
    suggested = others.argmax(axis=1)
    best = others[rows, suggested]
    score = np.log(np.maximum(best, LEAST)) - np.log(np.maximum(own, LEAST))
    by_share = score - np.log(counts[suggested] / counts[given])
    sure = np.bincount(given, own) / counts
    reported = (best >= sure[suggested]) & (np.minimum(score, by_share) > np.log(ODDS))
    return suggested, score, reported & _known(shares, given, sure)[suggested]


def _known(shares: FloatArray, given: IntArray, sure: FloatArray) -> NDArray[np.bool_]:
    """bool [K]: whether, where the scorer is `sure` [K] of a label, others are rarer than among all rows."""
    top = shares.argmax(axis=1)
    taken = shares[np.arange(len(given)), top] >= sure[top]
    said = np.bincount(top[taken], minlength=len(sure))
    wrong = np.bincount(top[taken & (top != given)], minlength=len(sure))
    of_all = 1 - np.bincount(given) / len(given)
    known: NDArray[np.bool_] = wrong <= KNOWN * of_all * said
    return known


def out_of_fold(texts: Sequence[str], given: IntArray, scorer: Scorer | None, seed: int) -> FloatArray:
    """float [n, K]: what is said of each row by a scorer that learnt the other folds."""
    from sklearn.model_selection import StratifiedKFold  # late, as below: few commands need it, all would load it

    shares = np.zeros((len(given), int(given.max()) + 1))
    features: Any = bag_of_words(texts) if scorer is None else None
    for learnt, asked in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(given, given):
        if scorer is None:
            shares[asked] = logistic(features[learnt], given[learnt], features[asked], seed)
        else:
            shares[asked] = scorer([texts[i] for i in learnt], given[learnt], [texts[i] for i in asked])
    return shares


def bag_of_words(texts: Sequence[str]) -> Any:
    """tf-idf, sparse float32 [n, HASHED], each row of length 1."""
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    words = HashingVectorizer(
        n_features=HASHED, ngram_range=(1, 2), token_pattern=WORDS, alternate_sign=False, norm=None, dtype=np.float32
    )
    return TfidfTransformer(sublinear_tf=True).fit_transform(words.transform(texts))


def logistic(learnt: Any, given: IntArray, asked: Any, seed: int) -> FloatArray:
    """float [m, K]: a logistic regression a label, their probabilities made to add up to one."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    one = LogisticRegression(C=STRENGTH, solver="liblinear", dual=True, tol=0.1, random_state=seed)
    with warnings.catch_warnings():  # a ranking does not need the optimum, and the bound on steps bounds the time
        warnings.simplefilter("ignore", ConvergenceWarning)
        shares: FloatArray = OneVsRestClassifier(one).fit(learnt, given).predict_proba(asked)
    return shares
