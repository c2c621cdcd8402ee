"""Linear rivals: every text has words, the regularisation is chosen on validation, what is learnt comes from train alone.

The oracles: scikit-learn called by hand, and tf-idf written out.
"""

from __future__ import annotations

import itertools
import math
import re
import warnings
from collections import Counter
from collections.abc import Sequence

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge

from pegbox.errors import RecipeError
from pegbox.tasks import rivals
from pegbox.tasks.base import Predictions
from pegbox.tasks.rivals import Inputs, bag_of_words, by_metric, logistic, one_vs_rest, ridge, standardised

# ---- words -----------------------------------------------------------------------------------------------------------


@hypothesis.given(st.text())
def test_every_character_that_is_no_white_space_lies_in_one_token(text: str) -> None:
    assert "".join(re.findall(rivals.WORDS, text)) == re.sub(r"\s", "", text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't re-open it!!", ["Don't", "re-open", "it", "!", "!"]),
        ("我要退款 now", ["我", "要", "退", "款", "now"]),
        ("किताब अच्छी है।", ["किताब", "अच्छी", "है", "।"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("good😀😀", ["good", "😀", "😀"]),
        ("a b", ["a", "b"]),
    ],
)
def test_words_are_what_stands_between_spaces_marks_and_scripts_without_spaces(text: str, words: list[str]) -> None:
    assert re.findall(rivals.WORDS, text) == words


def slow_tf_idf(train: Sequence[str], text: str) -> dict[str, float]:
    """(1 + log tf) (log((1 + n) / (1 + df)) + 1), divided by the root of the sum of squares."""

    def terms(given: str) -> Counter[str]:
        words = re.findall(rivals.WORDS, given.lower())
        return Counter([*words, *map(" ".join, itertools.pairwise(words))])

    documents = [terms(each) for each in train]
    found = Counter(term for document in documents for term in document)
    rarity = {term: math.log((1 + len(train)) / (1 + count)) + 1 for term, count in found.items()}
    raw = {term: (1 + math.log(tf)) * rarity[term] for term, tf in terms(text).items() if term in rarity}
    length = math.sqrt(sum(value**2 for value in raw.values()))
    return {term: value / length for term, value in raw.items()}


def test_features_are_tf_idf_of_words_and_pairs_with_what_is_known_from_train() -> None:
    train, asked = ["the dog sleeps", "The dog, the light!", "我要退款"], "the dog the moon 我 要"
    rows = bag_of_words(train, [asked], [asked])
    wanted = [sorted(slow_tf_idf(train, text).values()) for text in (*train, asked)]
    found = [sorted(row[row > 0]) for row in np.vstack([rows.train.toarray(), rows.validation.toarray()])]
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    np.testing.assert_array_equal(rows.test.toarray(), rows.validation.toarray())


HARD = {
    "single letters": (["a", "b"], ["a a", "b b"]),
    "marks": (["!!!", "???"], ["! !", "?"]),
    "Chinese": (["我要退款", "开灯"], ["请退款", "请开灯吧"]),
    "Thai": (["ขอคืนเงิน", "เปิดไฟ"], ["คืนเงิน", "เปิดไฟหน่อย"]),
    "emoji": (["😀😀", "😡"], ["😀", "😡😡"]),
}


def learnt_right(kind: str) -> bool:
    """Whether a bag of words tells two texts' kin apart."""
    train, asked = HARD[kind]
    given = bag_of_words(train * 4, asked, asked)
    found = logistic(given, np.array([0, 1] * 4), 2, lambda numbers: (-float(((numbers - np.eye(2)) ** 2).sum()),))
    return bool((found.test.argmax(axis=1) == [0, 1]).all())


@pytest.mark.parametrize("kind", HARD)
def test_texts_without_words_of_two_letters_are_learnt(kind: str) -> None:
    assert learnt_right(kind)


def test_the_check_sees_words_that_are_scikit_learns_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "WORDS", r"(?u)\b\w\w+\b")
    for kind in ("single letters", "marks", "emoji"):
        with pytest.raises(ValueError, match="empty vocabulary"):
            learnt_right(kind)
    assert not learnt_right("Chinese")


def test_texts_of_white_space_have_no_word_and_are_no_error() -> None:
    given = bag_of_words(["", " \n"], ["dog"], ["", "dog"])
    assert [rows.shape for rows in (given.train, given.validation, given.test)] == [(2, 1), (1, 1), (2, 1)]
    found = logistic(given, np.array([0, 1]), 2, lambda numbers: (0.0,))
    np.testing.assert_allclose(found.test, 0.5)


