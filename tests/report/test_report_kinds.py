"""What the report shows of each kind of task: labels, sets, numbers, entities and masked tokens, by oracles of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_run import lines_of, page_of, recipe_of
from page_reader import Element, section, table
from scipy import stats
from sklearn import metrics as sk
from task_runs import MADE, number_lines
from test_report_page import cards

from pegbox.recipe import FITTING
from pegbox.report import loss_words, numbers
from pegbox.report.kinds import KINDS
from pegbox.report.rows import compare
from pegbox.report.task_words import WORDS
from pegbox.report.usage import ROLES, WITHOUT
from pegbox.report.written import written
from pegbox.tasks import TASKS

Lines = list[dict[str, Any]]


def test_every_task_has_its_row_in_every_table() -> None:
    assert set(KINDS) == set(WITHOUT) == set(TASKS) == {*ROLES, "chat"}
    assert set(WORDS) <= set(TASKS)
    assert {name for name, words in WORDS.items() if words.row_mark} == {"regression"}


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_each_target_has_its_rmse_r2_mean_error_and_slope(pages: Mapping[str, Element]) -> None:
    lines = MADE["targets"][1]
    right = np.array([line["reference"] for line in lines])
    shown = table(section(pages["targets"], "numbers"))
    assert list(shown) == ["year", "valence, felt", "dominance", "arousal", ""]
    for place, name in enumerate(list(shown)[:-1]):
        y, cells = right[:, place], shown[name]
        for at, system in enumerate(("tuned", "bag_of_words")):
            a = np.array([line["answers"][system][place] for line in lines])
            wanted = (sk.root_mean_squared_error(y, a), sk.r2_score(y, a), (a - y).mean(), stats.linregress(a, y).slope)
            assert [float(cell.split(" / ")[at]) for cell in cells] == pytest.approx(wanted, abs=0.06)


def test_a_slope_has_its_sense_and_none_where_all_answers_are_the_same() -> None:
    right = np.linspace(-1, 1, 50)
    assert numbers.slope(2 * right + 3, right) == pytest.approx(0.5)
    assert np.isnan(numbers.slope(np.ones(50), right))


def test_every_row_is_a_point_at_its_place_in_both_panels(pages: Mapping[str, Element]) -> None:
    lines = MADE["regression"][1]
    (picture,) = section(pages["regression"], "numbers").all("svg")
    marks = [
        (float(use.attributes["x"]), float(use.attributes["y"]), "accent" in use.attributes["style"])
        for use in picture.all("use")
        if "opacity" in use.attributes["style"]
    ]
    assert len(marks) == 2 * len(lines)
    right = [line["reference"] for line in lines]
    for system, tuned in (("tuned", True), ("bag_of_words", False)):
        x, y = np.array([mark[:2] for mark in marks if mark[2] is tuned]).T
        assert abs(np.corrcoef(x, right)[0, 1]) == pytest.approx(1, abs=1e-6)
        assert np.corrcoef(y, [line["answers"][system] for line in lines])[0, 1] == pytest.approx(-1, abs=1e-6)
    assert {"tuned model", "bag of words", "right value"} <= {text.text for text in picture.all("text")}


def test_of_many_rows_some_are_drawn_and_it_is_said(tmp_path: Path) -> None:
    page = page_of(tmp_path, recipe_of("regression", "rmse"), number_lines(rows=900))
    part = section(page, "numbers")
    assert "A point stands for 400 of 900 test rows, drawn with the run's seed" in part.text
    assert sum("opacity" in use.attributes["style"] for use in part.all("use")) == 800


def test_rows_of_numbers_change_by_their_absolute_error_and_none_is_called_right(pages: Mapping[str, Element]) -> None:
    lines, page = MADE["regression"][1], pages["regression"]
    errors = {
        name: [abs(line["answers"][name] - line["reference"]) for line in lines] for name in ("tuned", "bag_of_words")
    }
    lead = np.array(errors["bag_of_words"]) - np.array(errors["tuned"])
    first = cards(page)[0]
    row = int(np.argmax(lead))
    assert first[0] == f"tuned better rows.jsonl:{row + 1}"
    assert first[1]["tuned model"] == f"{lines[row]['answers']['tuned']:,.6g} off by {errors['tuned'][row]:.3f}"
    assert "right value" in first[1]
    assert "does better in absolute error on" in page.text
    assert {label.text.rsplit(" ", 1)[0] for label in page.all("form")[0].all("label")} == {
        *("changed most", "all", "tuned better", "tuned worse", "equal", "Search all inputs and"),
    }
    assert "the tuned model is off by 0." in page.all("h1")[0].text and "(lower is better)" in page.all("h1")[0].text


def test_an_error_of_one_or_none_is_no_verdict_on_a_row() -> None:
    lines = lines_of({"trivial": [1.0, 2.0], "tuned": [2.0, 2.0]}, [2.0, 2.0], ["a", "b"])
    assert not compare(lines, "mae", "trivial").all_or_nothing


# ---- masked tokens, answers, losses ----------------------------------------------------------------------------------


def test_of_masked_tokens_pseudo_perplexity_is_said_and_nothing_is_claimed_of_answers(
    pages: Mapping[str, Element],
) -> None:
    page = pages["masked_lm"]
    assert page.all("h1")[0].text.startswith("Better: the tuned model has a pseudo-perplexity of ")
    assert not re.search(r"(?<!-)\bperplexity (?!of a model that writes)", page.all("main")[0].text)
    assert "each of up to 32 tokens of a text is masked by itself" in page.text
    assert "right answer" not in page.text and "asked without examples" not in page.text


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (None, "(no answer)"),
        ("", "(empty)"),
        ("spam", "spam"),
        ([], "(none)"),
        (["a", "b, c"], 'a, "b, c"'),
        (2.5, "2.5"),
        (1234567.0, "1,234,567"),
        (0.000123456789, "0.000123457"),
        (float("nan"), "nan"),
        ([1.5, -2], "x 1.5, y -2"),
        ([1.5, -2, 3], "1.5, -2, 3"),
        ({"nll": 12.34, "tokens": 1200}, "12.3 nats over 1,200 tokens"),
        ({"first": "a text", "ranks": [2, 1200]}, "a text (right: rank 2, 1,200)"),
        ([{"label": "PER", "start": 0, "end": 4, "first_word": 0, "last_word": 0}], "PER: Anna"),
        ([{"label": "PER", "start": 0, "end": 2, "first_word": 0, "last_word": 0}], "PER: word 1"),
        ([{"label": "PER", "start": 20, "end": 29, "first_word": 4, "last_word": 5}], "PER: words 5 to 6"),
        ({"other": 1}, '{"other": 1}'),
        (True, "true"),
    ],
)
def test_an_answer_of_any_form_is_legible(answer: Any, text: str) -> None:
    assert written(answer, "Anna Lena", ["x", "y"]) == text


@pytest.mark.parametrize(
    ("task", "loss", "unit", "told"),
    [
        ("chat", None, "nats per token", "cross-entropy"),
        ("token_classification", None, "nats per word", "cross-entropy"),
        (
            "classification",
            {"kind": "cross_entropy", "label_smoothing": 0.1, "class_weights": "balanced"},
            "weighted nats per row",
            "cross-entropy, label smoothing 0.1, class weights balanced",
        ),
        (
            "classification",
            {"kind": "focal", "gamma": 3, "class_weights": {"a": 2, "b": 0.5}},
            "per row (weighted focal)",
            "focal loss, gamma 3, class weights a 2, b 0.5",
        ),
        ("multilabel", None, "nats per row and label", "cross-entropy of each label by itself"),
        ("multilabel", "focal", "per row and label (focal)", "focal loss, gamma 2"),
        ("regression", None, "squared deviations per value", "squared error of standardised values"),
        ("regression", "mae", "deviations per value", "absolute error of standardised values"),
        (
            "regression",
            {"kind": "huber", "delta": 0.5},
            "per value (Huber)",
            "Huber's loss of standardised values, straight from 0.5 deviations on",
        ),
        ("seq2seq", None, "nats per token", "cross-entropy"),
        ("embedding", None, "nats per row", "InfoNCE among all texts of the update"),
        ("embedding", "cosine", "squared cosines per row", "squared error of the cosine"),
        ("regression", "./mine.py:dear", "by your own dear", "your own: ./mine.py:dear"),
    ],
)
def test_a_loss_is_told_with_what_it_counts(tmp_path: Path, task: str, loss: Any, unit: str, told: str) -> None:
    recipe = recipe_of(task, train={} if loss is None else {"loss": loss})
    found = loss_words.told(recipe)
    assert (loss_words.unit(recipe), found if loss != "./mine.py:dear" else f"your own: ./{Path(found).name}") == (
        unit,
        told,
    )


def test_every_loss_has_its_words() -> None:
    kinds = {loss.model_fields["kind"].default for fitting in FITTING.values() for loss in fitting}
    assert kinds == set(loss_words.NAMES) == set(loss_words.COUNTED)


def test_the_page_tells_the_loss_and_its_unit(pages: Mapping[str, Element]) -> None:
    page = pages["regression"]
    assert "(validation loss 0.105 squared deviations per value, the lowest)" in page.text
    assert "loss, squared deviations per value" in [text.text for text in page.all("svg")[-1].all("text")]
    assert "nats" not in section(page, "learning").text
