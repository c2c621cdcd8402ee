"""Rivals that learn from train without fine-tuning: linear models on bags of words, and on the untouched model's features.

    bag_of_words   tf-idf of words and of pairs of neighbours, (1 + log tf) idf, each row of length 1
    linear_probe   the mean of the frozen model's last hidden states, standardised by train, divided by sqrt(D)

On both stand L2-regularised models: logistic regression (multinomial for one label a row, one model a label for label
sets) and ridge. Rows of both have a length of about 1, so one grid of strengths serves both.

They are treated as the tuned model is: they learn from train alone, and what they choose they choose on validation.
There is no second fit on train and validation together, for the tuned model has none, and thresholds and temperatures
found on validation would no longer be of rows that were not learnt. What is best on validation is the caller's to say
(`Judge`): the metric of the verdict, for by log-loss the strength would be too great (on tweets, with 2,400 rows, that
cost the rival 5 points of macro F1), and a weak rival flatters the tuned model. Nothing is drawn at random.

scikit-learn's own words are `\\w\\w+`: no one-letter words, no punctuation, and one word for a whole clause in a script
without spaces. Here each character that is no white space lies in one token: a mark, an emoji or a character of such a
script by itself, and whatever stands between them as a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from pegbox.data.records import Record
from pegbox.metrics import FloatArray, line_statistics, lookup
from pegbox.tasks.base import Predictions

if TYPE_CHECKING:
    from pegbox.tasks.whole_text import WholeTextTask

IntArray = NDArray[np.int64]
Judge = Callable[[FloatArray], tuple[float, ...]]

Predict = Callable[[Any], FloatArray]

STRENGTHS = (1e1, 1.0, 1e-1, 1e-2, 1e-3)  # 1 / C of logistic regression, from the strongest
RIDGES = (1e2, 1e1, 1.0, 1e-1, 1e-2)  # alpha of ridge, likewise
MOST_WORDS = 50_000  # the most frequent ones: each has a weight for every label
MOST_STEPS = 5_000

# characters that are tokens by themselves: ASCII's marks but those within words (' - _), other marks and symbols, emoji,
# and the scripts without spaces (Thai, Lao, Tibetan, Myanmar, Khmer, Chinese, Japanese)
_SINGLE = (
    r"!-&(-,./:-@\[-\^`{-~\u00a1-\u00a9\u00ab-\u00b4\u00b6-\u00b9\u00bb-\u00bf\u0964\u0965"
    r"\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u2000-\u2bff\u3000-\u9fff\uf900-\ufaff\uff00-\uff9f\U0001f000-\U0003ffff"
)
WORDS = rf"[{_SINGLE}]|[^\s{_SINGLE}]+"


@dataclass(frozen=True)
class Inputs:
    """What a linear model is given of each split's rows: [rows, D], dense or sparse."""

    train: Any
    validation: Any
    test: Any


@dataclass(frozen=True)
class Found:
    """What the chosen model says of the rows of validation and of test, float64 [rows, K]; how strongly it was held."""

    validation: FloatArray
    test: FloatArray
    strength: float


def inputs(
    task: WholeTextTask,
    base: PreTrainedModel,
    train: Sequence[Record],
    validation: Sequence[Record],
    test: Sequence[Record],
) -> Iterator[tuple[str, Inputs]]:
    """The name in the contract of each rival and what it is given; one after the other, for they are large."""
    splits = (train, validation, test)
    yield "bag_of_words", bag_of_words(*([task.shown(record) for record in split] for split in splits))
    yield "linear_probe", standardised(*(task.features(base, split) for split in splits))


