"""The verdict in words: what a manager and a statistician read, for every kind of verdict."""

from __future__ import annotations

from typing import Any

import pytest
from made_run import RECEIPT, chat_lines, evaluation, recipe_of, scored

from pegbox.metrics import METRICS
from pegbox.report import wording

AHEAD = (0.68, 0.63, 0.73, 0.0002)
LEVEL = (0.01, -0.02, 0.04, 0.512)
SYSTEMS = {
    "trivial": (0.0, 0.0, 0.0),
    "base": (0.0125, 0.005, 0.0225),
    "base_few_shot": (0.03, 0.015, 0.0475),
    "tuned": (0.71, 0.665, 0.7525),
}
FAR = {"trivial": (0.71, 0.665, 0.7525, 0.0002), "base": (0.6975, 0.65, 0.74, 0.0002)}


def said(found: dict[str, Any]) -> tuple[str, str, str]:
    names = wording.system_names(found, RECEIPT)
    return wording.headline(found, names), wording.explanation(found, names), wording.statistics(found, names)


def test_better_names_both_scores_and_the_closest_alternative() -> None:
    sentence, why, statistics = said(evaluation(SYSTEMS, FAR | {"base_few_shot": AHEAD}, verdict="better"))
    assert sentence == (
        "Better: the tuned model answers 71 % of the test rows exactly; the closest alternative, "
        "the untouched model with 5 examples, 3 %."
    )
    assert why == "The tuned model is ahead of all 3 alternatives, by more than chance would explain."
    assert statistics == (
        "Tuned against the untouched model with 5 examples, the least favourable of 3 comparisons: +68 points in "
        "exact match (positive: tuned is better), 95 % interval +63 to +73 points, p < 0.001; "
        "paired bootstrap, 10,000 resamples of 400 rows."
    )


def test_worse_is_said_of_the_untouched_model_though_another_rival_is_less_favourable() -> None:
    systems = SYSTEMS | {"base": (0.8, 0.75, 0.85), "base_few_shot": (0.9, 0.88, 0.92)}
    compared = {"base": (-0.09, -0.13, -0.05, 0.004), "base_few_shot": (-0.19, -0.23, -0.15, 0.0002)}
    sentence, why, statistics = said(evaluation(systems, compared, verdict="worse"))
    assert sentence == "Worse: the tuned model answers 71 % of the test rows exactly; the untouched model, 80 %."
    assert why == "The tuned model is behind the untouched model, by more than chance would explain."
    assert statistics.startswith("Tuned against the untouched model: -9 points in exact match")
    assert "-13 to -5 points, p = 0.004" in statistics


def test_worse_without_an_untouched_model_is_said_of_the_trivial_system() -> None:
    systems = {"trivial": (0.5, 0.4, 0.6), "linear_probe": (0.9, 0.8, 1.0), "tuned": (0.25, 0.2, 0.3)}
    compared = {"trivial": (-0.25, -0.3, -0.2, 0.001), "linear_probe": (-0.65, -0.7, -0.6, 0.001)}
    found = evaluation(systems, compared, verdict="worse", primary="f1_macro", task="classification")
    sentence, why, _ = said(found)
    assert sentence == "Worse: the tuned model scores 0.250 in macro F1; the most frequent label, 0.500."
    assert why == "The tuned model is behind the most frequent label, by more than chance would explain."


@pytest.mark.parametrize(
    ("found", "lead"),
    [(LEVEL, "Not shown, prompting is as good:"), ((-0.1, -0.15, -0.05, 0.001), "Not shown, prompting is better:")],
)
def test_where_only_examples_in_the_prompt_hold_their_own_it_says_so(found: tuple[float, ...], lead: str) -> None:
    systems = SYSTEMS | {"base_few_shot": (0.7, 0.65, 0.75)}
    compared = FAR | {"base_few_shot": found}
    sentence, why, _ = said(evaluation(systems, compared, verdict="not shown", prompting_is_as_good=True))
    assert sentence == (
        f"{lead} the tuned model answers 71 % of the test rows exactly; the untouched model with 5 examples, 70 %."
    )
    assert why == "The tuned model is ahead of every other alternative, but not of examples in the prompt."


def test_too_few_groups_are_counted_and_the_number_needed_is_said() -> None:
    found = evaluation(SYSTEMS, {"base": LEVEL}, verdict="not shown", rows=55, units=17, units_needed=1234)
    sentence, why, statistics = said(found)
    assert sentence.startswith("Not shown: the tuned model answers 71 %")
    assert why == (
        "A verdict takes at least 30 groups of rows that are independent; this test has 17. "
        "About 1,234 groups of rows would be needed to show a difference of this size."
    )
    assert statistics.endswith("resamples of 55 rows in 17 groups.")


def test_a_lead_that_may_be_chance_says_how_many_rows_would_show_it() -> None:
    _, why, _ = said(evaluation(SYSTEMS, FAR | {"base_few_shot": LEVEL}, verdict="not shown", units_needed=54304))
    assert why == (
        "The tuned model scored above all 3 alternatives, but not by more than chance would explain. "
        "About 54,304 rows would be needed to show a difference of this size."
    )


def test_without_a_lead_no_number_of_rows_is_promised() -> None:
    _, why, _ = said(evaluation(SYSTEMS, {"base": (0.0, -0.1, 0.1, 1.0)}, verdict="not shown"))
    assert why == "The tuned model did not score above its only alternative; more test rows alone may not change that."


