"""The words and digits that the report and the model card share: systems, metrics, numbers, and the verdict in sentences.

Everything said here is computed from `evaluation.json`; a number that is not finite stands there as None. A share of rows
is said in per cent and a difference of two shares in percentage points; every other metric on its own scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pegbox.evaluation.bootstrap import RESAMPLES
from pegbox.evaluation.verdict import BASE, FEW_SHOT, MINIMUM_UNITS, TRIVIAL, TUNED
from pegbox.metrics import Metric, lookup, reference_of
from pegbox.report.metric_words import OF_A_HUNDRED, OF_NUMBERS, claim, meaning
from pegbox.report.metric_words import SHARES as SHARES  # named here for those that say numbers
from pegbox.report.metric_words import metric_name as metric_name
from pegbox.report.task_words import words_of
from pegbox.tasks import TASKS


def metric_of(results: Mapping[str, Any], metric: str) -> Metric:
    """The metric that `evaluation.json` or a comparison calls by that name."""
    return lookup(reference_of(results, metric))


def scale(metric: str, results: Mapping[str, Any]) -> str:
    """What a metric's numbers mean, and which way is better."""
    found = metric_of(results, metric)
    if found.describes:
        return meaning(metric)
    return f"{meaning(metric)}; {'higher' if found.greater_is_better else 'lower'} is better"


def number(value: float | None, metric: str) -> str:
    """A metric's value with the digits that can be read; a share in per cent."""
    if value is None:
        return "not finite"
    return f"{_digits(value, metric)} %" if metric in SHARES else _digits(value, metric)


def _digits(value: float, metric: str) -> str:
    """The number alone: per cent with at most one decimal, and never a negative zero."""
    if metric in SHARES:
        return f"{round(100 * value, 1) + 0.0:.1f}".removesuffix(".0")
    if abs(value) >= 1e6 or (metric in OF_NUMBERS and 0 < abs(value) < 0.01):
        return f"{value:.3g}"
    decimals = 1 if metric in OF_A_HUNDRED or abs(value) >= 10 else 3
    return f"{round(value, decimals) + 0.0:,.{decimals}f}"


def bounds(found: Mapping[str, Any], metric: str) -> str:
    """An interval, "66.9 to 75.6 %"; an end that is not finite is infinite."""
    return _span(found, lambda value: _digits(value, metric), " %" if metric in SHARES else "")


def difference(value: float | None, metric: str) -> str:
    """A signed difference; of shares in percentage points."""
    if value is None:
        return "not finite"
    return f"{_signed(value, metric)} points" if metric in SHARES else _signed(value, metric)


def difference_bounds(found: Mapping[str, Any], metric: str) -> str:
    """The interval of a difference."""
    return _span(found, lambda value: _signed(value, metric), " points" if metric in SHARES else "")


def _signed(value: float, metric: str) -> str:
    digits = _digits(value, metric)
    return digits if digits.startswith("-") or float(digits.replace(",", "")) == 0 else f"+{digits}"


def _span(found: Mapping[str, Any], write: Callable[[float], str], unit: str) -> str:
    low = "-∞" if found["low"] is None else write(found["low"])
    high = "∞" if found["high"] is None else write(found["high"])
    return f"{low} to {high}{unit}"


