"""Wrong labels are found: the ranking by scikit-learn's own out-of-fold predictions, thresholds by a slow version."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from pegbox.data import noise
from pegbox.data.doctor import label_noise
from pegbox.data.doctor.label_noise import LabelNoise
from pegbox.data.records import LabelledText, PromptCompletion, Record
from pegbox.recipe import Recipe, validate

TOPICS = {
    "cooking": "salt oven butter onion knead simmer flour taste",
    "sailing": "mast wind harbour keel anchor tack sail tide",
    "chess": "pawn rook castle check bishop mate opening board",
}
COMMON = "the a then when with very much of and some it was"


def rows(count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Texts of a topic's words among common ones."""
    rng, names = random.Random(seed), sorted(TOPICS)
    labels = [names[i % len(names)] for i in range(count)]
    texts = [" ".join(rng.choices(TOPICS[label].split(), k=4) + rng.choices(COMMON.split(), k=8)) for label in labels]
    return texts, labels


def flipped(labels: Sequence[str], share: float = 0.1, seed: int = 1) -> tuple[set[int], list[str]]:
    rng, names, given = random.Random(seed), sorted(set(labels)), list(labels)
    changed = set(rng.sample(range(len(labels)), int(share * len(labels))))
    for index in changed:
        given[index] = rng.choice([name for name in names if name != labels[index]])
    return changed, given


def recipe(task: str = "classification", **more: Any) -> Recipe:
    return validate(
        {"model": "m", "task": task, "data": {"train": "rows.jsonl"}, "train": {"learning_rate": 1e-3}} | more
    )


# ---- the ranking -----------------------------------------------------------------------------------------------------


def test_changed_labels_stand_first_and_the_right_one_is_suggested() -> None:
    texts, labels = rows(600)
    changed, given = flipped(labels)
    ranked = noise.ranked(texts, given, seed=3)
    assert sorted(row.index for row in ranked) == list(range(600))
    assert [row.score for row in ranked] == sorted((row.score for row in ranked), reverse=True)
    first = ranked[: int(0.15 * 600)]
    assert len(changed & {row.index for row in first}) >= 0.95 * len(changed)
    found = noise.suspects(texts, given, seed=3)
    assert found == [row for row in ranked if row.reported] and len(found) >= 0.7 * len(changed)
    assert sum(row.index in changed for row in found) >= 0.9 * len(found)
    for row in found:
        assert row.given == given[row.index]
        assert row.index not in changed or row.suggested == labels[row.index]


def test_clean_labels_are_hardly_ever_doubted() -> None:
    texts, labels = rows(900, seed=5)
    assert len(noise.suspects(texts, labels, seed=0)) <= 0.005 * 900


def test_labels_that_texts_do_not_tell_are_hardly_ever_doubted() -> None:
    texts, labels = rows(900, seed=6)
    random.Random(2).shuffle(labels)
    assert not noise.suspects(texts, labels, seed=0)


def test_a_rare_label_that_texts_do_not_tell_is_not_doubted_for_being_rare() -> None:
    texts, _ = rows(900, seed=7)
    labels = ["rare" if n % 12 == 0 else "frequent" for n in range(900)]
    random.Random(3).shuffle(labels)
    assert not noise.suspects(texts, labels, seed=0)


def test_any_scorer_is_asked_out_of_fold_and_ranks_as_scikit_learns_cross_validation_does() -> None:
    texts, labels = rows(240)
    _, given = flipped(labels, 0.2)
    names, seed = sorted(set(labels)), 4
    numbers = np.array([names.index(label) for label in given])
    model = make_pipeline(TfidfVectorizer(), LogisticRegression())

    def scorer(learnt: Sequence[str], known: noise.IntArray, asked: Sequence[str]) -> noise.FloatArray:
        return np.asarray(model.fit(learnt, known).predict_proba(asked))

    folds = StratifiedKFold(noise.FOLDS, shuffle=True, random_state=seed)
    wanted = cross_val_predict(model, texts, numbers, cv=folds, method="predict_proba")
    ranked = noise.ranked(texts, given, scorer=scorer, seed=seed)
    for row in ranked:
        own, *others = wanted[row.index][numbers[row.index]], *np.delete(wanted[row.index], numbers[row.index])
        assert row.score == pytest.approx(np.log(max(others) / own))
        assert wanted[row.index][names.index(row.suggested)] == max(others)
    assert ranked != noise.ranked(texts, given, scorer=scorer, seed=5)
    assert ranked != noise.ranked(texts, given, seed=seed)


def test_a_row_is_reported_beyond_every_threshold_and_each_of_them_matters() -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice(4, 600, p=[0.55, 0.25, 0.15, 0.05])
    shares = np.stack([rng.dirichlet(0.5 + 4 * (np.arange(4) == label)) for label in truth])
    lean = rng.random(600) < 0.3  # the scorer takes rows for the second label that have nothing to do with it
    shares[truth == 1] = rng.dirichlet([0.5] * 4, int((truth == 1).sum()))
    shares[lean] = 0.999 * rng.dirichlet([0.1, 0.8, 0.1, 0.1], int(lean.sum())) + 0.001 / 4
    given = np.where(rng.random(600) < 0.2, rng.integers(0, 4, 600), truth)
    suggested, score, reported = noise.judge(shares, given)
    alone = dict.fromkeys(("sure", "odds", "share", "known"), 0)
    for n in range(600):
        p, own = shares[n], given[n]
        best = max((j for j in range(4) if j != own), key=lambda j: p[j])
        sure = {j: np.mean([shares[m, j] for m in range(600) if given[m] == j]) for j in range(4)}
        taken = [m for m in range(600) if shares[m].argmax() == best and shares[m, best] >= sure[best]]
        wrong = np.mean([given[m] != best for m in taken])
        rules = {
            "sure": p[best] >= sure[best],
            "odds": p[best] / p[own] > noise.ODDS,
            "share": (p[best] / np.mean(given == best)) / (p[own] / np.mean(given == own)) > noise.ODDS,
            "known": wrong <= noise.KNOWN * np.mean(given != best),
        }
        assert suggested[n] == best and score[n] == pytest.approx(np.log(p[best] / p[own]), abs=1e-9)
        assert reported[n] == all(rules.values())
        for name in rules:
            alone[name] += all(held for other, held in rules.items() if other != name) and not rules[name]
    assert reported.any() and min(alone.values()) > 0, alone


