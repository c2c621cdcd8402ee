"""Where tuned gained and lost: parts that divide the rows, numbers that scikit-learn and plain means give, too."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_run import evaluation, lines_of
from sklearn.metrics import confusion_matrix, recall_score

from pegbox.report import breakdown, gains
from pegbox.report.gains import Contest, Part, by_length, by_name

NAMES = {"tuned": "tuned model", "base": "untouched model"}


def exact_lines(tuned: Sequence[bool], base: Sequence[bool]) -> list[dict[str, Any]]:
    answers = {
        "tuned": ["yes" if right else "no" for right in tuned],
        "base": ["yes" if right else "no" for right in base],
    }
    return lines_of(answers, ["yes"] * len(tuned), [f"row {i}" for i in range(len(tuned))])


def drawn(rows: int, tuned: float = 0.8, base: float = 0.3, seed: int = 1) -> Contest:
    rng = random.Random(seed)
    lines = exact_lines([rng.random() < tuned for _ in range(rows)], [rng.random() < base for _ in range(rows)])
    return Contest.of(lines, "exact_match", "base", 42)


def mean_lead(contest: Contest, rows: Sequence[int]) -> float:
    tuned, base = (contest.statistics[name][rows, 0] for name in ("tuned", "base"))
    return float(tuned.mean() - base.mean())


@given(lengths=st.lists(st.integers(0, 400), min_size=2, max_size=200))
def test_parts_by_length_divide_the_rows_and_never_separate_equal_lengths(lengths: list[int]) -> None:
    contest = Contest.of(exact_lines([True] * len(lengths), [False] * len(lengths)), "exact_match", "base", 0)
    parts = by_length(contest, lengths)
    if parts is None:
        assert len(set(lengths)) == 1
        return
    spans = [
        [int(number) for number in part.name.replace(" characters", "").replace(" character", "").split(" to ")]
        for part in parts.shown
    ]
    assert all(a[-1] < b[0] for a, b in pairwise(spans))
    assert [part.rows for part in parts.shown] == [sum(span[0] <= n <= span[-1] for n in lengths) for span in spans]
    assert sum(part.rows for part in parts.shown) == len(lengths) and 2 <= parts.count <= 5
    assert parts.count == 2 or not any(part.small for part in parts.shown)


def test_there_are_as_many_parts_by_length_as_have_thirty_rows_each() -> None:
    for rows, parts in ((40, 2), (89, 2), (90, 3), (128, 4), (1000, 5)):
        found = by_length(drawn(rows), range(rows))
        assert found is not None and found.count == parts
        assert max(part.rows for part in found.shown) - min(part.rows for part in found.shown) <= parts
    assert by_length(drawn(50), [7] * 50) is None
    with_ties = by_length(drawn(160), [min(i, 70) for i in range(160)])
    assert with_ties is not None and with_ties.count > 2 and not any(part.small for part in with_ties.shown)


def test_a_part_has_the_lead_and_interval_of_its_rows_alone() -> None:
    contest = drawn(120)
    found = by_length(contest, range(120))
    assert found is not None
    for number, part in enumerate(found.shown):
        rows = list(range(30 * number, 30 * number + 30))
        assert part.tuned == pytest.approx(contest.statistics["tuned"][rows, 0].mean())
        assert part.rival == pytest.approx(contest.statistics["base"][rows, 0].mean())
        assert part.lead["difference"] == pytest.approx(mean_lead(contest, rows))
        scores = contest.statistics["tuned"][rows, 0] - contest.statistics["base"][rows, 0]
        normal = 1.96 * scores.std() / np.sqrt(30)
        assert part.lead["low"] == pytest.approx(scores.mean() - normal, abs=0.08)
        assert part.lead["high"] == pytest.approx(scores.mean() + normal, abs=0.08)


def test_fewer_than_thirty_independent_rows_have_no_interval() -> None:
    names = ["many"] * 30 + ["few"] * 29
    found = by_name(drawn(59), names)
    assert found is not None
    parts = {part.name: part for part in found.shown}
    assert not parts["many"].small and parts["many"].lead["low"] is not None
    assert parts["few"].small and parts["few"].lead["low"] is parts["few"].lead["high"] is None
    lines = exact_lines([True] * 59, [False] * 59)
    together = Contest.of([line | {"unit": 0} for line in lines], "exact_match", "base", 0)
    grouped = by_name(together, names)
    assert grouped is not None and all(part.small for part in grouped.shown)


def shown(leads: dict[str, tuple[int, float]]) -> list[str]:
    """The groups that are shown, of groups with so many rows and such a lead."""
    tuned, base, names = [], [], []
    for name, (rows, lead) in leads.items():
        ahead = round(abs(lead) * rows)
        right = [True] * ahead + [False] * (rows - ahead)
        tuned += right if lead > 0 else [False] * rows
        base += right if lead < 0 else [False] * rows
        names += [name] * rows
    found = by_name(Contest.of(exact_lines(tuned, base), "exact_match", "base", 0), names)
    assert found is not None and found.count == len(leads)
    assert found.ahead == sum(lead > 0 for _, lead in leads.values())
    assert found.behind == sum(lead < 0 for _, lead in leads.values())
    return [part.name for part in found.shown]


def test_of_many_groups_those_that_add_most_and_take_most_are_shown_in_order() -> None:
    gained = {f"gain {n:02}": (n, 1.0) for n in range(1, 21)}
    lost = {f"loss {n:02}": (n, -1.0) for n in range(1, 21)}
    wanted = [f"gain {n}" for n in range(20, 14, -1)] + [f"loss {n}" for n in range(15, 21)]
    assert shown(gained | lost) == wanted
    assert shown(gained | {"loss 01": (1, -1.0)}) == [f"gain {n:02}" for n in range(20, 9, -1)] + ["loss 01"]
    assert shown(lost | {"gain 01": (1, 1.0)}) == ["gain 01"] + [f"loss {n:02}" for n in range(10, 21)]
    assert shown({"b": (2, 0.5), "c": (9, -1.0), "a": (4, 0.0)}) == ["b", "a", "c"]


def test_a_lower_perplexity_is_a_gain() -> None:
    answers = {
        "base": [{"nll": 8.0, "tokens": 4}] * 4,
        "tuned": [{"nll": 4.0, "tokens": 4}] * 2 + [{"nll": 12.0, "tokens": 4}] * 2,
    }
    contest = Contest.of(lines_of(answers, ["t"] * 4, ["t"] * 4), "perplexity", "base", 0)
    found = by_name(contest, ["gained", "gained", "lost", "lost"])
    assert found is not None
    assert [(part.name, part.lead["difference"]) for part in found.shown] == [
        ("gained", pytest.approx(np.exp(2) - np.exp(1))),
        ("lost", pytest.approx(np.exp(2) - np.exp(3))),
    ]


LABELS = ["bad", "good", "so so"]


def label_lines(rows: int = 300) -> list[dict[str, Any]]:
    rng = random.Random(3)
    right = [rng.choice(LABELS) for _ in range(rows)]
    given = {
        name: [label if rng.random() < share else rng.choice(LABELS) for label in right]
        for name, share in (("tuned", 0.7), ("base", 0.3))
    }
    given["tuned"][0] = None
    return lines_of(given, right, [f"text {i}" for i in range(rows)])


def columns(lines: Sequence[Any]) -> tuple[list[str], list[str], list[str]]:
    right = [line["reference"] for line in lines]
    return right, *([str(line["answers"][name]) for line in lines] for name in ("tuned", "base"))


def test_the_recall_of_each_label_is_scikit_learns() -> None:
    lines = label_lines()
    right, tuned, base = columns(lines)
    found = by_name(Contest.of(lines, "accuracy", "base", 0), right)
    assert found is not None
    parts: dict[str, Part] = {part.name: part for part in found.shown}
    for label, ours, theirs in zip(
        LABELS,
        recall_score(right, tuned, labels=LABELS, average=None),
        recall_score(right, base, labels=LABELS, average=None),
        strict=True,
    ):
        assert (parts[label].tuned, parts[label].rival) == (pytest.approx(ours), pytest.approx(theirs))
        assert parts[label].rows == right.count(label)


def test_mistakes_are_those_of_the_confusion_matrix() -> None:
    lines = label_lines()
    right, tuned, base = columns(lines)
    names = [*LABELS, "None"]
    ours, theirs = (confusion_matrix(right, said, labels=names) for said in (tuned, base))
    wanted = {
        (a, "(no answer)" if b == "None" else b, int(ours[i, j]), int(theirs[i, j]))
        for i, a in enumerate(names)
        for j, b in enumerate(names)
        if i != j and (ours[i, j] or theirs[i, j])
    }
    found = gains.mistakes(lines, "base")
    assert set(found) == wanted and len(found) == len(wanted)
    assert [max(a, b) for *_, a, b in found] == sorted((max(a, b) for *_, a, b in found), reverse=True)


def section(lines: list[dict[str, Any]], groups: Sequence[str | None], task: str = "chat") -> dict[str, Any]:
    found = evaluation(
        {"tuned": (1.0, 1.0, 1.0), "base": (0.1, 0.0, 0.2)}, {"base": (0.9, 0.8, 1.0, 0.1)}, verdict="better", task=task
    )
    named = {line["id"]: group for line, group in zip(lines, groups, strict=True)}
    return breakdown.section(lines, named, found, NAMES, 42)


def test_without_groups_nothing_is_said_of_groups_and_groups_of_one_row_are_not_judged() -> None:
    lines = exact_lines([True] * 40, [False] * 40)
    assert [view["title"] for view in section(lines, [None] * 40)["views"]] == ["By length of the input"]
    alone = section(lines, [f"g{i}" for i in range(40)])["views"][1]
    assert (
        alone["picture"] is None
        and alone["told"] == "The test rows are of 40 groups, one row of each: no group can be judged."
    )
    same = section(lines, ["g"] * 40)["views"][1]
    assert same["picture"] is None and "of the same one" in same["told"]


def test_within_a_group_its_rows_are_resampled_though_the_verdict_takes_it_as_one() -> None:
    lines = [line | {"unit": int(i >= 40)} for i, line in enumerate(exact_lines([True, False] * 30, [False] * 60))]
    view = section(lines, ["big"] * 40 + ["small"] * 20)["views"][1]
    assert {row[0]: row[-1] for row in view["rows"]}["small"] == "too few rows"
    assert " to " in {row[0]: row[-1] for row in view["rows"]}["big"]


def test_many_groups_are_said_to_be_picked() -> None:
    lines = exact_lines([True] * 60, [False] * 60)
    told = section(lines, [f"g{i // 2}" for i in range(60)])["views"][1]["told"]
    assert told.startswith("In these rows tuned is ahead on 30 of 30 groups, behind on 0, level on 0.")
    assert "Shown are the 12 that add most" in told and "more extreme than they are" in told


def test_labels_are_shown_for_classification_alone() -> None:
    found = section(label_lines(), [None] * 300, "classification")
    assert [view["title"] for view in found["views"]] == ["By length of the input", "By right label"]
    assert found["metric"] == "accuracy" and len(found["mistakes"]["shown"]) <= 12
    assert section(exact_lines([True] * 9, [False] * 9), [None] * 9)["mistakes"] is None
