"""A metric of the user's own: what it may be, what it is refused for, and its way through the results."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compared_runs import run
from made_run import lines_of, make_run, page_of, recipe_of

from pegbox.errors import RecipeError
from pegbox.evaluation.score import score
from pegbox.finished.comparing import compare
from pegbox.metrics import METRICS, line_statistics, lookup, own_metrics, reference_of
from pegbox.recipe import load
from pegbox.report import wording
from pegbox.runs.listing import _told

COST = """
def cost(answers, references):
    '''Calling an alarm off is ten times as bad as a false one.'''
    table = {("fine", "alarm"): 10.0, ("alarm", "fine"): 1.0, (None, "alarm"): 10.0}
    return [table.get(pair, 0.0) for pair in zip(answers, references)]

cost.greater_is_better = False

def hits(answers, references):
    return [given == right for given, right in zip(answers, references)]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_metric.py"
    path.write_text(COST, encoding="utf-8")
    return path


def written(tmp_path: Path, body: str) -> str:
    (tmp_path / "bad.py").write_text(body, encoding="utf-8")
    return f"{tmp_path / 'bad.py'}:bad"


def lines(rows: int = 60) -> list[dict[str, Any]]:
    """Tuned misses few alarms, base most of them; base is right more often."""
    rng = np.random.default_rng(0)
    right = rng.choice(["alarm", "fine"], rows, p=[0.3, 0.7]).tolist()
    tuned = ["alarm" if label == "alarm" or rng.random() < 0.5 else "fine" for label in right]
    base = ["alarm" if label == "alarm" and rng.random() < 0.3 else "fine" for label in right]
    given = {"trivial": ["fine"] * rows, "base": base, "tuned": tuned}
    return lines_of(given, right, [f"event {number}" for number in range(rows)])


def test_a_function_of_the_users_is_the_mean_of_its_scores_under_its_own_name(file: Path) -> None:
    cost, hits = lookup(f"{file}:cost"), lookup(f"{file}:hits")
    answers, references = ["fine", "alarm", None, "fine"], ["alarm", "fine", "alarm", "fine"]
    assert (cost.name, cost.greater_is_better) == ("cost", False)
    assert (hits.name, hits.greater_is_better) == ("hits", True)
    assert cost(answers, references) == (10 + 1 + 10 + 0) / 4
    assert hits(answers, references) == METRICS["accuracy"](answers, references) == 0.25
    assert hits.by_row(hits.statistics(answers, references)).tolist() == [0, 0, 0, 1]


