"""What `evaluation.json` holds beside the verdict: each label, the calibration, the groups; and again from the saved lines.

The numbers are those of `test_per_class`, `tasks/test_calibration` and `test_groups`; here is when they stand there.
"""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from seqeval.metrics import classification_report as entity_report
from sklearn.metrics import classification_report

import pegbox
from pegbox.evaluation import per_class as labels
from pegbox.evaluation import systems
from pegbox.evaluation.details import details
from pegbox.finished import Run
from pegbox.metrics import METRICS, spans_of_tags
from pegbox.models import load as models
from pegbox.tasks import TASKS
from tiny_folder import encoder_folder, write_rows
from tiny_tasks import FORMS

BLOCKS = ("per_class", "calibration", "groups")
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "E-LOC", "S-ORG"]
SURE = {"yes": 0.75, "no": 0.25}


def given(answers: Sequence[Any], references: Sequence[Any], **more: Any) -> list[dict[str, Any]]:
    """Lines of two systems, of which `other` is always right."""
    return [
        {"reference": right, "unit": n, "group": None, "answers": {"tuned": answer, "other": right}, **more}
        for n, (answer, right) in enumerate(zip(answers, references, strict=True))
    ]


def blocks(lines: Sequence[Mapping[str, Any]], task: str, **state: Any) -> dict[str, Any]:
    primary = "accuracy" if task in ("classification", "multilabel") else "f1"
    return details(lines, task=task, primary=primary, metrics=[primary], state=state, seed=0)


# ---- each label ------------------------------------------------------------------------------------------------------


def spans(tags: Sequence[str]) -> list[dict[str, Any]]:
    return [{"label": label, "first_word": a, "last_word": b} for label, a, b in spans_of_tags(tags)]