def p_value(value: float) -> str:
    """A p-value with as many digits as 10,000 resamples bear."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def p_equals(value: float) -> str:
    """A p-value behind the letter: "< 0.001", "= 0.012"."""
    return p_value(value) if value < 0.001 else f"= {p_value(value)}"


def system_names(evaluation: Mapping[str, Any], receipt: Mapping[str, Any]) -> dict[str, str]:
    """The name of every system of the evaluation; each can follow "the"."""
    shots = receipt["shots"]
    trivial = receipt.get("task", {}).get("trivial") or TASKS[evaluation["task"]].trivial_name
    known = {
        TUNED: "tuned model",
        BASE: "untouched model",
        FEW_SHOT: f"untouched model with {shots} example{'' if shots == 1 else 's'}",
        "linear_probe": "linear probe",
        "bm25": "BM25",
        "bag_of_words": "bag of words",
        TRIVIAL: "token frequencies" if evaluation["primary"] == "perplexity" else trivial,
        "permuted": "tuned answers, shuffled",
    }
    return {name: known.get(name, name.replace("_", " ")) for name in evaluation["systems"]}


EXPLANATIONS = {
    TUNED: "the model that this run made",
    BASE: "the model as it was before, asked without examples",
    FEW_SHOT: "rows of the training set in its prompt, as many as fit, the same for every test row",
    "linear_probe": "logistic regression on the untouched model's features: what needs no fine-tuning",
    "bag_of_words": "logistic regression on the words: what needs no language model",
    "bm25": "search by the words that texts share, rare ones counting for more: what needs no language model",
    TRIVIAL: "counted in the training rows: what needs no look at the input",
    "translation_memory": "the target of the training source that is most alike: what needs no language model",
    "permuted": "the tuned model's own answers, each given to another row: what knowing only their form is worth",
}


def explanation_of(system: str, task: str) -> str:
    """What a system is; empty where its name says it."""
    return words_of(task).explanations.get(system, EXPLANATIONS.get(system, ""))


def ranked(evaluation: Mapping[str, Any]) -> list[str]:
    """The systems: tuned first, then its rivals from the best to the worst; one without a finite value is last."""
    metric = evaluation["primary"]
    sign = -1.0 if metric_of(evaluation, metric).greater_is_better else 1.0

    def place(system: str) -> tuple[bool, bool, float]:
        value = evaluation["systems"][system][metric]["value"]
        return system != TUNED, value is None, 0.0 if value is None else sign * value

    return sorted(evaluation["systems"], key=place)


def size(evaluation: Mapping[str, Any]) -> str:
    """On how much the verdict rests."""
    rows, units = evaluation["rows"], evaluation["units"]
    return f"{rows:,} rows" if rows == units else f"{rows:,} rows in {units:,} groups"


def deciding(evaluation: Mapping[str, Any]) -> Mapping[str, Any]:
    """The comparison that decides: for "worse" that with the untouched model, else the least favourable."""
    comparisons = evaluation["comparisons"]
    untouched = comparisons.get(BASE) or comparisons.get(TRIVIAL)
    found: Mapping[str, Any] = untouched if evaluation["verdict"] == "worse" else evaluation["comparison"]
    return found


def headline(evaluation: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """The verdict in a sentence for everybody."""
    metric = evaluation["primary"]
    values = {system: number(found[metric]["value"], metric) for system, found in evaluation["systems"].items()}
    claimed = claim(metric, evaluation["task"]).format(value=values[TUNED])
    lower = "" if metric_of(evaluation, metric).greater_is_better else " (lower is better)"
    rival = deciding(evaluation)["against"]
    role = "" if evaluation["verdict"] == "worse" or evaluation["prompting_is_as_good"] else "the closest alternative, "
    return f"{_lead(evaluation)} the tuned model {claimed}; {role}the {names[rival]}, {values[rival]}{lower}."


def _lead(evaluation: Mapping[str, Any]) -> str:
    if evaluation["prompting_is_as_good"]:
        ahead = evaluation["comparison"]["high"]
        return f"Not shown, prompting is {'better' if ahead is not None and ahead < 0 else 'as good'}:"
    return f"{str(evaluation['verdict']).capitalize()}:"


def statistics(evaluation: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """The comparison that decides, for a statistician."""
    found, metric = deciding(evaluation), evaluation["primary"]
    count = len(evaluation["comparisons"])
    least = f", the least favourable of {count} comparisons" if found == evaluation["comparison"] and count > 1 else ""
    return (
        f"Tuned against the {names[found['against']]}{least}: {difference(found['difference'], metric)} in "
        f"{metric_name(metric, evaluation['task'])} (positive: tuned is better), 95 % interval {difference_bounds(found, metric)}, "
        f"p {p_equals(found['p_value'])}; {found['test']}, {RESAMPLES:,} resamples of {size(evaluation)}."
    )


def explanation(evaluation: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """What the verdict means, and where it is "not shown" why, and how much data would be needed."""
    count, units = len(evaluation["comparisons"]), evaluation["units"]
    kind = "rows" if units == evaluation["rows"] else "groups of rows"
    if evaluation["verdict"] == "better":
        return f"The tuned model is ahead of {_all(count)}, by more than chance would explain."
    if evaluation["verdict"] == "worse":
        return f"The tuned model is behind the {names[deciding(evaluation)['against']]}, by more than chance would explain."
    needed = evaluation["units_needed"]
    more = f" About {needed:,} {kind} would be needed to show a difference of this size." if needed else ""
    if units < MINIMUM_UNITS:
        return f"A verdict takes at least {MINIMUM_UNITS} {kind} that are independent; this test has {units}.{more}"
    if evaluation["prompting_is_as_good"]:
        return f"The tuned model is ahead of every other alternative, but not of examples in the prompt.{more}"
    if any(
        found["difference"] is not None and found["difference"] <= 0 for found in evaluation["comparisons"].values()
    ):
        return f"The tuned model did not score above {_all(count)}; more test rows alone may not change that."
    return f"The tuned model scored above {_all(count)}, but not by more than chance would explain.{more}"


def _all(count: int) -> str:
    return {1: "its only alternative", 2: "both alternatives"}.get(count, f"all {count} alternatives")


def seconds(value: float) -> str:
    """A duration, in two units at most."""
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def gigabytes(value: float) -> str:
    """Memory; 1 GB = 1e9 bytes, as in the plan."""
    return f"{value / 1e9:.2f} GB"


def some(rows: Sequence[str], most: int) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(rows) - most:,} more" if len(rows) > most else ""
    return ", ".join(rows[:most]) + more