def test_a_metric_that_is_no_mean_can_be_given_whole(tmp_path: Path) -> None:
    body = (
        "import numpy as np\nfrom pegbox.metrics import Metric\n"
        "def _extremes(answers, references):\n    return np.array([[a, 1.0] for a in answers])\n"
        "bad = Metric('largest', _extremes, greater_is_better=False,\n"
        "             weighted=lambda rows, weights: np.where(weights > 0, rows[:, 0], -np.inf).max(axis=1))\n"
    )
    found = lookup(written(tmp_path, body))
    assert (found.name, found.greater_is_better, found.additive) == ("largest", False, False)
    assert found([3.0, 9.0, 4.0], [0, 0, 0]) == 9.0
    body = body.replace("[[a, 1.0] for a in answers]", "[a for a in answers]")
    with pytest.raises(RecipeError, match=r"largest of .*bad.py returned numbers of shape \[3\]"):
        lookup(written(tmp_path, body))([3.0, 9.0, 4.0], [0, 0, 0])


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("return 0.5", r"returned numbers of shape \[\]"),
        ("return [0.5]", r"returned numbers of shape \[1\]"),
        ("return [[1.0]] * len(answers)", r"returned numbers of shape \[3, 1\]"),
        ("return [1.0, float('nan'), 1.0]", r"returned nan for answer 2"),
        ("return [1.0, 2.0, float('inf')]", r"returned inf for answer 3"),
        ("return None", r"returned nan|shape \[\]"),
        ("return ['good'] * 3", "returned what are no numbers"),
        ("return [[1.0], [1.0, 2.0], []]", "returned what are no numbers"),
        ("return answers[0].lower()", r"failed: AttributeError: .*lower.* \(line 2\)"),
        ("return 1 / 0", r"failed: ZeroDivisionError: division by zero \(line 2\)"),
    ],
)
def test_what_is_no_score_for_each_row_is_refused_with_what_is_expected(tmp_path: Path, body: str, what: str) -> None:
    metric = lookup(written(tmp_path, f"def bad(answers, references):\n    {body}\n"), where="evaluate.metrics")
    with pytest.raises(RecipeError, match=what) as caught:
        metric([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert caught.value.where == "evaluate.metrics"
    assert "takes two lists of 3 and returns one finite number for each answer" in str(caught.value.cure)


@pytest.mark.parametrize(
    ("name", "body", "what"),
    [
        ("bad", "def other(answers, references): return []", "has no 'bad'"),
        ("bad", "bad = 3", "is no function"),
        ("bad", "def bad(a, b): return a\nbad.greater_is_better = 'no'", "must be True or False"),
        ("accuracy", "def accuracy(a, b): return a", "is a metric of pegbox's, too"),
    ],
)
def test_what_is_no_metric_is_refused_when_it_is_named(tmp_path: Path, name: str, body: str, what: str) -> None:
    reference = written(tmp_path, body).removesuffix("bad") + name
    with pytest.raises(RecipeError, match=what) as caught:
        lookup(reference, where="evaluate.primary")
    assert caught.value.where == "evaluate.primary"


def test_an_unknown_name_tells_of_the_way_to_an_own_one() -> None:
    with pytest.raises(RecipeError, match=r"your own as ./my_metric.py:name"):
        lookup("cost")


def test_a_recipe_names_it_relative_to_itself(tmp_path: Path, file: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "model: m\ntask: classification\ndata: rows.jsonl\n"
        "evaluate: {primary: ./my_metric.py:cost, metrics: [accuracy, my_metric.py:hits]}\n",
        encoding="utf-8",
    )
    evaluate = load(tmp_path / "recipe.yaml").evaluate
    assert (evaluate.primary, evaluate.metrics) == (f"{file}:cost", ("accuracy", f"{file}:hits"))


def test_two_of_one_name_are_refused(tmp_path: Path, file: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(COST, encoding="utf-8")
    assert own_metrics(["accuracy", f"{file}:cost", f"{file}:hits", f"{file}:cost"]) == {
        "cost": f"{file}:cost",
        "hits": f"{file}:hits",
    }
    with pytest.raises(RecipeError, match="are both called cost"):
        own_metrics([f"{file}:cost", f"{other}:cost"])


def test_its_value_interval_and_verdict_stand_in_the_results_under_its_name(file: Path) -> None:
    found = score("classification", lines(), primary=f"{file}:cost", metrics=["accuracy", f"{file}:hits"], seed=1)
    assert found["primary"] == "cost" and found["verdict"] == "better"  # by accuracy it is not
    assert found["systems"]["tuned"]["accuracy"]["value"] < found["systems"]["base"]["accuracy"]["value"]
    assert set(found["systems"]["tuned"]) == {"cost", "accuracy", "hits"}
    assert found["systems"]["tuned"]["hits"] == found["systems"]["tuned"]["accuracy"]
    assert found["own_metrics"] == {"cost": f"{file}:cost", "hits": f"{file}:hits"}
    assert reference_of(found, "cost") == f"{file}:cost" and reference_of(found, "accuracy") == "accuracy"
    assert "own_metrics" not in score("classification", lines(), primary="accuracy", metrics=["accuracy"], seed=1)


def test_the_report_and_the_listing_call_it_by_its_name(tmp_path: Path, file: Path) -> None:
    recipe = recipe_of("classification", f"{file}:cost", "accuracy")
    page = page_of(tmp_path, recipe, lines()).text
    assert "cost" in page and "a metric of your own; lower is better" in page and "(lower is better)" in page
    found = score("classification", lines(), primary=f"{file}:cost", metrics=["accuracy"], seed=1)
    assert wording.ranked(found)[:2] == [
        "tuned",
        min(("base", "trivial"), key=lambda s: found["systems"][s]["cost"]["value"]),
    ]
    assert wording.scale("hits", found | {"own_metrics": {"hits": f"{file}:hits"}}).endswith("higher is better")
    assert _told(make_run(tmp_path / "listed", recipe, lines()))["primary"] == "cost"


def test_rows_are_compared_by_it_where_it_is_primary(tmp_path: Path, file: Path) -> None:
    recipe = recipe_of("chat", f"{file}:cost")
    page = page_of(tmp_path, recipe, lines()).text
    assert "the tuned model does better on" in page


def test_runs_are_compared_by_it(tmp_path: Path, file: Path) -> None:
    metrics = {"task": "classification", "primary": f"{file}:cost", "metrics": [f"{file}:hits"]}
    good = run(tmp_path / "good", lines(), **metrics)
    swapped = [line | {"answers": line["answers"] | {"tuned": line["answers"]["base"]}} for line in lines()]
    bad = run(tmp_path / "bad", swapped, **metrics)
    found = compare([good, bad], resamples=400)
    assert (found["primary"], found["best"]) == ("cost", "good")
    assert set(found["runs"][0]["metrics"]) == {"cost", "hits"} and found["runs"][0]["primary"] == "cost"
    by_hits = compare([good, bad], metric=f"{file}:hits", resamples=400)
    assert by_hits["primary"] == "hits" and by_hits["runs"][0]["name"] == "bad"


def test_runs_are_compared_by_auroc_where_they_have_probabilities(tmp_path: Path) -> None:
    def sure(line: dict[str, Any], skill: float) -> dict[str, Any]:
        p = (
            0.5
            + skill * (0.4 if line["reference"] == "alarm" else -0.4)
            + 0.1 * math.sin(len(line["id"]) + line["unit"])
        )
        return line | {"probabilities": {"tuned": {"alarm": p, "fine": 1 - p}}}

    good, bad = (
        run(tmp_path / name, [sure(line, skill) for line in lines()], task="classification", primary="accuracy")
        for name, skill in (("good", 1.0), ("bad", 0.0))
    )
    found = compare([good, bad], metric="auroc", resamples=400)
    assert found["best"] == "good" and found["runs"][0]["metrics"]["auroc"]["value"] == 1.0
    without = run(tmp_path / "without", lines(), task="classification", primary="accuracy")
    with pytest.raises(RecipeError, match="without has no probabilities; there is no auroc"):
        compare([good, without], metric="auroc", resamples=400)


def test_line_statistics_guard_it_too(tmp_path: Path) -> None:
    metric = lookup(written(tmp_path, "def bad(answers, references): return [1.0]\n"))
    with pytest.raises(RecipeError, match="takes two lists of 180"):  # all systems at once
        line_statistics(metric, lines())