def test_the_probe_sees_features_of_mean_0_and_deviation_1_over_the_root_of_their_number() -> None:
    draw = np.random.default_rng(0)
    train, other = draw.normal(3, 5, (40, 4)), draw.normal(3, 5, (7, 4))
    train[:, 2] = 1.0  # constant in train
    found = standardised(train, other, other[:2])
    np.testing.assert_allclose(found.train.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(found.train.std(axis=0), [0.5, 0.5, 0, 0.5], atol=1e-12)
    wanted = (other - train.mean(axis=0)) / np.where(train.std(axis=0) > 0, train.std(axis=0), 1) / 2
    np.testing.assert_allclose(found.validation, wanted, atol=1e-12)
    np.testing.assert_allclose(found.test, wanted[:2], atol=1e-12)


# ---- the choice ------------------------------------------------------------------------------------------------------


def made(rows: int = 60, seed: int = 0) -> tuple[Inputs, np.ndarray, np.ndarray, np.ndarray]:
    """Features that say something of three classes, and the classes of train, validation and test."""
    draw = np.random.default_rng(seed)
    classes = draw.integers(0, 3, 3 * rows)
    features = draw.normal(size=(3 * rows, 8)) / 3 + np.eye(8)[classes]
    return Inputs(*np.split(features, 3)), *np.split(classes, 3)


def squared(truth: np.ndarray) -> rivals.Judge:
    return lambda numbers: (-float(((numbers - truth) ** 2).sum()),)


def test_the_chosen_model_has_learnt_train_alone_and_is_the_best_on_validation() -> None:
    given, train, validation, _ = made()
    judge = squared(np.eye(3)[validation])
    found = logistic(given, train, 3, judge)
    tried = {}
    for strength in rivals.STRENGTHS:
        model = LogisticRegression(C=1 / strength, max_iter=5000).fit(given.train, train)
        tried[strength] = judge(model.predict_proba(given.validation)), model.predict_proba(given.test)
    assert found.strength == max(tried, key=lambda strength: tried[strength][0])
    np.testing.assert_array_equal(found.test, tried[found.strength][1])
    assert len({worth for worth, _ in tried.values()}) == len(rivals.STRENGTHS)  # there was something to choose


def test_the_regularisation_follows_the_validation_rows_and_no_others() -> None:
    given, train, validation, _ = made()
    sure = logistic(given, train, 3, squared(np.eye(3)[validation]))
    shuffled = logistic(given, train, 3, squared(np.eye(3)[np.roll(validation, 1)]))
    assert shuffled.strength == max(rivals.STRENGTHS) > sure.strength
    other_test = Inputs(given.train, given.validation, -given.test)
    assert logistic(other_test, train, 3, squared(np.eye(3)[validation])).strength == sure.strength


def test_of_models_that_are_equal_on_validation_the_most_regularised_is_taken() -> None:
    given, train, _, _ = made()
    assert logistic(given, train, 3, lambda numbers: (0.0,)).strength == max(rivals.STRENGTHS)


def test_the_same_rows_give_the_same_bits() -> None:
    given, train, validation, _ = made()
    one, other = (logistic(given, train, 3, squared(np.eye(3)[validation])) for _ in range(2))
    np.testing.assert_array_equal(one.test, other.test)


# ---- the judge -------------------------------------------------------------------------------------------------------


def told(numbers: np.ndarray) -> Predictions:
    """The first of two labels where its number is at least a half."""
    answers = tuple("a" if row[0] >= 0.5 else "b" for row in numbers)
    return Predictions(answers, probabilities=tuple({"a": row[0], "b": row[1]} for row in numbers.tolist()))


def test_the_judge_goes_by_the_metric_and_between_equals_by_the_squared_error() -> None:
    truth = np.array([[1.0, 0], [0, 1], [1, 0]])
    judge = by_metric("accuracy", told, ["a", "b", "a"], truth)
    right, surer = np.array([[0.6, 0.4], [0.4, 0.6], [0.6, 0.4]]), truth
    wrong = np.array([[0.6, 0.4], [0.0, 1.0], [0.49, 0.51]])
    assert judge(surer) > judge(right) > judge(wrong)
    assert judge(right)[0] == 1.0
    assert judge(wrong)[0] == pytest.approx(2 / 3)


def test_the_judge_knows_which_way_a_metric_is_better_and_what_it_reads() -> None:
    truth = np.array([[1.0, 0], [0, 1]])
    for metric in ("auroc", "calibration_error"):
        judge = by_metric(metric, told, ["a", "b"], truth)
        assert judge(truth) > judge(1 - truth), metric
    numbers = by_metric(
        "rmse", lambda given: Predictions(tuple(given[:, 0].tolist())), [1.0, 2.0], np.array([[1.0], [2]])
    )
    assert numbers(np.array([[1.0], [2.1]])) > numbers(np.array([[1.0], [3.0]]))


def test_a_metric_that_is_undefined_on_validation_leaves_the_choice_to_the_squared_error() -> None:
    judge = by_metric("auroc", told, ["a", "a"], np.array([[1.0, 0], [1, 0]]))
    assert judge(np.array([[1.0, 0], [1, 0]])) > judge(np.array([[0.5, 0.5], [1, 0]]))


def test_a_metric_that_does_not_fit_is_refused() -> None:
    with pytest.raises(RecipeError, match="rmse"):
        by_metric("rmse", told, ["a", "b"], np.eye(2))(np.eye(2))


# ---- hard labels -----------------------------------------------------------------------------------------------------


def test_a_label_that_train_lacks_has_probability_0_and_the_others_share_1() -> None:
    given, train, validation, _ = made()
    found = logistic(given, train + 1, 5, squared(np.eye(5)[validation + 1]))
    np.testing.assert_array_equal(found.test[:, [0, 4]], 0)
    np.testing.assert_allclose(found.test.sum(axis=1), 1)


def test_a_train_with_a_single_label_is_certain_of_it() -> None:
    given, train, _, _ = made()
    found = logistic(given, np.full_like(train, 2), 3, lambda numbers: (0.0,))
    np.testing.assert_array_equal(found.test, np.tile([0, 0, 1.0], (60, 1)))
    np.testing.assert_array_equal(found.validation, found.test)


def test_each_label_of_a_set_is_a_logistic_regression_of_its_own_with_one_strength_for_all() -> None:
    given, *splits = made()
    train, validation, _ = ((each[:, None] >= [1, 2, 0, 9]).astype(int) for each in splits)
    found = one_vs_rest(given, train, squared(validation.astype(float)))
    for column in (0, 1):
        model = LogisticRegression(C=1 / found.strength, max_iter=5000).fit(given.train, train[:, column])
        np.testing.assert_array_equal(found.test[:, column], model.predict_proba(given.test)[:, 1])
    np.testing.assert_array_equal(found.test[:, 2:], np.tile([1.0, 0.0], (60, 1)))  # all have it; none


def test_ridge_is_scikit_learns_on_standardised_targets_and_follows_their_scale() -> None:
    given, train, validation, _ = made()
    targets, wanted = (np.stack([each, each**2 + 1.0, 0 * each + 7.0], axis=1) for each in (train, validation))
    found = ridge(given, targets, squared(wanted))
    mean, deviation = targets.mean(axis=0), np.array([*targets.std(axis=0)[:2], 1.0])
    model = Ridge(alpha=found.strength).fit(given.train, (targets - mean) / deviation)
    np.testing.assert_allclose(found.test, model.predict(given.test) * deviation + mean, rtol=1e-12)
    np.testing.assert_allclose(found.test[:, 2], 7.0)
    scaled = ridge(given, targets * 1000 - 5, squared(wanted * 1000 - 5))
    assert scaled.strength == found.strength
    np.testing.assert_allclose(scaled.test, found.test * 1000 - 5, rtol=1e-9)
    single = ridge(given, targets[:, :1], squared(wanted[:, :1]))
    assert single.test.shape == (60, 1)


def hard_case(name: str) -> tuple[Inputs, np.ndarray, np.ndarray]:
    """Inputs on which an optimiser might give up, and the classes of train and validation."""
    draw = np.random.default_rng(1)
    texts = [" ".join(f"w{n}" for n in draw.integers(0, 400, 12)) for _ in range(300)]
    classes = draw.integers(0, 20, 300)
    if name == "one row a label":
        return bag_of_words(texts[:20], texts[:20], texts[20:40]), np.arange(20), np.arange(20)
    if name == "each text under every label":
        return bag_of_words(texts[:5] * 20, texts[:5], texts[:5]), np.repeat(np.arange(20), 5), classes[:5]
    if name == "wide features of unlike scales":
        wide = draw.normal(size=(300, 384)) * 10.0 ** draw.integers(-6, 6, 384)
        return standardised(wide[:200], wide[200:250], wide[250:]), classes[:200], classes[200:250]
    if name == "features in step with each other":
        thin = np.repeat(draw.normal(size=(300, 1)), 64, axis=1) + 1e-9 * draw.normal(size=(300, 64))
        return standardised(thin[:200], thin[200:250], thin[250:]), classes[:200], classes[200:250]
    return bag_of_words(texts[:200], texts[200:250], texts[250:]), classes[:200], classes[200:250]


@pytest.mark.parametrize(
    "name",
    [
        "random words",
        "one row a label",
        "each text under every label",
        "wide features of unlike scales",
        "features in step with each other",
    ],
)
def test_every_fit_comes_to_its_end_without_a_warning(name: str) -> None:
    given, train, validation = hard_case(name)
    truth = np.eye(20)[validation]

    order = itertools.count()  # so that every strength is tried and the least taken
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert logistic(given, train, 20, lambda numbers: (float(next(order)),)).strength == min(rivals.STRENGTHS)
        one_vs_rest(given, np.eye(20, dtype=int)[train][:, :4], squared(truth[:, :4]))
        ridge(given, np.eye(20)[train][:, :3], squared(truth[:, :3]))