def bag_of_words(train: Sequence[str], validation: Sequence[str], test: Sequence[str]) -> Inputs:
    """tf-idf, sparse; which words there are, and how rare, is found in train."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # late, as below: few runs need it, all would load it

    if not any(text.strip() for text in train):  # there is no word to learn
        return Inputs(*(np.zeros((len(texts), 1)) for texts in (train, validation, test)))
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=WORDS, max_features=MOST_WORDS)
    return Inputs(words.fit_transform(train), words.transform(validation), words.transform(test))


def standardised(train: FloatArray, validation: FloatArray, test: FloatArray) -> Inputs:
    """Features [rows, D] of mean 0 and deviation 1 / sqrt(D) in train."""
    from sklearn.preprocessing import StandardScaler

    scale = StandardScaler().fit(train)
    return Inputs(*(scale.transform(rows) / np.sqrt(train.shape[1]) for rows in (train, validation, test)))


def by_metric(
    name: str, told: Callable[[FloatArray], Predictions], references: Sequence[Any], truth: FloatArray
) -> Judge:
    """A judge by the metric of that name, of what is `told` of a model's numbers; between equals by their squared error.

    `references`: the right answers of the validation rows, `truth` [rows, K] the numbers that would be right. Where the
    metric is undefined on them the squared error alone decides. Raises RecipeError where the metric does not fit them.
    """
    metric = lookup(name, where="evaluate.primary")

    def judge(numbers: FloatArray) -> tuple[float, ...]:
        said = told(numbers)
        given = said.answers if metric.reads == "answers" else said.probabilities
        lines = [
            {"reference": reference, metric.reads: {"rival": one}}
            for reference, one in zip(references, given, strict=True)
        ]
        value = metric.of(line_statistics(metric, lines)["rival"])
        worth = value if metric.greater_is_better else -value
        return (worth if np.isfinite(worth) else -np.inf, -float(((numbers - truth) ** 2).mean()))

    return judge


def logistic(given: Inputs, train: IntArray, classes: int, judge: Judge) -> Found:
    """The probabilities [rows, classes] of one label a row, `train` [n] being which. A label that train lacks has 0."""
    return _chosen(given, STRENGTHS, judge, lambda strength: _multinomial(given.train, train, classes, strength))


def one_vs_rest(given: Inputs, train: IntArray, judge: Judge) -> Found:
    """The probability [rows, K] of each label by itself, `train` [n, K] being 1 where a row has it.

    A label that no row of train has gets 0, one that all have 1. One strength serves all labels: few have the rows to
    choose their own.
    """

    def fit(strength: float) -> Predict:
        each = [_multinomial(given.train, has, 2, strength) for has in train.T]
        return lambda rows: np.stack([predict(rows)[:, 1] for predict in each], axis=1)

    return _chosen(given, STRENGTHS, judge, fit)


def ridge(given: Inputs, train: FloatArray, judge: Judge) -> Found:
    """Numbers [rows, K], `train` [n, K] being the right ones, on their own scale; a constant target stays constant."""
    from sklearn.linear_model import Ridge

    mean, deviation = train.mean(0), train.std(0)
    deviation = np.where(deviation > 0, deviation, 1.0)

    def fit(strength: float) -> Predict:
        model = Ridge(alpha=strength).fit(given.train, (train - mean) / deviation)
        return lambda rows: model.predict(rows).reshape(-1, train.shape[1]) * deviation + mean

    return _chosen(given, RIDGES, judge, fit)


def _chosen(given: Inputs, strengths: Sequence[float], judge: Judge, fit: Callable[[float], Predict]) -> Found:
    """The model that is best on validation; of equals the one that is held most strongly."""
    best: tuple[tuple[float, ...], float, FloatArray, Predict] | None = None
    for strength in strengths:
        predict = fit(strength)
        said = predict(given.validation)
        worth = judge(said)
        if best is None or worth > best[0]:
            best = worth, strength, said, predict
    assert best is not None
    _, strength, said, predict = best
    return Found(said, predict(given.test), strength)


def _multinomial(rows: Any, labels: IntArray, classes: int, strength: float) -> Predict:
    """What gives the probabilities [rows, classes]; where train has a single label it is certain."""
    from sklearn.linear_model import LogisticRegression

    present = np.unique(labels)
    if len(present) == 1:
        return lambda asked: np.tile(np.eye(classes)[present[0]], (asked.shape[0], 1))
    model = LogisticRegression(C=1 / strength, max_iter=MOST_STEPS).fit(rows, labels)

    def predict(asked: Any) -> FloatArray:
        shares = np.zeros((asked.shape[0], classes))
        shares[:, present] = model.predict_proba(asked)
        return shares

    return predict