def check_reports_are_the_libraries(seed: int) -> None:
    """Of every system; a label is in the report where an answer or a reference has it."""
    draw = random.Random(seed)
    names, count = draw.sample(["a", "b", "c", "d"], draw.randint(2, 4)), draw.randint(1, 12)
    answers, references = (draw.choices(names, k=count) for _ in range(2))
    tags = [[draw.choices(TAGS, k=5) for _ in range(count)] for _ in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = {
            "classification": classification_report(references, answers, output_dict=True, zero_division=0),
            "token_classification": entity_report(tags[1], tags[0], output_dict=True, zero_division=0),
        }
    said = {
        "classification": (answers, references),
        "token_classification": [[spans(t) for t in side] for side in tags],
    }
    for task, report in wanted.items():
        found = blocks(given(*said[task]), task)["per_class"]
        known = {name: cells for name, cells in report.items() if name != "accuracy" and not name.endswith(" avg")}
        assert found["tuned"].keys() == known.keys(), (task, seed)
        for name, theirs in known.items():
            renamed = {"f1" if key == "f1-score" else key: float(value) for key, value in theirs.items()}
            assert found["tuned"][name] == pytest.approx(renamed, abs=1e-12), (task, seed)
        assert all(cells["f1"] == 1 for cells in found["other"].values())


def test_labels_and_entities_are_those_of_the_libraries_reports_on_200_fuzzed_cases() -> None:
    for seed in range(200):
        check_reports_are_the_libraries(seed)


@pytest.mark.parametrize("bug", ["swapped", "words"])
def test_the_check_sees(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers and references in each other's place; entities of which each word counts."""
    right = labels._given

    def words(side: list[Any]) -> list[Any]:
        if not side or not isinstance(side[0], list):
            return side
        return [
            [
                span | {"first_word": n, "last_word": n}
                for span in row
                for n in range(span["first_word"], span["last_word"] + 1)
            ]
            for row in side
        ]

    def wrong(lines: Any, system: str) -> Any:
        answers, references = right(lines, system)
        return (references, answers) if bug == "swapped" else (words(answers), words(references))

    monkeypatch.setattr(labels, "_given", wrong)
    with pytest.raises(AssertionError):
        for seed in range(20):
            check_reports_are_the_libraries(seed)


def test_only_tasks_whose_answers_are_labels_have_a_table_of_them() -> None:
    answers: dict[str, Any] = {"multilabel": ["a"], "token_classification": spans(["B-a", "O"]), "regression": 1.0}
    having = {
        task
        for task in TASKS
        if "per_class" in blocks(given([answers.get(task, "a")] * 3, [answers.get(task, "a")] * 3), task)
    }
    assert having == {"classification", "multilabel", "token_classification"}


# ---- calibration and groups where there are any ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "systems_with_probabilities", "there"),
    [({"temperature": 2.0}, ["tuned"], True), ({}, ["tuned"], False), ({"temperature": 2.0}, ["other"], False)],
    ids=["a temperature", "none", "tuned is not sure"],
)
def test_calibration_stands_there_where_tuned_has_a_temperature(
    state: dict[str, float], systems_with_probabilities: list[str], there: bool
) -> None:
    lines = given(["yes"] * 40, ["yes", "no"] * 20, probabilities=dict.fromkeys(systems_with_probabilities, SURE))
    found = blocks(lines, "classification", **state)
    assert ("calibration" in found) == there
    if there:
        assert found["calibration"]["temperature"] == 2.0
        before = {"yes": 9 / 10, "no": 1 / 10}  # 0.75 : 0.25 at temperature 2 was 9 : 1
        assert found["calibration"]["after"]["value"] == pytest.approx(SURE["yes"] - 0.5)
        assert found["calibration"]["before"]["value"] == pytest.approx(before["yes"] - 0.5)


def test_groups_stand_there_where_a_row_names_one() -> None:
    lines = given(["yes"] * 80, ["yes", "no"] * 40)
    for line in lines:
        line["answers"]["trivial"] = "no"
    assert "groups" not in blocks(lines, "classification")
    for n, line in enumerate(lines):
        line["group"] = "ab"[n // 40]
    found = blocks(lines, "classification")["groups"]
    assert [(row["group"], row["rows"]) for row in found["groups"]] == [("a", 40), ("b", 40)]
    lines[0]["group"] = None  # of one row nobody says whom it is about
    assert blocks(lines, "classification")["groups"]["rows"] == 79


# ---- whole runs: whom a row is about, and what belongs together ------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("details")
    encoder_folder(home / "encoder")
    rows = [{**row, "who": f"w{n % 3}", "album": f"a{n % 20}"} for n, row in enumerate(FORMS["classification"][2](200))]
    write_rows(home / "rows.jsonl", rows)
    return home


def trained(home: Path, name: str, columns: Mapping[str, str]) -> Run:
    recipe = {
        "model": str(home / "encoder"),
        "task": "classification",
        "data": {"train": str(home / "rows.jsonl"), "validation": 0.2, "test": 0.5, "columns": columns},
        "method": "full",
        "train": {"max_steps": 3, "learning_rate": 1e-2, "report_to": []},
    }
    return pegbox.train(recipe, run_dir=home / name)


@pytest.fixture(scope="module")
def runs(home: Path) -> dict[str, Run]:
    columns = {
        "none": {},
        "sensitive": {"sensitive_feature": "who"},
        "group": {"group": "album"},
        "both": {"group": "album", "sensitive_feature": "who"},
    }
    return {name: trained(home, name, given) for name, given in columns.items()}


def sides(run: Run, home: Path, column: str) -> dict[str, set[str]]:
    """The splits in which the rows of each value of a column stand."""
    lines = (home / "rows.jsonl").read_text().splitlines()
    values = {str(n): json.loads(line)[column] for n, line in enumerate(lines, start=1)}
    found: dict[str, set[str]] = {}
    for row in run.folder.read_lines("splits.jsonl"):
        found.setdefault(values[row["id"].rpartition(":")[2]], set()).add(row["split"])
    return found


def check_whom_and_together(runs: Mapping[str, Run], home: Path) -> None:
    """`sensitive_feature` parts nothing and ties nothing; `group` ties, in the splits and where rows are resampled."""
    lines = {name: list(run.folder.read_lines("predictions.jsonl")) for name, run in runs.items()}
    units = {name: [line["unit"] for line in lines[name]] for name in ("none", "sensitive")}
    assert units["none"] == units["sensitive"] and len(set(units["none"])) > 0.8 * len(lines["none"])  # near twins
    for name in ("group", "both"):
        assert len({line["unit"] for line in lines[name]}) < 20 < len(lines[name])
        assert all(len(splits) == 1 for splits in sides(runs[name], home, "album").values())
    assert all(splits == {"train", "validation", "test"} for splits in sides(runs["sensitive"], home, "who").values())
    assert [line["id"] for line in lines["sensitive"]] == [line["id"] for line in lines["none"]]
    named = {name: {line["group"] for line in given} for name, given in lines.items()}
    assert named["none"] == {None}
    assert named["sensitive"] == named["both"] == {"w0", "w1", "w2"}
    assert named["group"] <= {f"a{n}" for n in range(20)}


def test_whom_a_row_is_about_ties_nothing_and_a_group_does(runs: dict[str, Run], home: Path) -> None:
    check_whom_and_together(runs, home)


def test_units_by_whom_a_row_is_about_are_caught(
    runs: dict[str, Run], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = systems.units
    monkeypatch.setattr(
        systems,
        "units",
        lambda rows, recipe: right(
            [type(row)(row.where, row.content, row.sensitive or row.group) for row in rows], recipe
        ),
    )
    other = trained(home, "by whom", {"sensitive_feature": "who"})
    with pytest.raises(AssertionError):
        check_whom_and_together({**runs, "sensitive": other}, home)


def test_a_run_has_the_blocks_that_its_rows_allow(runs: dict[str, Run]) -> None:
    for name, run in runs.items():
        assert {block for block in BLOCKS if block in run.evaluation} == set(BLOCKS) - (
            {"groups"} if name == "none" else set()
        )
    groups = runs["sensitive"].evaluation["groups"]
    assert {row["group"] for row in groups["groups"]} == {"w0", "w1", "w2"}
    assert groups["resampled"] == "units"
    assert runs["both"].evaluation["groups"]["groups"] != groups["groups"]


# ---- again, without the model ----------------------------------------------------------------------------------------


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loads a model or a tokenizer fails."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    for name in ("load_model", "load_tokenizer", "load_weights"):
        monkeypatch.setattr(models, name, refuse)


def test_a_run_is_judged_by_another_metric_without_its_model(runs: dict[str, Run], no_model: None) -> None:
    run = runs["both"]
    before = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file() and file.name != "receipt.json"}
    known = Run(run.path)
    found = pegbox.evaluate(run.path, metric="accuracy")
    assert found["primary"] == found["groups"]["primary"] == "accuracy"
    assert found["comparison"]["metric"] == "accuracy"
    assert {name: found[name] for name in ("per_class", "calibration")} == {
        name: known.evaluation[name] for name in ("per_class", "calibration")
    }
    lines = list(run.folder.read_lines("predictions.jsonl"))
    told, right = (
        [line[key]["tuned"] if key == "answers" else line[key] for line in lines] for key in ("answers", "reference")
    )
    assert found["systems"]["tuned"]["accuracy"]["value"] == METRICS["accuracy"](told, right)
    assert pegbox.evaluate(run.path) | {"close_calls": known.evaluation["close_calls"]} == known.evaluation
    assert Run(run.path).receipt["test_scored"] == known.receipt["test_scored"] + 2
    assert before == {file: file.read_bytes() for file in before}
    with pytest.raises(AssertionError, match="a model was loaded"):
        _ = Run(run.path).model