def test_labels_with_too_few_rows_are_not_judged_and_take_no_part() -> None:
    texts, labels = rows(90)
    labels[:8] = ["odd"] * 4 + ["rare"] * 4
    ranked = noise.ranked(texts, labels, seed=0)
    assert {row.index for row in ranked} == set(range(8, 90))
    assert {row.suggested for row in ranked} <= set(TOPICS)


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        ([], []),
        (["a b"] * 49, ["x", "y"] * 24 + ["x"]),
        (["a b"] * 80, ["x"] * 80),
        (["a b"] * 80, [str(i) for i in range(80)]),
        (["a b"] * 80, ["x"] * 76 + ["y"] * 4),
    ],
)
def test_of_too_few_rows_or_labels_nothing_is_said(texts: list[str], labels: list[str]) -> None:
    assert noise.ranked(texts, labels, seed=0) == []


def test_texts_without_words_and_scripts_without_spaces_are_ranked() -> None:
    assert len(noise.ranked([""] * 60, ["x", "y"] * 30, seed=0)) == 60
    labels = ["x", "y"] * 40
    texts = [("天気がとても良い" if label == "x" else "料理はまずかった") + str(i) for i, label in enumerate(labels)]
    given = ["y", *labels[1:]]
    assert noise.suspects(texts, given, seed=0)[0].index == 0


# ---- the check -------------------------------------------------------------------------------------------------------


def checked(texts: Sequence[str], labels: Sequence[str], **more: Any) -> LabelNoise:
    check = LabelNoise(recipe(**more))
    for n, (text, label) in enumerate(zip(texts, labels, strict=True), start=1):
        check.see(Record(f"rows.jsonl:{n}", LabelledText(text, label)))
    return check


def _draw(seed: int, line: int) -> bytes:
    return hashlib.blake2b(f"{seed}\0rows.jsonl:{line}".encode(), digest_size=8).digest()


def test_the_finding_names_the_rows_with_both_labels_the_most_doubtful_first() -> None:
    texts, labels = rows(300)
    changed, given = flipped(labels)
    (finding,) = checked(texts, given).findings()
    order = sorted(range(300), key=lambda n: _draw(42, n + 1))
    found = noise.suspects([texts[n] for n in order], [given[n] for n in order], seed=42)
    assert (finding.check, finding.severity, finding.count) == ("label_noise", "warning", len(found))
    assert finding.rows == tuple(f"rows.jsonl:{order[row.index] + 1}" for row in found)
    assert finding.message.startswith(f"{finding.count} rows ") and "looked at" not in finding.message
    number = int(finding.rows[0].split(":")[1]) - 1
    assert f"rows.jsonl:{number + 1}: '{given[number]}' -> '{labels[number]}' (" in finding.message
    assert number in changed and all(text not in str(finding) for text in texts)


def test_clean_rows_few_rows_and_other_tasks_bring_no_finding() -> None:
    texts, labels = rows(300)
    assert not list(checked(texts, labels).findings())
    assert not list(checked(texts[:40], flipped(labels[:40])[1]).findings())
    check = LabelNoise(recipe("completion"))
    check.see(Record("rows.jsonl:1", PromptCompletion("a", "b")))
    assert not list(check.findings())


def test_of_many_rows_a_draw_by_the_seed_is_looked_at_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, labels = rows(600)
    _, given = flipped(labels, 0.2)
    whole = {row for finding in checked(texts, given).findings() for row in finding.rows}
    monkeypatch.setattr(label_noise, "LOOKED_AT", 300)
    (one,), (again,), (other,) = (list(checked(texts, given, seed=seed).findings()) for seed in (1, 1, 2))
    assert "of the 300 looked at, drawn from 600," in one.message
    assert one == again and set(one.rows) != set(other.rows) and one.count < len(whole)
    monkeypatch.setattr(label_noise, "WORK", 3 * 150 * len(" ".join(texts)) // 600)
    (few,) = checked(texts, given).findings()
    looked = int(few.message.split(" looked at")[0].rsplit(" ", 1)[1])
    assert 130 <= looked <= 170


def test_rows_keep_their_place_in_the_draw_when_others_are_appended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_noise, "LOOKED_AT", 100)
    texts, labels = rows(330)
    before, after = ({row[1] for row in checked(texts[:n], labels[:n])._kept} for n in (300, 330))
    assert len(before) == len(after) == 100 and len(before & after) >= 75
    assert before - after and {int(where.split(":")[1]) > 300 for where in after - before} == {True}


def test_no_more_than_the_beginning_of_a_text_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_noise, "CHARACTERS", 7)
    check = checked(["0123456789", "abc"], ["x", "y"])
    assert sorted(row[2] for row in check._kept) == ["0123456", "abc"]
