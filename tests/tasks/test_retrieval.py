"""Search among the texts of some rows: ranks, its metrics, and the rivals that know words.

The oracles are a slow version a text at a time, scikit-learn, and sentence-transformers' own evaluators.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import ndcg_score

from pegbox.data.records import MatchedTexts
from pegbox.metrics import METRICS
from pegbox.tasks.embedding import Embedding
from pegbox.tasks.pairs import Likeness, Matching
from pegbox.tasks.retrieval import Search, shared_words


def search_rows(seed: int, count: int = 40) -> list[MatchedTexts]:
    """Rows of which many share texts, and some ask for what others find."""
    draw = random.Random(seed)
    texts = [f"text {n}" for n in range(30)]
    return [MatchedTexts(*draw.sample(texts, 2 + n % 2)) for n in range(count)]


def by_hand(rows: Sequence[MatchedTexts], score: Callable[[str, str], float]) -> list[list[int]]:
    """The ranks of a row's right texts: how many others score higher, and one."""
    texts = {text for row in rows for text in (row.text_pair, row.negative) if text is not None}
    found = []
    for row in rows:
        right = {other.text_pair for other in rows if other.text == row.text}
        among = texts - ({row.text} - right)
        ranks = [1 + sum(score(row.text, other) > score(row.text, text) for other in among) for text in right]
        found.append(sorted(ranks))
    return found


def drawn(text: str, other: str) -> float:
    """A score that no two pairs share."""
    return random.Random(f"{text} {other}").random()


def is_right(rows: Sequence[MatchedTexts], row: MatchedTexts, text: str) -> bool:
    return any(other.text == row.text and other.text_pair == text for other in rows)


# ---- ranks and metrics -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_ranks_and_metrics_are_those_by_hand_and_of_scikit_learn(seed: int) -> None:
    rows = search_rows(seed)
    search = Search(rows)
    scores = np.array([[drawn(row.text, text) for text in search.texts] for row in rows])
    given = search.ranked(scores)
    ranks = by_hand(rows, drawn)
    assert [answer["ranks"] for answer in given.answers] == ranks
    right = np.array([[is_right(rows, row, text) for text in search.texts] for row in rows])
    hidden = np.array([[text == row.text for text in search.texts] for row in rows]) & ~right
    references = [row.text_pair for row in rows]
    found = {name: METRICS[name](given.answers, references) for name in Embedding.metrics}
    wanted = [ndcg_score([r], [np.where(h, -1.0, s)], k=10) for r, s, h in zip(right, scores, hidden, strict=True)]
    assert found["ndcg"] == pytest.approx(np.mean(wanted), abs=1e-12)
    assert found["mrr"] == pytest.approx(np.mean([1 / min(found) for found in ranks]), abs=1e-12)
    for k in (1, 5, 10):
        recalls = [sum(rank <= k for rank in found) / len(found) for found in ranks]
        assert found[f"recall_at_{k}"] == pytest.approx(np.mean(recalls), abs=1e-12)


def test_equal_scores_are_put_in_an_order_that_knows_nothing_of_the_rows() -> None:
    rows = search_rows(3)
    turned = rows[7:] + rows[:7]
    first, second = (
        Search(given).ranked([np.zeros(len(Search(given).texts))] * len(given)) for given in (rows, turned)
    )
    assert second.answers == first.answers[7:] + first.answers[:7]
    assert first.close == len(rows)  # each hangs on rounding
    mean = np.mean([rank for answer in first.answers for rank in answer["ranks"]])
    assert 0.3 * len(Search(rows).texts) < mean < 0.7 * len(Search(rows).texts)


def test_a_missing_ranking_scores_nothing() -> None:
    for name in Embedding.metrics:
        assert METRICS[name]([None, {"first": "a", "ranks": [1]}], ["a", "a"]) == 0.5


# ---- sentence-transformers' evaluators -------------------------------------------------------------------------------


def vectors_of(texts: Sequence[str], seed: int, width: int = 4) -> dict[str, np.ndarray]:
    """A drawn vector of length 1 for each text."""
    draw = np.random.default_rng(seed)
    found = {text: draw.normal(size=width) for text in sorted(set(texts))}
    return {text: vector / np.linalg.norm(vector) for text, vector in found.items()}


def model_with(vectors: dict[str, np.ndarray]) -> Any:
    """What an evaluator takes for a model, with these vectors."""
    encode = lambda texts, **how: torch.tensor(np.stack([vectors[text] for text in texts]))  # noqa: E731
    return SimpleNamespace(encode=encode, encode_query=encode, encode_document=encode)


