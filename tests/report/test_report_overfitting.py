"""What the report and the card say of training and validation that part ways, and that the picture marks the place."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from made_run import CHAT, chat_lines, make_run, recipe_of
from page_reader import Element, read_page, section
from playwright.sync_api import Browser
from seen import browser, contrast_faults, layout_faults, picture_faults

from pegbox.evaluation.overfitting import parting
from pegbox.recipe import Recipe
from pegbox.report import curve_words, html, pictures
from pegbox.report.card import card
from pegbox.report.html import report

PER, EPOCH = 10, 40
PARTED = (2.0, 1.4, 1.1, 1.0, 1.005, 1.1, 1.2, 1.3)
FALLS = tuple(2 * 0.8**place for place in range(8))


def log_of(
    validation: Sequence[float | None], training: Callable[[int], float] = lambda step: 2 * math.exp(-step / 50)
) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for step in range(1, PER * len(validation) + 1):
        lines.append({"step": step, "epoch": step / EPOCH, "loss": training(step), "tokens": 700, "rows": 16})
        if step % PER == 0:
            lines.append({"step": step, "split": "validation", "loss": validation[step // PER - 1]})
    return lines


def page_of(path: Path, log: Sequence[dict[str, Any]], chosen: int = 40, recipe: Recipe = CHAT) -> Element:
    return read_page(report(make_run(path / "run", recipe, chat_lines(9), log=log, chosen_step=chosen), recipe))


def said(path: Path, *given: Any, **more: Any) -> str:
    """What stands above the curves."""
    return section(page_of(path, *given, **more), "learning").all("p")[0].text


# ---- the sentences ---------------------------------------------------------------------------------------------------


def test_a_parting_is_said_with_its_epoch_its_figures_the_weights_that_were_kept_and_the_cure(tmp_path: Path) -> None:
    before, last = (sum(2 * math.exp(-step / 50) for step in range(end - 9, end + 1)) / 10 for end in (40, 80))
    assert said(tmp_path, log_of(PARTED)) == (
        "Training and validation part ways from epoch 1.5 on (update 60), which is overfitting: the validation loss, 1 at its "
        f"best, ends at 1.3 (30 % worse), while the training loss went on falling, from {before:.4g} to {last:.4g}. "
        "The weights of update 40 (epoch 1) were kept, from before it. "
        "Cure: fewer epochs (train.num_train_epochs=1) or train.early_stopping_patience=3; more rows or a lower "
        "train.learning_rate put it off."
    )


@pytest.mark.parametrize("metric", ["exact_match", "./own.py:exact_match"])
def test_weights_from_after_the_parting_are_said_to_be_chosen_by_another_number(tmp_path: Path, metric: str) -> None:
    recipe = recipe_of(train={"learning_rate": 1e-3, "metric_for_best_model": metric})
    assert said(tmp_path, log_of(PARTED), 70, recipe).endswith(
        "0.4425. The weights of update 70 (epoch 1.75) were kept, from after it, by their exact_match on the validation rows; "
        "train.metric_for_best_model=loss keeps those of update 40 (epoch 1)."
    )
    before = said(tmp_path / "before", log_of(PARTED), 30, recipe)
    assert "The weights of update 30 (epoch 0.75) were kept, from before it. Cure: fewer epochs" in before
    assert "early_stopping" not in before  # which would wait for the other number


def test_the_cure_is_in_the_keys_that_the_recipe_has_not_used_up(tmp_path: Path) -> None:
    train = {"learning_rate": 1e-3, "max_steps": 80, "early_stopping_patience": 4}
    words = said(tmp_path, log_of(PARTED), recipe=recipe_of(train=train))
    assert "Cure: fewer updates (train.max_steps=40); more rows" in words
    assert "num_train_epochs" not in words and "early_stopping" not in words


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (log_of(FALLS), "Training and validation do not part ways: the last validation loss is the lowest."),
        (
            log_of([-loss for loss in reversed(FALLS)]),
            "Training and validation do not part ways: the last validation loss is the lowest.",
        ),
        (
            log_of([2.0, 1.0, 1.0125]),
            "Training and validation do not clearly part ways: the last validation loss is above the lowest by 1.2 %, which "
            "may be noise.",
        ),
        (
            log_of([2.0, 1.0, 1.0001]),
            "Training and validation do not clearly part ways: the last validation loss is above the lowest by less than "
            "0.1 %, which may be noise.",
        ),
        (
            log_of([-1.0, -2.0, -1.99]),
            "Training and validation do not clearly part ways: the last validation loss is above the lowest, which may be "
            "noise.",
        ),
        (
            log_of(PARTED, lambda step: 1 + step / 100),
            "Training and validation do not clearly part ways: the last validation loss is above the lowest by 30 %, but so "
            "is the training loss.",
        ),
        (
            log_of([1.0, None, 2.0]),
            "Fewer than 3 validations cannot tell whether training and validation part ways.",
        ),
        ([], "Fewer than 3 validations cannot tell whether training and validation part ways."),
    ],
)
def test_where_they_do_not_part_one_sentence_says_so(tmp_path: Path, log: list[dict[str, Any]], words: str) -> None:
    assert said(tmp_path, log) == words


# ---- the picture and the card ----------------------------------------------------------------------------------------


def marked(page: Element) -> list[float]:
    """Where the upright lines that are not broken, which mark a parting, stand in the learning curves."""
    styles = [(path, path.attributes.get("style", "")) for path in curves_of(page).all("path")]
    lines = [path for path, style in styles if "stroke: var(--ink)" in style and "stroke-dasharray" not in style]
    numbers = [[float(number) for number in re.findall(r"[\d.]+", path.attributes["d"])] for path in lines]
    return [ends[0] for ends in numbers if len(ends) == 4 and ends[0] == ends[2]]


def curves_of(page: Element) -> Element:
    return section(page, "learning").all("svg")[0]


def validated_at(page: Element, place: int) -> float:
    """Where the mark of a validation stands, from the left."""
    marks = [use for use in curves_of(page).all("use") if "stroke: var(--accent)" in use.attributes["style"]]
    return float(marks[place].attributes["x"])


def test_the_picture_marks_the_validation_from_which_they_part_and_names_it(tmp_path: Path) -> None:
    page = page_of(tmp_path, log_of(PARTED))
    assert marked(page) == [pytest.approx(validated_at(page, 5), abs=0.01)]
    told = [text.text for text in curves_of(page).all("text")]
    assert {"training", "validation", "chosen: update 40", "parted from update 60 on"} < set(told)
    assert curves_of(page).attributes["aria-label"].endswith("; they part ways from update 60 on")


def test_where_they_do_not_part_the_picture_marks_nothing(tmp_path: Path) -> None:
    page = page_of(tmp_path, log_of(FALLS))
    assert marked(page) == [] and "part" not in curves_of(page).attributes["aria-label"]


def test_the_card_says_in_one_line_that_they_part_and_nothing_where_they_do_not(tmp_path: Path) -> None:
    line = (
        "- Overfitting: training and validation part ways from update 60 (epoch 1.5) on; the weights are from before it"
    )
    for name, log, wanted in (("parted", log_of(PARTED), [line]), ("falls", log_of(FALLS), []), ("none", [], [])):
        text = card(make_run(tmp_path / name, CHAT, chat_lines(9), log=log, chosen_step=40), CHAT)
        assert [found for found in text.split("\n") if "part ways" in found] == wanted
        assert ("verfitting" in text) == bool(wanted)


@pytest.fixture(scope="module")
def opened_browser() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])
def test_the_second_line_of_the_legend_lies_over_nothing(
    opened_browser: Browser, tmp_path: Path, width: int, theme: Any
) -> None:
    many = [line | {"step": 12_345 * line["step"]} for line in log_of(PARTED)]  # numbers of seven digits in the legend
    run = make_run(tmp_path / "run", CHAT, chat_lines(9), log=many, chosen_step=12_345 * 40)
    (tmp_path / "report.html").write_text(report(run, CHAT), encoding="utf-8")
    context = opened_browser.new_context(viewport={"width": width, "height": 800}, color_scheme=theme)
    page = context.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    assert page.locator("#learning svg text", has_text="parted from update 740700 on").is_visible()
    assert layout_faults(page) + picture_faults(page) + contrast_faults(page) == []
    context.close()


# ---- the checks see it when the words or the mark are wrong ----------------------------------------------------------


def test_the_sentences_see_a_parting_that_is_put_at_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def at_best(log: Any) -> Any:
        found = parting(log)
        return found and type(found)(found.best, found.best, found.end)

    monkeypatch.setattr(html, "parting", at_best)
    page = page_of(tmp_path, log_of(PARTED))
    assert "from epoch 1 on (update 40)" in section(page, "learning").all("p")[0].text
    assert marked(page) != [pytest.approx(validated_at(page, 5), abs=0.01)]


def test_the_mark_is_seen_to_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = pictures.curves
    monkeypatch.setattr(pictures, "curves", lambda lines, chosen, unit, parted: drawn(lines, chosen, unit, None))
    assert marked(page_of(tmp_path, log_of(PARTED))) == []


def test_the_side_of_the_weights_is_seen_to_be_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve_words, "_side", lambda parted, chosen: "before")
    with pytest.raises(AssertionError):
        test_weights_from_after_the_parting_are_said_to_be_chosen_by_another_number(tmp_path, "exact_match")
