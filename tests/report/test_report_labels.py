"""What the report shows of labels: each one's rates, what is taken for what, how sure the model is; by scikit-learn's numbers."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_run import make_run, page_of, recipe_of
from page_reader import Element, read_page, section, table
from sklearn import metrics as sk
from task_runs import MADE, MANY, NAMES, label_lines
from test_report_page import cards

from pegbox.evaluation.per_class import confusion
from pegbox.metrics import lookup
from pegbox.report import labels
from pegbox.report.html import report
from pegbox.report.label_pictures import DARKEST
from pegbox.report.page import TEMPLATES


def test_each_label_has_scikit_learns_numbers_of_tuned_and_of_the_rival(pages: Mapping[str, Element]) -> None:
    lines = MADE["classification"][1]
    right = [line["reference"] for line in lines]
    sides = [
        sk.precision_recall_fscore_support(right, [line["answers"][name] for line in lines], labels=NAMES)
        for name in ("tuned", "bag_of_words")
    ]
    shown = table(section(pages["classification"], "labels"))
    assert shown[""] == ["rows", "precision", "recall", "F1"] and set(shown) == {"", *NAMES}
    for place, name in enumerate(NAMES):
        rates = [f"{sides[0][rate][place]:.3f} / {sides[1][rate][place]:.3f}" for rate in range(3)]
        assert shown[name] == [str(sides[0][3][place]), *rates]
    assert "stands that of the bag of words." in section(pages["classification"], "labels").text


def test_the_confusion_matrix_is_drawn_and_listed_as_scikit_learn_has_it(pages: Mapping[str, Element]) -> None:
    lines = MADE["classification"][1]
    matrix = sk.confusion_matrix([x["reference"] for x in lines], [x["answers"]["tuned"] for x in lines], labels=NAMES)
    part = section(pages["classification"], "labels")
    picture = part.all("svg")[0]
    drawn = Counter(text.text for text in picture.all("text"))
    heads = Counter(str(n) for n in range(1, 9))
    assert drawn == Counter(str(count) for count in matrix[matrix > 0]) + heads + Counter(
        ["right label", "label said", *(f"{n} {name}" for n, name in enumerate(NAMES, start=1))]
    )
    listed = {div.all("dt")[0].text: div.all("dd")[0].text for div in part.all("details")[0].all("div")}
    for row, name in enumerate(NAMES):
        told = listed[f"{name}, {matrix[row].sum()} rows"]
        assert dict(re.findall(r"(\w+) (\d+) \(", told)) == {NAMES[c]: str(n) for c, n in enumerate(matrix[row]) if n}
        shares = [int(share) for share in re.findall(r"\((\d+) %", told)]
        assert shares == sorted(shares, reverse=True) and abs(sum(shares) - 100) <= 4
    assert f"{np.trace(matrix)} of 240 rows on its diagonal" in picture.attributes["aria-label"]


def test_each_number_stands_in_the_row_of_its_right_label_and_the_column_of_the_one_said(
    pages: Mapping[str, Element],
) -> None:
    names, matrix = confusion(MADE["classification"][1], "tuned")
    texts = section(pages["classification"], "labels").all("svg")[0].all("text")
    placed = [(text.text, *(float(text.attributes[axis]) for axis in "xy")) for text in texts]
    top = min(y for text, _, y in placed if text == "1")
    heads = {x: int(text) - 1 for text, x, y in placed if text.isdecimal() and y == pytest.approx(top, abs=1)}
    rows = {y: names.index(text.split(" ", 1)[1]) for text, _, y in placed if text[2:] in names}
    assert sorted(heads.values()) == sorted(rows.values()) == list(range(8))
    drawn = np.zeros((8, 8), dtype=int)
    for text, x, y in placed:
        if text.isdecimal() and y > top + 1:
            drawn[rows[min(rows, key=lambda at: abs(at - y))], heads[min(heads, key=lambda at: abs(at - x))]] = int(
                text
            )
    assert (drawn == matrix).all() and (matrix != matrix.T).any()


def test_two_labels_are_named_at_both_sides_with_counts_and_shares(tmp_path: Path) -> None:
    lines = label_lines(("no", "yes"), 60)
    page = page_of(tmp_path, recipe_of("classification", "f1_macro"), lines, task={"temperature": 1.0})
    shown = [text.text for text in section(page, "labels").all("svg")[0].all("text")]
    names, matrix = confusion(lines, "tuned")
    assert [shown.count(name) for name in names] == [2, 2]
    shares = 100 * matrix / matrix.sum(axis=1, keepdims=True)
    assert Counter(shown) >= Counter([*map(str, matrix.flat), *(f"{share:.0f} %" for share in shares.flat)])


def test_many_labels_are_pictured_broad_for_wide_windows_and_merged_for_narrow_ones(
    pages: Mapping[str, Element],
) -> None:
    part = section(pages["many_labels"], "labels")
    narrow, broad = part.all("figure")[:2]
    assert (narrow.attributes["class"], broad.attributes["class"]) == ("narrow", "broad")
    assert "13 others" in narrow.text and "9 labels with the most mistakes of 22" in narrow.text
    assert "others" not in broad.text
    assert set(table(part)) == {"", *MANY}


@given(st.lists(st.lists(st.integers(0, 9), min_size=12, max_size=12), min_size=12, max_size=12), st.integers(2, 11))
def test_merging_labels_loses_no_row_and_keeps_those_with_the_most_mistakes(cells: list[list[int]], most: int) -> None:
    matrix, names = np.array(cells), [f"label {n:02}" for n in range(12)]
    kept, small, rest = labels.merged(names, matrix, most)
    assert rest and len(kept) == most == len(small) and kept[-1] == f"{13 - most} others"
    assert small.sum() == matrix.sum()
    chosen = [names.index(name) for name in kept[:-1]]
    assert chosen == sorted(chosen)
    assert (small[:-1, :-1] == matrix[np.ix_(chosen, chosen)]).all()
    mistakes = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * np.diag(matrix)
    assert min(mistakes[chosen]) >= max(np.delete(mistakes, chosen))
    others = np.delete(matrix, chosen, axis=1)
    assert (small[:-1, -1] == others[chosen].sum(axis=1)).all()


def test_the_rarest_of_very_many_labels_are_left_out_of_the_table_and_counted(tmp_path: Path) -> None:
    names = [f"label {n:02}" for n in range(50)]
    page = page_of(
        tmp_path, recipe_of("classification", "f1_macro"), label_lines(names, 400), task={"temperature": 1.0}
    )
    part = section(page, "labels")
    assert len(table(part)) - 1 == 30 and "The 20 rarest stand in evaluation.json alone." in part.text


def test_the_bins_of_the_reliability_diagram_add_up_to_the_calibration_error() -> None:
    lines = MADE["classification"][1]
    sure = np.array([max(line["probabilities"]["tuned"].values()) for line in lines])
    right = np.array([line["answers"]["tuned"] == line["reference"] for line in lines])
    bins = labels.reliability(sure, right)
    assert sum(bin["rows"] for bin in bins) == len(lines)
    error = sum(bin["rows"] * abs(bin["sure"] - bin["right"]) for bin in bins) / len(lines)
    given = [line["probabilities"]["tuned"] for line in lines]
    assert error == pytest.approx(lookup("calibration_error")(given, [line["reference"] for line in lines]))
    for bin in bins:
        inside = sure[(sure > bin["low"]) & (sure <= bin["high"])]
        assert len(inside) == bin["rows"] and inside.mean() == pytest.approx(bin["sure"])


def test_a_probability_at_the_edge_of_two_bins_belongs_to_the_lower_one() -> None:
    edges = np.arange(1, 16) / 15
    found = labels.reliability(edges, np.ones(15, dtype=bool))
    assert [(bin["high"], bin["rows"]) for bin in found] == [(pytest.approx(edge), 1) for edge in edges]


@pytest.mark.parametrize(
    ("temperature", "said"), [(2.0, "for it was too sure"), (0.5, "not sure enough"), (1.02, "hardly"), (1.0, "hardly")]
)
def test_the_temperature_is_told_with_the_errors_before_and_after_it(
    tmp_path: Path, temperature: float, said: str
) -> None:
    recipe, lines, _ = MADE["classification"]
    folder = make_run(tmp_path / "run", recipe, lines, task={"temperature": temperature})
    page = read_page(report(folder, recipe))
    (told,) = [p.text for p in section(page, "labels").all("p") if "The temperature" in p.text]
    assert f"The temperature {temperature:.3g}, found on the validation rows alone" in told and said in told
    found = folder.read_json("evaluation.json")["calibration"]
    for side in ("before", "after"):
        assert f"{found[side]['value']:.3f} ({found[side]['low']:.3f} to {found[side]['high']:.3f})" in page.text


def test_a_classifier_without_probabilities_has_no_reliability_diagram(tmp_path: Path) -> None:
    lines = [{k: v for k, v in line.items() if k != "probabilities"} for line in label_lines(NAMES, 60)]
    page = page_of(tmp_path, recipe_of("classification", "f1_macro"), lines, task={"temperature": 1.0})
    assert "How sure it is" not in page.text and len(section(page, "labels").all("svg")) == 1


def test_letters_on_the_darkest_cell_can_be_read_in_both_themes() -> None:
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    light, dark = style.split("@media screen and (prefers-color-scheme: dark)", 1)

    def colour(theme: str, name: str) -> np.ndarray:
        digits = re.search(rf"--{name}: #(\w{{6}})", theme)
        assert digits is not None
        return np.array([int(digits[1][n : n + 2], 16) for n in (0, 2, 4)])

    def brightness(rgb: np.ndarray) -> float:
        parts = np.where(rgb / 255 <= 0.04045, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
        return float(parts @ [0.2126, 0.7152, 0.0722])

    for theme, name in itertools.product((light, dark), ("accent", "wrong", "rival")):
        ground = DARKEST * colour(theme, name) + (1 - DARKEST) * colour(theme, "paper")
        high, low = sorted((brightness(ground), brightness(colour(theme, "ink"))), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, name


def test_of_label_sets_each_label_has_its_threshold_and_rows_show_names(tmp_path: Path) -> None:
    recipe, lines, _ = MADE["multilabel"]
    cuts = {name: 0.05 + n / 10 for n, name in enumerate(NAMES)}
    state = {"labels": list(NAMES), "thresholds": list(cuts.values())}
    page = page_of(tmp_path, recipe, lines, task=state)
    shown = table(section(page, "labels"))
    assert shown[""][-1] == "threshold" and all(shown[name][-1] == f"{cut:.3f}" for name, cut in cuts.items())
    truth = np.array([[name in line["reference"] for name in NAMES] for line in lines])
    said = np.array([[name in line["answers"]["tuned"] for name in NAMES] for line in lines])
    f1 = sk.f1_score(truth, said, average=None)
    assert [shown[name][3][:5] for name in NAMES] == [f"{value:.3f}" for value in f1]
    told = dict(
        zip([card[0].split("jsonl:")[1] for card in cards(page)], [card[1] for card in cards(page)], strict=True)
    )
    for number, found in told.items():
        reference = lines[int(number) - 1]["reference"]
        assert found["right labels"] == (", ".join(reference) or "(none)")