def test_the_lowest_perplexity_is_the_best_and_the_sentence_says_so() -> None:
    systems = {"trivial": (1230.7, 1000.0, 1500.0), "base": (24.8, 23.5, 26.4), "tuned": (12.6, 12.0, 13.3)}
    compared = {"trivial": (1218.1, 990.0, 1490.0, 0.0002), "base": (12.2, 10.7, 13.8, 0.0002)}
    found = evaluation(systems, compared, verdict="better", primary="perplexity", task="completion")
    assert wording.ranked(found) == ["tuned", "base", "trivial"]
    sentence, _, _ = said(found)
    assert sentence == (
        "Better: the tuned model has a perplexity of 12.6 on the test texts; the closest alternative, "
        "the untouched model, 24.8 (lower is better)."
    )


def test_a_system_without_a_finite_value_ranks_last_and_is_said_to_have_none() -> None:
    systems = {"base": (None, None, None), "trivial": (1230.7, None, None), "tuned": (12.6, 12.0, None)}
    compared = {"base": (None, None, None, 1.0), "trivial": (1218.1, 990.0, None, 0.2)}
    found = evaluation(systems, compared, verdict="not shown", primary="perplexity", task="completion")
    assert wording.ranked(found) == ["tuned", "trivial", "base"]
    _, why, statistics = said(found)
    assert why == "The tuned model scored above both alternatives, but not by more than chance would explain."
    assert "not finite in perplexity (positive: tuned is better), 95 % interval -∞ to ∞, p = 1.000" in statistics


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (0.7125, "exact_match", "71.2 %"),
        (1.0, "accuracy", "100 %"),
        (-0.0001, "accuracy", "0 %"),
        (0.7125, "f1_macro", "0.713"),
        (3.326, "chrf", "3.3"),
        (100.0, "bleu", "100.0"),
        (1230.71, "perplexity", "1,230.7"),
        (2.5e9, "perplexity", "2.5e+09"),
        (None, "perplexity", "not finite"),
    ],
)
def test_numbers_have_the_digits_of_their_metric(value: float | None, metric: str, text: str) -> None:
    assert wording.number(value, metric) == text


def test_a_difference_has_its_sign_and_a_zero_has_none() -> None:
    assert wording.difference(0.05, "exact_match") == "+5 points"
    assert wording.difference(-0.05, "f1_macro") == "-0.050"
    assert wording.difference(0.0, "exact_match") == "0 points"
    assert wording.difference(0.00001, "f1_macro") == "0.000"
    assert wording.difference(1218.1, "perplexity") == "+1,218.1"
    assert wording.difference_bounds({"low": -0.037, "high": 0.045}, "exact_match") == "-3.7 to +4.5 points"


def test_one_example_is_not_called_examples() -> None:
    names = wording.system_names(evaluation(SYSTEMS, FAR, verdict="better"), RECEIPT | {"shots": 1})
    assert names["base_few_shot"] == "untouched model with 1 example"


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_can_be_said(metric: str) -> None:
    found = evaluation(SYSTEMS, {"base": AHEAD}, verdict="better", primary=metric)
    sentence, _, statistics = said(found)
    assert wording.number(0.71, metric) in sentence and wording.metric_name(metric) in statistics
    assert ("(lower is better)" in sentence) != METRICS[metric].greater_is_better
    assert wording.scale(metric, found).endswith(
        "as long as the right ones"
        if METRICS[metric].describes
        else "higher is better"
        if METRICS[metric].greater_is_better
        else "lower is better"
    )


@pytest.mark.parametrize(
    ("value", "text"), [(3.21, "3.2 s"), (45.2, "45 s"), (59.7, "60 s"), (89.25, "1 min 29 s"), (4000, "1 h 6 min")]
)
def test_durations_have_at_most_two_units(value: float, text: str) -> None:
    assert wording.seconds(value) == text


CASES = {  # the share of rows that tuned and few-shot get right, the rows, what the untouched model gets right
    "better": (0.9, 0.2, 200, 0.1),
    "worse": (0.2, 0.2, 200, 0.9),
    "too few": (0.9, 0.2, 20, 0.1),
    "prompting": (0.6, 0.58, 200, 0.1),
    "behind": (0.5, 0.9, 200, 0.1),
}


@pytest.mark.parametrize("case", CASES)
def test_the_page_and_the_terminal_say_the_same(case: str) -> None:
    tuned, few_shot, rows, base = CASES[case]
    lines, recipe = chat_lines(rows, tuned=tuned, few_shot=few_shot), recipe_of()
    for number, line in enumerate(lines):
        line["answers"]["base"] = line["reference"] if number < base * rows else "no"
    found = scored(lines, recipe)
    sentence, why, _ = said(found)
    reason, rival = found["reason"], wording.deciding(found)["against"]
    names = wording.system_names(found, RECEIPT)
    assert f"the {names[rival]}" in sentence
    if found["units"] >= 30:
        assert rival in reason or (rival == "base_few_shot" and "with examples in its prompt" in reason)
        assert f"{rows} rows" in reason
    assert sentence.startswith("Worse") == ("behind" in reason) == (found["verdict"] == "worse")
    assert ("prompting" in sentence) == ("Prompting" in reason) == (case in ("prompting", "behind"))
    assert ("at least 30" in why) == ("at least 30" in reason) == (case == "too few")
    if needed := found["units_needed"]:
        assert f"{needed:,} rows" in why and (f"{needed:,} rows" in reason or case in ("too few", "prompting"))
