"""The section on groups: the numbers of the block in its tables, and sentences that say no more than they do."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from made_run import make_run, recipe_of, scored
from page_reader import Element, read_page
from test_report_safety import HOSTILE

from pegbox.evaluation import groups as measured
from pegbox.evaluation.groups import by_group
from pegbox.report import groups
from pegbox.report.card import card
from pegbox.report.html import report
from pegbox.runs.folder import RunFolder

NAMES = {"tuned": "tuned model", "base": "untouched model", "trivial": "most frequent label"}
LABELS = ("bad", "good")
RECIPE = recipe_of("classification", "accuracy", "f1_macro")


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "RESAMPLES", 1_000)


def lines_of(right: dict[str, tuple[float, float]], rows: int = 150, **few: int) -> list[dict[str, Any]]:
    """Rows of groups of which the linear probe and tuned get these shares right, exactly; and of groups with `few` rows."""
    rng, lines = random.Random(1), []
    for group, shares in (right | dict.fromkeys(few, (0.5, 0.5))).items():
        count = few.get(group, rows)
        hard = {system: rng.sample(range(count), count) for system in ("linear_probe", "tuned")}
        for row in range(count):
            label = LABELS[row % 2]
            answers = {
                system: label if hard[system][row] < round(share * count) else LABELS[1 - row % 2]
                for system, share in zip(hard, shares, strict=True)
            }
            line = {"input": f"text {row}", "reference": label, "group": group, "unit": len(lines)}
            lines.append(line | {"id": f"rows.jsonl:{len(lines) + 1}", "answers": {"trivial": "good"} | answers})
    return lines


def evaluation_of(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found = by_group(lines, task="classification", primary="accuracy", metrics=["f1_macro"], seed=42)
    return scored(lines, RECIPE) | {"groups": found}


def run_of(path: Path, lines: Sequence[dict[str, Any]]) -> RunFolder:
    return make_run(path / "run", RECIPE, lines, evaluation_of(lines))


def page_of(path: Path, lines: Sequence[dict[str, Any]]) -> Element:
    return read_page(report(run_of(path, lines), RECIPE))


def section_of(page: Element) -> Element:
    (found,) = page.all("section", id="groups")
    return found


def told(right: dict[str, tuple[float, float]], **few: int) -> dict[str, Any]:
    lines = lines_of(right, **few)
    found = groups.section(evaluation_of(lines), NAMES | {"linear_probe": "linear probe"})
    assert found is not None
    return found


def cells(row: Element) -> list[str]:
    return [cell.text for cell in row.children if isinstance(cell, Element)]


WIDENED = {"young": (0.5, 0.92), "old": (0.5, 0.6)}


def test_the_table_says_rows_values_and_intervals_of_both_systems_in_each_group(tmp_path: Path) -> None:
    lines = lines_of(WIDENED, rare=12)
    page = page_of(tmp_path, lines)
    found = section_of(page)
    table = found.all("table")[0]
    head, *rows = [cells(row) for row in table.all("tr")]
    assert head == ["group", "rows", "tuned", "linear probe", "lead"]
    assert [row[:2] for row in rows] == [["old", "150"], ["young", "150"]]
    block = {group["group"]: group for group in evaluation_of(lines)["groups"]["groups"]}
    for name, *_, tuned, probe, lead in rows:
        values = {system: block[name]["systems"][system]["accuracy"] for system in ("tuned", "linear_probe")}
        for cell, system in ((tuned, "tuned"), (probe, "linear_probe")):
            low, high = (f"{100 * values[system][end]:.1f}".removesuffix(".0") for end in ("low", "high"))
            assert cell == f"{100 * values[system]['value']:.0f} %{low} to {high} %"
        assert lead.startswith(f"+{100 * block[name]['lead']['difference']:.0f} points")
    assert "312 test rows are of 3 groups. Fewer than 30 rows are too few for a number: rare (12)." in found.text
    (picture,) = found.all("svg")
    assert (
        "young: tuned 92 % (" in picture.attributes["aria-label"]
        and "linear probe 50 %" in picture.attributes["aria-label"]
    )
    assert [link.text for link in page.all("a", href="#groups")] == ["groups"]


def test_fairlearns_differences_stand_before_and_after_for_each_label(tmp_path: Path) -> None:
    lines = lines_of(WIDENED)
    found = section_of(page_of(tmp_path, lines))
    assert [title.text for title in found.all("h3")] == ["Demographic parity", "Equalized odds"]
    block = evaluation_of(lines)["groups"]["fairness"]["labels"]
    for table, measure in zip(found.all("table")[1:], groups.MEASURES, strict=True):
        head, *rows = table.all("tr")
        assert cells(head) == ["label", "rows", "linear probe", "tuned", "change"]
        assert [cells(row)[:2] for row in rows] == [["bad", "150"], ["good", "150"]]
        for row, one in zip(rows, block, strict=True):
            for cell, key in zip(row.all("td")[1:], ("counterpart", "tuned", "change"), strict=True):
                value = one[measure][key]["value"]
                assert float(str(cell.children[0])) == pytest.approx(100 * value, abs=0.051)
            assert row.all("small")[-1].text.endswith(f", {one[measure]['verdict']}")
    assert "widened" in found.all("table")[2].text


def test_runs_without_the_block_have_no_such_section(page: Element) -> None:
    assert page.all("section", id="groups") == page.all("a", href="#groups") == []


def test_a_wider_gap_is_said_with_what_chance_would_do() -> None:
    probe, tuned, change = told(WIDENED)["gap"]
    assert probe.startswith(
        "The linear probe is best in old (50 %) and worst in young (50 %): a gap of 0 points (95 % interval 0 to "
    )
    assert tuned.startswith(
        "The tuned model is best in young (92 %) and worst in old (60 %): a gap of 32 points (95 % interval "
    )
    assert "points come about by chance alone)." in tuned
    assert change.startswith("Tuning widened the gap (+32 points, 95 % interval +") and "A smaller gap" not in change


def test_a_smaller_gap_is_said_with_its_cost() -> None:
    levelled = told({"young": (0.9, 0.5), "old": (0.4, 0.5)})["gap"][-1]
    assert levelled.startswith("Tuning narrowed the gap (-50 points, 95 % interval -")
    assert "here it did, at least in part: young, the best before, got worse (-40 points" in levelled
    lifted = told({"young": (0.9, 0.94), "old": (0.4, 0.94)})["gap"][-1]
    assert "here young, the best before, did not get worse (+4 points" in lifted
    small = told({"young": (0.7, 0.7), "old": (0.66, 0.68)})["gap"][-1]
    assert small.startswith("That tuning changed the gap is not shown (-2 points, 95 % interval -") and "+" in small


def test_groups_that_cannot_be_compared_are_said_to_be_so() -> None:
    alone = told({"young": (0.5, 0.9)}, old=29)
    assert (
        alone["gap"] == ["A gap takes two groups with numbers."] and alone["measures"] == [] and len(alone["rows"]) == 1
    )
    none = told({}, young=29, old=3)
    assert none["picture"] is None and none["rows"] == none["gap"] == none["notes"] == []
    assert none["told"].endswith("too few for a number: young (29), old (3).")


def test_the_limits_of_the_numbers_stand_beside_them() -> None:
    notes = " ".join(told(WIDENED)["notes"])
    assert "not adjusted for looking at several groups and labels" in notes and "from 1,000 resamples" in notes
    assert "above zero by chance alone" in notes and "defined as in fairlearn" in notes and "marked *" not in notes
    tied = [line | {"unit": int(line["group"] == "old")} for line in lines_of(WIDENED)]
    rows = groups.section(evaluation_of(tied), NAMES | {"linear_probe": "linear probe"})
    assert rows is not None and "about more rows of these groups, not about others" in rows["notes"][0]


def test_a_label_that_a_group_lacks_is_marked_in_equalized_odds_alone(tmp_path: Path) -> None:
    lines = lines_of(WIDENED)
    lacking = [line | {"reference": "bad"} if line["group"] == "old" else line for line in lines]
    found = section_of(page_of(tmp_path, lacking))
    _, parity, odds = found.all("table")
    assert [cells(row)[0] for row in parity.all("tr")[1:]] == ["bad", "good"]
    assert [cells(row)[0] for row in odds.all("tr")[1:]] == ["bad *", "good *"]
    assert "(marked *)" in found.text and "none can be called the worst" in found.text


def test_many_groups_stand_in_the_table_and_the_largest_in_the_picture(tmp_path: Path) -> None:
    lines = lines_of({f"g{number:02}": (0.5, 0.8) for number in range(17)}, rows=30)
    found = section_of(page_of(tmp_path, lines))
    assert len(found.all("table")[0].all("tr")) == 18
    label = found.all("svg")[0].attributes["aria-label"]
    assert "g14: tuned" in label and "g15" not in label and "The 15 largest groups." in found.text


def test_names_of_groups_and_labels_are_text_and_nothing_else(tmp_path: Path) -> None:
    lines = [
        line
        | {"group": HOSTILE if line["group"] == "old" else "$x_1$"}
        | {"reference": line["reference"].replace("bad", HOSTILE)}
        | {"answers": {name: given.replace("bad", HOSTILE) for name, given in line["answers"].items()}}
        for line in lines_of(WIDENED)
    ]
    page = page_of(tmp_path, lines)
    assert page.all("img") == [] and len(page.all("script")) == 2
    found = section_of(page)
    assert found.raw_text.count('<script>alert("1")</script>') >= 5 and "$x_1$" in found.text
    ids = [element.attributes["id"] for element in page.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))


def test_the_card_says_the_worst_group_and_the_gap_where_there_are_groups(tmp_path: Path) -> None:
    lines = [line | {"group": f"customer {line['group']}"} for line in lines_of(WIDENED)]
    text = card(run_of(tmp_path, lines), RECIPE)
    assert "customer old" not in text, "a card is published, and a group may be a customer"
    (line,) = [line for line in text.split("\n") if "model is worst" in line]
    assert line.startswith(
        "- In the group where the model is worst (150 rows; the report names it): 60 % in accuracy, 95 % interval "
    )
    assert (
        "The gap between the best and the worst of 2 groups is 32 points, that of the linear probe 0 points; " in line
    )
    assert "tuning widened the gap (+32 points, 95 % interval +" in line
    without = {key: found for key, found in evaluation_of(lines).items() if key != "groups"}
    older = make_run(tmp_path / "older", RECIPE, lines, without)
    assert "model is worst" not in card(older, RECIPE)
    lone = evaluation_of(lines_of({"young": (0.5, 0.9)}, old=29))
    assert groups.card_line(lone, NAMES) is None
