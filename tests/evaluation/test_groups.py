"""Groups of test rows: fairlearn's numbers, no number without rows, and claims about the gap that chance does not make."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import sklearn
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    equalized_odds_difference,
    false_positive_rate,
    selection_rate,
    true_positive_rate,
)
from sklearn.metrics import accuracy_score, f1_score

from pegbox.evaluation import gaps, grouping, groups, label_rates
from pegbox.evaluation.bootstrap import Distribution, Units
from pegbox.evaluation.groups import by_group
from pegbox.evaluation.verdict import interval_of
from pegbox.metrics import METRICS, line_statistics

LABELS = ["good", "bad", "so so"]
FUZZED = 1_000

Line = dict[str, Any]
classification = partial(by_group, task="classification", primary="accuracy", metrics=["accuracy"], seed=1)


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "RESAMPLES", 200)


def lines_of(
    names: Sequence[str | None],
    references: Sequence[Any],
    answers: dict[str, Sequence[Any]],
    units: Sequence[int] | None = None,
) -> list[Line]:
    return [
        {
            "id": f"rows.jsonl:{row + 1}",
            "reference": references[row],
            "unit": row if units is None else units[row],
            "group": names[row],
            "answers": {system: given[row] for system, given in answers.items()},
        }
        for row in range(len(names))
    ]


def right_or_wrong(right: dict[str, dict[str, float]], rows: int = 100, seed: int = 0) -> list[Line]:
    """Rows of each group of which each system gets its share right, exactly; one of two labels."""
    rng = random.Random(seed)
    lines = []
    for name, shares in right.items():
        references = [rng.choice("ab") for _ in range(rows)]
        hard = rng.sample(range(rows), rows)
        answers = {
            system: [
                label if hard[row] < round(share * rows) else "ab"[label == "a"] for row, label in enumerate(references)
            ]
            for system, share in shares.items()
        }
        lines += lines_of([name] * rows, references, answers)
    return [line | {"id": f"rows.jsonl:{number + 1}", "unit": number} for number, line in enumerate(lines)]


def fuzzed(cases: int) -> Iterator[tuple[list[str], list[str], list[str | None]]]:
    """Groups, references and answers; some groups without a row that has, or has not, some label, and missing answers."""
    for seed in range(cases):
        rng = random.Random(seed)
        labels = LABELS[: rng.randint(1, 3)]
        rows, many = rng.randint(2, 50), rng.randint(2, 3)
        names = ["g0", "g1", *(f"g{min(rng.randrange(many), rng.randrange(many))}" for _ in range(rows - 2))]
        skewed = {name: rng.choice([labels, labels[:1], labels[-1:]]) for name in set(names)}
        references = [rng.choice(skewed[name]) for name in names]
        answers = [rng.choice([*labels, *labels, None]) if rng.random() < 0.6 else label for label in references]
        yield names, references, answers


def one_against_the_rest(values: Sequence[Any], label: str) -> list[int]:
    return [int(value == label) for value in values]


# --- fairlearn is the oracle ---


@pytest.fixture
def numbers_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "MINIMUM_ROWS", 1)
    monkeypatch.setattr(groups, "RESAMPLES", 2)


def test_rates_differences_and_values_are_fairlearns_on_a_thousand_fuzzed_cases(numbers_for_all: None) -> None:
    """All cases in one MetricFrame, each a level of a control feature: a frame for each would take minutes."""
    order, rates, accuracies, differences, columns = [], [], [], [], []
    for case, (names, references, answers) in enumerate(fuzzed(FUZZED)):
        found = classification(lines_of(names, references, {"tuned": answers, "base": references}))
        one = found["fairness"]["labels"][case % len(set(references))]
        for group in found["groups"]:
            order.append((case, group["group"]))
            accuracies.append(group["systems"]["tuned"]["accuracy"]["value"])
            rates.append(list(one["rates"][group["group"]]["tuned"].values()))
        differences.append([one[measure]["tuned"]["value"] for measure in label_rates.MEASURES])
        binary = (one_against_the_rest(values, one["label"]) for values in (references, answers))
        columns += zip([case] * len(names), names, *binary, references, map(str, answers), strict=True)
    cases, names, true, given, right, said = zip(*columns, strict=True)
    split = {"sensitive_features": names, "control_features": cases}
    metrics = {"selection": selection_rate, "tpr": true_positive_rate, "fpr": false_positive_rate}
    with sklearn.config_context(skip_parameter_validation=True):
        frame = MetricFrame(metrics=metrics, y_true=true, y_pred=given, **split)
        shares = MetricFrame(metrics=accuracy_score, y_true=right, y_pred=said, **split)
    assert np.array(rates) == pytest.approx(frame.by_group.loc[order].to_numpy(), abs=1e-12)
    theirs = frame.difference().loc[range(FUZZED)]
    larger = theirs[["tpr", "fpr"]].max(axis=1)
    assert np.array(differences) == pytest.approx(np.stack([theirs["selection"], larger], axis=1), abs=1e-12)
    assert np.array(accuracies) == pytest.approx(shares.by_group.loc[order].to_numpy(), abs=1e-12)


def test_fairlearns_own_functions_say_what_its_frame_says(numbers_for_all: None) -> None:
    for names, references, answers in fuzzed(25):
        found = classification(lines_of(names, references, {"tuned": answers, "base": references}))
        for one in found["fairness"]["labels"]:
            true, given = (one_against_the_rest(values, one["label"]) for values in (references, answers))
            for measure in (demographic_parity_difference, equalized_odds_difference):
                theirs = measure(true, given, sensitive_features=names)
                assert one[measure.__name__]["tuned"]["value"] == pytest.approx(theirs, abs=1e-12)


def test_the_labels_of_a_set_are_asked_one_by_one(numbers_for_all: None) -> None:
    rng = random.Random(5)
    names = [rng.choice("xyz") for _ in range(200)]
    references, answers = ([[label for label in LABELS if rng.random() < 0.4] for _ in names] for _ in range(2))
    lines = lines_of(names, references, {"tuned": answers, "trivial": [[]] * 200})
    found = by_group(lines, task="multilabel", primary="f1_macro", metrics=[], seed=1)
    assert found["counterpart"] == "trivial" and len(found["fairness"]["labels"]) == 3
    for one in found["fairness"]["labels"]:
        true, given = ([int(one["label"] in labels) for labels in values] for values in (references, answers))
        assert one["rows"] == sum(true)
        for measure in (demographic_parity_difference, equalized_odds_difference):
            theirs = measure(true, given, sensitive_features=names)
            assert one[measure.__name__]["tuned"]["value"] == pytest.approx(theirs, abs=1e-12)
            assert one[measure.__name__]["counterpart"]["value"] == 0


def test_a_group_without_rows_of_a_label_is_named_and_does_not_make_the_label_the_worst(few_resamples: None) -> None:
    """fairlearn takes the rate over no rows for 0, so that a perfect system has an equalized odds difference of 1."""
    names, references = ["x"] * 60 + ["y"] * 60, ["a", "b", "c"] * 20 + ["a", "b", "b"] * 20
    answers = [*references[:-1], "a"]
    found = classification(lines_of(names, references, {"tuned": answers, "base": references}))["fairness"]
    labels = {one["label"]: one for one in found["labels"]}
    odds = equalized_odds_difference(
        one_against_the_rest(references, "c"), one_against_the_rest(answers, "c"), sensitive_features=names
    )
    assert labels["c"]["equalized_odds_difference"]["tuned"]["value"] == odds == 1
    assert (labels["c"]["without_positives"], labels["c"]["without_negatives"]) == (["y"], [])
    assert labels["a"]["without_positives"] == labels["b"]["without_positives"] == []
    assert found["worst"] == {"demographic_parity_difference": "c", "equalized_odds_difference": "b"}
    only = lines_of(names, ["a"] * 60 + ["b"] * 60, {"tuned": ["a"] * 120, "base": ["b"] * 120})
    assert classification(only)["fairness"]["worst"]["equalized_odds_difference"] is None


# --- which groups have numbers ---


def test_a_group_of_29_rows_has_no_number_and_one_of_30_has_all(few_resamples: None) -> None:
    shares = {"tuned": 0.8, "base": 0.5}
    for rows, numbers in ((29, False), (30, True)):
        few = [line | {"group": "few"} for line in right_or_wrong({"few": shares}, rows, seed=2)]
        many = right_or_wrong({"one": shares, "two": shares}, 40)
        found = classification(many + [line | {"unit": line["unit"] + 1000} for line in few])
        (last,) = [group for group in found["groups"] if group["group"] == "few"]
        assert (last["rows"], last["units"]) == (rows, rows)
        assert (last["systems"] is not None, last["lead"] is not None) == (numbers, numbers)
        assert all(("few" in one["rates"]) == numbers for one in found["fairness"]["labels"])
        without = classification(many)
        same = json.dumps(found["gap"]) == json.dumps(without["gap"])
        assert same != numbers, "a group without numbers must not move the gap"


def test_one_large_group_has_numbers_but_no_gap_and_small_ones_alone_have_nothing(few_resamples: None) -> None:
    shares = {"tuned": 0.8, "base": 0.5}
    one = classification(right_or_wrong({"one": shares}, 40))
    assert one["gap"] is None and one["fairness"] is None and one["groups"][0]["systems"] is not None
    none = classification(right_or_wrong({"one": shares, "two": shares}, 12))
    assert none["gap"] is None and [group["systems"] for group in none["groups"]] == [None, None]


def test_rows_without_a_group_are_in_none_and_only_the_fifty_largest_have_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grouping, "MOST_GROUPS", 2)
    monkeypatch.setattr(groups, "RESAMPLES", 50)
    shares = {"tuned": 0.8, "base": 0.5}
    lines = right_or_wrong({name: shares for name in ("b", "a", "c")}, 40)
    outside = [line | {"group": None, "unit": 1000 + line["unit"]} for line in lines]
    more = [line | {"group": "c", "unit": 2000 + line["unit"]} for line in lines[:5]]
    found = classification(lines + outside + more)
    assert found["rows"] == 125
    assert [(group["group"], group["rows"], group["systems"] is not None) for group in found["groups"]] == [
        ("c", 45, True),
        ("a", 40, True),
        ("b", 40, False),
    ]


def test_no_difference_of_shares_is_said_to_be_able_to_exceed_one(few_resamples: None) -> None:
    names, references = ["x", "y"] * 32, [*["a"] * 60, "b", "b", "b", "b"]
    lines = lines_of(names, references, {"tuned": [*["a"] * 60, "b", "a", "b", "a"], "base": references[::-1]})
    for one in classification(lines)["fairness"]["labels"]:
        for measure in label_rates.MEASURES:
            for key in ("tuned", "counterpart", "change"):
                assert all(value is None or -1 <= value <= 1 for value in one[measure][key].values())


def test_only_the_most_frequent_labels_are_asked_and_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_rates, "MOST_LABELS", 2)
    monkeypatch.setattr(groups, "RESAMPLES", 50)
    references = (["a"] * 3 + ["c"] * 4 + ["b"] * 4) * 8
    lines = lines_of(["x", "y"] * 44, references, {"tuned": references, "base": references})
    found = classification(lines)["fairness"]
    assert [(one["label"], one["rows"]) for one in found["labels"]] == [("b", 32), ("c", 32)]
    assert found["left_out"] == 1


@pytest.mark.parametrize(
    ("systems", "chosen"),
    [
        (["trivial", "base", "base_few_shot", "linear_probe"], "base"),
        (["trivial", "linear_probe", "base_few_shot"], "base_few_shot"),
        (["bag_of_words", "trivial", "linear_probe"], "linear_probe"),
        (["bag_of_words", "trivial"], "trivial"),
    ],
)
def test_the_counterpart_is_the_least_touched_system_there_is(
    systems: list[str], chosen: str, few_resamples: None
) -> None:
    lines = right_or_wrong({name: {"tuned": 0.8} | dict.fromkeys(systems, 0.5) for name in "xy"}, 30)
    found = classification(lines)
    assert found["counterpart"] == chosen
    assert all(set(group["systems"]) == {"tuned", chosen} for group in found["groups"])


# --- values and intervals ---


def test_every_metric_of_a_group_is_that_of_its_rows_alone_with_the_interval_of_the_verdict() -> None:
    rng = random.Random(3)
    names = [rng.choice("xxy") for _ in range(240)]
    references = [rng.choice(LABELS) for _ in names]
    answers = {
        system: [label if rng.random() < share else rng.choice(LABELS) for label in references]
        for system, share in (("tuned", 0.8), ("base", 0.3))
    }
    lines = lines_of(names, references, answers)
    found = by_group(lines, task="chat", primary="f1_macro", metrics=["f1_macro", "accuracy"], seed=1)
    assert found["resamples"] == 10_000 and found["fairness"] is None
    for group in found["groups"]:
        rows = [row for row, name in enumerate(names) if name == group["group"]]
        right = [references[row] for row in rows]
        for system, given in answers.items():
            said = [given[row] for row in rows]
            scores = {"f1_macro": f1_score(right, said, average="macro"), "accuracy": accuracy_score(right, said)}
            assert set(group["systems"][system]) == set(scores)
            for name, score in scores.items():
                metric = METRICS[name]
                alone = interval_of(metric, metric.statistics(said, right), np.arange(len(rows)), seed=9)
                cell = group["systems"][system][name]
                assert cell["value"] == pytest.approx(score)
                assert (cell["low"], cell["high"]) == pytest.approx((alone.low, alone.high), abs=0.02)


def test_the_order_of_the_rows_and_what_is_beside_them_change_nothing(few_resamples: None) -> None:
    lines = right_or_wrong({"x": {"tuned": 0.9, "base": 0.5}, "y": {"tuned": 0.6, "base": 0.4}}, 40)
    single = [line | {"unit": "xy".index(line["group"])} for line in lines]
    for given in (lines, single):
        once = json.dumps(classification(given))
        mixed = random.Random(1).sample(given, len(given))
        assert json.dumps(classification(mixed)) == once
        assert json.dumps(classification(given)) == once
        assert json.dumps(classification(given, seed=2)) != once
        permuted = [line | {"answers": line["answers"] | {"permuted": "a"}} for line in given]
        assert json.dumps(classification(permuted)["gap"]) == json.dumps(classification(given)["gap"])


def test_rows_are_resampled_where_groups_are_the_units_and_units_where_they_are_not(few_resamples: None) -> None:
    lines = right_or_wrong({"x": {"tuned": 0.9, "base": 0.5}, "y": {"tuned": 0.6, "base": 0.4}}, 60)
    by_rows = classification([line | {"unit": "xy".index(line["group"])} for line in lines])
    assert by_rows["resampled"] == "rows" and [group["units"] for group in by_rows["groups"]] == [1, 1]
    apart = classification(lines)
    assert apart["resampled"] == "units"
    fours = classification([line | {"unit": line["unit"] // 4} for line in lines])
    assert fours["resampled"] == "units" and [group["units"] for group in fours["groups"]] == [15, 15]

    def width(found: dict[str, Any]) -> float:
        cell = found["groups"][1]["systems"]["tuned"]["accuracy"]
        return float(cell["high"] - cell["low"])

    assert width(by_rows) == pytest.approx(width(apart), rel=0.15)
    repeated = [line | {"id": f"{line['id']} {copy}"} for line in lines for copy in range(4)]  # four rows, one unit
    assert width(classification(repeated)) == pytest.approx(width(apart), rel=0.15)


def test_units_that_lie_across_groups_are_drawn_once_for_all(few_resamples: None) -> None:
    """Each sentence is said of a man and of a woman and answered alike: no resample has any gap."""
    lines = right_or_wrong({"man": {"tuned": 0.7, "base": 0.5}}, 80)
    pairs = [line | {"group": name, "id": f"{line['id']} {name}"} for line in lines for name in ("man", "woman")]
    found = classification(pairs)["gap"]
    assert found["tuned"] | {"best": 0, "worst": 0} == {
        "value": 0,
        "low": 0,
        "high": 0,
        "by_chance": 0,
        "best": 0,
        "worst": 0,
    }
    apart = [line | {"unit": 1000 * (line["group"] == "man") + line["unit"]} for line in pairs]
    assert classification(apart)["gap"]["tuned"]["by_chance"] > 0.1


def test_where_units_lie_across_groups_the_interval_of_a_group_is_still_as_wide_as_its_own_units_ask() -> None:
    lines = right_or_wrong({"many": {"tuned": 0.7}}, 80)
    lines += [line | {"group": "few", "unit": row % 8} for row, line in enumerate(lines[:40])]
    found, _ = grouping.groups_of(lines, seed=1)
    assert [group.drawn.count for group in found] == [80, 80]
    statistics = line_statistics(METRICS["accuracy"], lines)
    values, draws = grouping.cells(METRICS["accuracy"], statistics, found, 2_000)
    wide = Distribution(draws[1]["tuned"], Units.of(np.arange(40) % 8)).interval()
    assert (values[1]["tuned"].low, values[1]["tuned"].high) == wide


def test_the_group_with_the_fewest_units_widens_the_intervals_of_gaps() -> None:
    lines = right_or_wrong({"x": {"tuned": 1.0}}, 200) + lines_of(["y"] * 30, "a" * 30, {}, range(1000, 1030))
    found, _ = grouping.groups_of(lines, seed=1)
    assert [group.units.count for group in found] == [200, 30] and grouping.fewest(found).count == 30


# --- what tuning did to the gap ---


def test_a_gap_that_tuning_widens_narrows_or_leaves_is_called_so() -> None:
    def gap(x: tuple[float, float], y: tuple[float, float]) -> dict[str, Any]:
        shares = {"x": {"base": x[0], "tuned": x[1]}, "y": {"base": y[0], "tuned": y[1]}}
        found: dict[str, Any] = classification(right_or_wrong(shares, 150))["gap"]
        return found

    widened = gap((0.5, 0.95), (0.5, 0.55))
    assert widened["verdict"] == "widened" and widened["change"]["value"] == pytest.approx(0.4, abs=0.01)
    assert 0 < widened["change"]["low"] < 0.4 < widened["change"]["high"]
    assert (widened["tuned"]["best"], widened["tuned"]["worst"]) == ("x", "y") and not widened["levelled_down"]
    assert "tuning widened it (0.4, 95 % interval 0." in widened["reason"]

    narrowed = gap((0.9, 0.95), (0.4, 0.95))
    assert narrowed["verdict"] == "narrowed" and narrowed["change"]["high"] < 0 and not narrowed["levelled_down"]
    assert (narrowed["counterpart"]["best"], narrowed["counterpart"]["worst"]) == ("x", "y")
    levelled = gap((0.9, 0.5), (0.4, 0.5))
    assert levelled["verdict"] == "narrowed" and levelled["levelled_down"]

    small = gap((0.5, 0.52), (0.5, 0.5))["tuned"]
    assert small["low"] == 0 < small["value"] < small["by_chance"]
    same = gap((0.4, 0.6), (0.6, 0.8))
    assert same["verdict"] == "not shown" and same["change"]["value"] == pytest.approx(0, abs=1e-9)
    assert "that tuning changed it is not shown" in same["reason"]


def test_both_systems_share_the_resamples() -> None:
    """Systems that answer alike have the same gap in every resample; drawn apart, the change would spread."""
    lines = right_or_wrong({"x": {"base": 0.5}, "y": {"base": 0.8}})
    alike = [line | {"answers": {"base": line["answers"]["base"], "tuned": line["answers"]["base"]}} for line in lines]
    found = classification(alike)
    assert found["gap"]["change"] == dict.fromkeys(("value", "low", "high", "by_chance_low", "by_chance_high"), 0)
    assert found["gap"]["tuned"]["high"] > found["gap"]["tuned"]["low"] > 0
    for one in found["fairness"]["labels"]:
        for measure in label_rates.MEASURES:
            assert one[measure]["change"]["low"] == one[measure]["change"]["high"] == 0
            assert one[measure]["tuned"] == one[measure]["counterpart"]


def test_where_lower_is_better_the_best_group_has_the_lowest_value(few_resamples: None) -> None:
    nats = {"x": {"tuned": 1.0, "base": 2.0}, "y": {"tuned": 2.0, "base": 3.0}}
    lines = [
        {
            "id": f"{name}{row}",
            "reference": "",
            "unit": row + 100 * (name == "y"),
            "group": name,
            "answers": {system: {"nll": 4 * (found + row / 100), "tokens": 4} for system, found in nats[name].items()},
        }
        for name in nats
        for row in range(40)
    ]
    found = by_group(lines, task="text", primary="perplexity", metrics=["perplexity"], seed=1)
    for system, gap in (("tuned", found["gap"]["tuned"]), ("base", found["gap"]["counterpart"])):
        assert (gap["best"], gap["worst"]) == ("x", "y")
        best, worst = (math.exp(nats[name][system] + 0.195) for name in "xy")
        assert gap["value"] == pytest.approx(worst - best)
    assert all(group["lead"]["low"] > 0 for group in found["groups"])

    infinite = [line | {"answers": line["answers"] | {"tuned": None}} if line["id"] == "y3" else line for line in lines]
    found = by_group(infinite, task="text", primary="perplexity", metrics=[], seed=1)
    assert found["gap"]["tuned"]["worst"] == "y" and found["gap"]["tuned"]["value"] is None
    assert found["gap"]["verdict"] == "not shown" and not found["gap"]["levelled_down"]
    json.dumps(found, allow_nan=False)


def test_of_equal_groups_the_first_by_name_is_best_and_the_last_worst_whatever_their_order(few_resamples: None) -> None:
    shares = {"tuned": 0.8, "base": 0.5}
    for names in (["b", "c", "a"], ["c", "a", "b"]):
        gap = classification(right_or_wrong({name: shares for name in names}, 40))["gap"]
        assert (gap["tuned"]["best"], gap["tuned"]["worst"], gap["tuned"]["value"]) == ("a", "c", 0)


def test_few_units_in_a_group_show_nothing() -> None:
    lines = right_or_wrong({"x": {"base": 0.5, "tuned": 0.95}, "y": {"base": 0.5, "tuned": 0.55}}, 150)
    for size, verdict in ((5, "widened"), (6, "not shown")):  # 30 units each, 25 units each
        found = classification([line | {"unit": line["unit"] // size} for line in lines])
        assert found["groups"][0]["units"] == 150 // size and found["gap"]["verdict"] == verdict


@pytest.mark.parametrize("shares", [(0.95, 0.5), (0.5, 0.95)])
def test_chance_alone_is_seldom_called_a_change(shares: tuple[float, float]) -> None:
    """Twenty groups that are alike: the gap is observed to be smaller near 100 % than at 50 % in nearly every case."""
    rng = np.random.default_rng(0)
    count, rows, cases, resamples = 20, 60, 120, 300
    called = changed = 0
    for _ in range(cases):
        scores = np.stack([rng.random((rows, count)) < share for share in shares]).astype(float)
        values = scores.mean(axis=1)[..., None]
        weights = rng.multinomial(rows, np.full(rows, 1 / rows), size=(count, resamples)) / rows
        draws = np.einsum("gbr,srg->sbg", weights, scores)[..., None]
        found = gaps.compare(gaps.only_rate, values, draws, Units.of(np.arange(rows)))
        called += found["verdict"] != "not shown"
        changed += (found["change"]["value"] < 0) == (shares[0] > shares[1])
        for one in (found["tuned"], found["counterpart"], found["change"]):
            assert one["low"] is None or one["low"] <= one["value"]
            assert one["high"] is None or one["value"] <= one["high"]
    assert changed > 0.9 * cases
    assert called <= 0.07 * cases