def asked_of_others(seed: int, count: int = 40) -> list[MatchedTexts]:
    """Rows whose questions are no answers, which the evaluator would find like any other; many share a question."""
    draw = random.Random(seed)
    texts = [f"text {n}" for n in range(60)]
    return [MatchedTexts(f"question {draw.randrange(25)}", *draw.sample(texts, 1 + n % 2)) for n in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_metrics_of_search_are_those_of_sentence_transformers(seed: int) -> None:
    evaluation = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")
    rows = asked_of_others(seed)
    vectors = vectors_of([text for row in rows for text in row.texts], seed)
    corpus = {text: text for row in rows for text in row.texts[1:]}
    evaluator = evaluation.InformationRetrievalEvaluator(
        {str(n): row.text for n, row in enumerate(rows)},
        corpus,
        {str(n): {text for text in corpus if is_right(rows, row, text)} for n, row in enumerate(rows)},
        mrr_at_k=[len(corpus)],
        precision_recall_at_k=[1, 5, 10],
        score_functions={"cosine": lambda one, other: one @ other.T},
    )
    theirs = evaluator.compute_all_metrics(model_with(vectors))["cosine"]
    given = Matching(0.05).answers(rows, vectors)
    ours = {name: METRICS[name](given.answers, [row.text_pair for row in rows]) for name in Embedding.metrics}
    assert ours["ndcg"] == pytest.approx(theirs["ndcg@k"][10], abs=1e-9)
    assert ours["mrr"] == pytest.approx(theirs["mrr@k"][len(corpus)], abs=1e-9)
    for k in (1, 5, 10):
        assert ours[f"recall_at_{k}"] == pytest.approx(theirs["recall@k"][k], abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_metrics_of_likeness_are_those_of_sentence_transformers(seed: int) -> None:
    evaluation = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")
    draw = random.Random(seed)
    rows = [MatchedTexts(f"one {n}", f"other {n}", score=float(draw.randrange(6))) for n in range(30)]
    vectors = vectors_of([text for row in rows for text in row.texts], seed)
    scores = [row.score for row in rows]
    evaluator = evaluation.EmbeddingSimilarityEvaluator(
        [row.text for row in rows], [row.text_pair for row in rows], scores, similarity_fn_names=["cosine"]
    )
    evaluator.store_metrics_in_model_card_data = lambda *given: None
    theirs = evaluator(model_with(vectors))
    given = Likeness(5.0).answers(rows, vectors)
    for name in ("spearman", "pearson"):
        assert METRICS[name](given.answers, scores) == pytest.approx(theirs[f"{name}_cosine"], abs=1e-5)
    assert METRICS["spearman"](given.answers, scores) == pytest.approx(stats.spearmanr(given.answers, scores).statistic)


# ---- rivals ----------------------------------------------------------------------------------------------------------


def okapi(asked: Sequence[str], texts: Sequence[Sequence[str]], k1: float = 1.5, b: float = 0.75) -> list[float]:
    """BM25 as Lucene has it, but for the factor k1 + 1 that changes no order."""
    mean = sum(map(len, texts)) / len(texts)
    found = []
    for text in texts:
        score = 0.0
        for word in asked:
            has = sum(word in other for other in texts)
            often = text.count(word)
            rare = math.log(1 + (len(texts) - has + 0.5) / (has + 0.5))
            score += rare * often / (often + k1 * (1 - b + b * len(text) / mean))
        found.append(score)
    return found


def test_bm25_is_that_of_the_formula() -> None:
    draw, words = random.Random(2), ["dog", "fox", "lazy", "quick", "brown", "the", "over", "jumps"]
    rows = [MatchedTexts(*(" ".join(draw.choices(words, k=3 + n % 5)) for _ in range(2))) for n in range(12)]
    rows.append(MatchedTexts("...", "THE fox, nowhere"))  # no word is asked for
    search = Search(rows)
    texts = [[word.strip(",").lower() for word in text.split()] for text in search.texts]
    scores = [np.round(okapi(row.text.split(), texts), 9) for row in rows]
    assert search.by_bm25().answers == search.ranked(scores).answers


def test_texts_without_a_word_are_all_alike_to_bm25() -> None:
    found = Search([MatchedTexts("a", "..."), MatchedTexts("b", "!?")]).by_bm25()
    assert found.close == 2 and sorted(answer["ranks"][0] for answer in found.answers) == [1, 2]


def test_bm25_reads_scripts_without_spaces() -> None:
    rows = [MatchedTexts("厨房的灯在哪里", "请打开厨房的灯"), MatchedTexts("天气怎么样", "今天的天气很好")]
    assert [answer["ranks"] for answer in Search(rows).by_bm25().answers] == [[1], [1]]


def test_the_trivial_rival_gives_what_was_right_most_often_first() -> None:
    train = [MatchedTexts("x", text) for text in ("b", "c", "b", "c", "c", "d")]
    test = [MatchedTexts(f"y {text}", text) for text in "abcd"]
    answers = Search(test).by_frequency(train).answers
    ranks = {row.text_pair: answer["ranks"][0] for row, answer in zip(test, answers, strict=True)}
    assert ranks == {"c": 1, "b": 2, "d": 3, "a": 4}


def test_the_trivial_score_is_the_mean_of_train_and_has_no_order() -> None:
    train = [MatchedTexts("a", "b", score=score) for score in (0.0, 1.0, 5.0)]
    test = [replace(row, text=f"c {n}") for n, row in enumerate(train)]
    answers = Likeness(5.0).trivial(train, test).answers
    assert answers == (2.0, 2.0, 2.0)
    scores = [row.score for row in test]
    assert METRICS["rmse"](answers, scores) == min(METRICS["rmse"]((n,) * 3, scores) for n in np.linspace(0, 5, 51))
    assert math.isnan(METRICS["spearman"](answers, scores))


def test_shared_words_are_a_cosine() -> None:
    rows = [MatchedTexts("dog fox", "fox dog"), MatchedTexts("dog", "fox"), MatchedTexts("dog fox", "dog")]
    same, none, half = shared_words(rows, rows).tolist()
    assert same == pytest.approx(1) and none == 0 and 0.4 < half < 0.9
    assert shared_words([MatchedTexts("...", "!")], rows).tolist() == [0, 0, 0]  # train has no word
