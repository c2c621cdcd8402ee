"""The page of a comparison as its reader meets it: every number that was found, nothing that runs, no text as markup."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compared_runs import FILE, line, lines, run, skilled
from page_reader import Element, read_page

from pegbox.finished.comparing import compare
from pegbox.report import wording
from pegbox.report.comparison import comparison_page

HOSTILE = '</style></pre><script>alert("1")</script><img src=http://a.example/x onerror=alert(1)>&amp;{{ 7 * 7 }}'
NAMED = "<b onclick=alert(2)>&$x^2$ {{ 7 * 7 }}"  # what a folder can be called


def log(*losses: float) -> list[dict[str, Any]]:
    return [{"step": 2 * place, "split": "validation", "loss": loss} for place, loss in enumerate(losses, start=1)]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Three runs with fewer rows in one, a leak, and recipes that differ."""
    home, rng = tmp_path_factory.mktemp("runs"), np.random.default_rng(5)
    more: list[dict[str, Any]] = [
        {"log": log(0.5, 0.25, 0.125), "chosen_step": 6, "recipe": {"seed": 1}},
        {"log": log(0.875, 0.75, 0.8125), "chosen_step": 4, "recipe": {"seed": 2, "method": "full"}},
        {"log": log(1.5), "chosen_step": 2, "recipe": {"seed": 2}, "train": [f"{FILE}:3", f"{FILE}:4"]},
    ]
    for name, share, given in zip(("first", "second", "third"), (0.9, 0.8, 0.1), more, strict=True):
        rows = lines(skilled(rng, 120, share))[: 110 if name == "third" else 120]
        run(home / name, rows, metrics=["chrf", "token_f1"], test_scored=2, tokens=1000 + len(name), **given)
    return compare([home / name for name in ("third", "first", "second")], resamples=1_000)


@pytest.fixture(scope="module")
def page(found: dict[str, Any]) -> Element:
    return read_page(comparison_page(found))


def table(page: Element, caption_or_head: str) -> list[list[str]]:
    """The rows of the table that has the caption or the head, cell by cell."""
    (chosen,) = [t for t in page.all("table") if caption_or_head in t.text]
    return [[cell.text for cell in row.all("th") + row.all("td")] for row in chosen.all("tr")[1:]]


def test_the_answer_comes_first_for_everybody_and_for_a_statistician(found: dict[str, Any], page: Element) -> None:
    (headline,), (header,) = page.all("h1"), page.all("header")
    best, second = (run["metrics"]["exact_match"]["value"] for run in found["runs"][:2])
    assert headline.text == (
        f"Not shown which is best: first answers {wording.number(best, 'exact_match')} of the test rows exactly; the next, "
        f"second, {wording.number(second, 'exact_match')}."
    )
    assert headline.attributes["class"] == "not-shown"
    assert found["reason"] in header.text and "1,000 resamples of 110 rows" in header.text
    assert "Caution: 2 of the 110 rows compared stand in the training rows of third" in header.text


def test_a_run_that_is_best_is_named_so(tmp_path: Path) -> None:
    good, bad = lines(np.ones(60, dtype=bool)), lines(np.zeros(60, dtype=bool))
    page = read_page(
        comparison_page(compare([run(tmp_path / "bad", bad), run(tmp_path / "good", good)], resamples=400))
    )
    (headline,) = page.all("h1")
    assert headline.text == "Better: good answers 100 % of the test rows exactly; bad, 0 %."
    assert headline.attributes["class"] == "better"
    assert "adjusted" not in page.all("table")[1].text  # a single pair needs no adjusting
    assert [row.all("th")[0].text.split()[0] for row in page.all("tr", class_="tuned")] == ["goodlora;"]


def test_every_number_that_was_found_stands_in_the_page(found: dict[str, Any], page: Element) -> None:
    metrics, pairs = table(page, "Every metric"), table(page, "Every pair")
    costs = {row[0]: row[1:] for row in table(page, "peak memory")}
    said = {term.text: told.text for term, told in zip(page.all("dt"), page.all("dd"), strict=True)}
    for run_, row in zip(found["runs"], metrics, strict=True):
        assert row[0].startswith(run_["name"]) and f"its own verdict: {run_['verdict']}" in row[0]
        assert row[1:] == [
            wording.number(scored["value"], metric) + wording.bounds(scored, metric)
            for metric, scored in run_["metrics"].items()
        ]
        assert costs[run_["name"]] == [
            wording.seconds(run_["seconds"]),
            f"{run_['tokens']:,}",
            f"{run_['trainable_parameters']:,}of {run_['parameters']:,}",
            wording.gigabytes(run_["peak_memory"]),
            run_["device"],
        ]
        curve = ", ".join(f"{step}: {loss:.4g}" for step, loss in run_["validation"])
        assert said[run_["name"]].startswith(run_["run"]) and curve in page.text
        assert f"update {run_['chosen_step']}, validation loss" in page.text
        assert f"{run_['rows_of_run']} test rows" in said[run_["name"]]
    for pair, row in zip(found["differences"], pairs, strict=True):
        assert row == [
            f"{pair['run']}against {pair['against']}",
            wording.difference(pair["difference"], "exact_match") + wording.difference_bounds(pair, "exact_match"),
            wording.p_value(pair["p_value"]),
            wording.p_value(pair["p_adjusted"]),
            "better" if pair["shown"] else "not shown",
        ]
    assert f"About {found['units_needed']:,} rows" in page.text and f"{found['rows']} rows" in page.text


def test_notes_and_what_differs_between_the_recipes_are_told(found: dict[str, Any], page: Element) -> None:
    assert len(found["notes"]) >= 4 and all(note["message"] in page.text for note in found["notes"])
    said = {
        term.text: [part.text for part in told.all("div")]
        for term, told in zip(page.all("dt"), page.all("dd"), strict=True)
    }
    assert said["seed"] == ["1 first", "2 second, third"]
    assert said["method.kind"] == ["lora first, third", "full second"]
    assert {key for key in said if "." in key or key == "seed"} == set(found["recipes"])


def test_the_rows_that_differ_are_shown_with_every_answer_and_how_it_did(found: dict[str, Any], page: Element) -> None:
    cards = page.all("article")
    assert len(cards) == len(found["rows_that_differ"]["rows"]) == 20
    for row, card in zip(found["rows_that_differ"]["rows"], cards, strict=True):
        said = {term.text: told.text for term, told in zip(card.all("dt"), card.all("dd"), strict=True)}
        assert said["input"] == row["input"] and said["right answer"] == row["reference"]
        for name, answer in row["answers"].items():
            assert said[name] == f"{answer} {'right' if row['scores'][name] else 'wrong'}"
    assert f"differ in exact match on {found['rows_that_differ']['count']} of 110 rows" in page.text


def test_the_pictures_say_names_values_and_where_zero_is(found: dict[str, Any], page: Element) -> None:
    runs, leads, curves = page.all("svg", role="img")
    for run_ in found["runs"]:
        value = wording.number(run_["metrics"]["exact_match"]["value"], "exact_match")
        assert {run_["name"], value} <= {text.text for text in runs.all("text")}
        assert f"{run_['name']} {value}" in runs.attributes["aria-label"]
        assert run_["name"] in [text.text for text in curves.all("text")]
    assert {"against second", "against third", "0"} <= {text.text for text in leads.all("text")}
    lines_ = [p for p in leads.all("path") if "stroke: var(--ink)" in p.attributes.get("style", "")]
    (label,) = [text for text in leads.all("text") if text.text == "0"]
    assert {x for p in lines_ for x in re.findall(r"[ML] ([\d.]+)", p.attributes["d"])} == {label.attributes["x"]}
    rings = [use for use in curves.all("use") if "stroke: var(--ink)" in use.attributes["style"]]
    assert len(rings) == 3  # each run's chosen update


def test_each_run_has_a_colour_of_its_own_that_the_page_defines_for_light_and_dark(page: Element) -> None:
    painted = ";".join(e.attributes.get("style", "") for svg in page.all("svg") for e in svg.all())
    used = set(re.findall(r"var\((--[\w-]+)\)", painted))
    defined = re.findall(r"(--[\w-]+): #", page.all("style")[0].raw_text)
    assert {"--run-1", "--run-2", "--run-3"} <= used <= {name for name in defined if defined.count(name) == 2}
    assert set(re.findall(r"(?:fill|stroke): ([^;]+)", painted)) <= {"none", *(f"var({name})" for name in used)}


def hostile(tmp_path: Path) -> Element:
    rows = [line(n, HOSTILE if n % 2 else "x", reference=HOSTILE) | {"input": HOSTILE + str(n)} for n in range(1, 41)]
    recipe = {"model": HOSTILE, "data": {"train": FILE, "instruction": HOSTILE}}
    a = run(tmp_path / NAMED, rows, recipe=recipe, hardware={"device": HOSTILE})
    other = [row | {"answers": {"tuned": "wrong"}} for row in rows]
    return read_page(comparison_page(compare([a, run(tmp_path / "b", other)], resamples=400)))


def test_no_text_of_a_user_becomes_markup(tmp_path: Path) -> None:
    page = hostile(tmp_path)
    shown = page.all("body")[0].raw_text
    assert shown.count('<script>alert("1")</script>') > 20 and "{{ 7 * 7 }}" in shown and NAMED in shown
    assert page.all("img") == [] and page.all("b") == [] and len(page.all("script")) == 1  # ours
    assert [style.attributes for style in page.all("style")] == [{}]
    assert not [name for element in page.all() for name in element.attributes if name.startswith("on")]


def test_nothing_is_loaded_from_anywhere(tmp_path: Path) -> None:
    page = hostile(tmp_path)
    loading = {"src", "srcset", "data", "action", "poster", "background", "formaction", "ping", "manifest"}
    for element in page.all():
        assert not loading & element.attributes.keys(), element
        assert all(value.startswith("#") for name, value in element.attributes.items() if name.endswith("href"))
    (policy,) = [m for m in page.all("meta") if m.attributes.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy.attributes["content"]
    ids = [element.attributes["id"] for element in page.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))


def test_runs_without_a_finite_validation_loss_or_a_difference_still_have_a_page(tmp_path: Path) -> None:
    right = lines(np.ones(40, dtype=bool))
    paths = [run(tmp_path / name, right, log=log(float("nan"))) for name in ("a", "b")]
    found = compare(paths, resamples=400)
    json.dumps(found, allow_nan=False)
    page = read_page(comparison_page(found))
    assert "No validation loss was finite" in page.text and "a and b score the same" in page.text
    assert "on 0 of 40 rows" in page.text and not page.all("article")


def test_perplexities_are_shown_as_what_they_are(tmp_path: Path) -> None:
    def made(name: str, nats: float) -> Path:
        rows = [
            line(n, {"nll": 10 * nats + n / 9, "tokens": 10}) | {"reference": f"question {n}"} for n in range(1, 41)
        ]
        return run(tmp_path / name, rows, task="completion", primary="perplexity")

    page = read_page(comparison_page(compare([made("a", 2.0), made("b", 3.0)], resamples=400)))
    assert page.all("h1")[0].text.startswith("Better: a has a perplexity of ")
    assert page.all("h1")[0].text.endswith("(lower is better).")
    assert "nats over 10 tokens perplexity" in page.all("article")[0].text
    assert "right answer" not in page.all("article")[0].text


@pytest.mark.parametrize(
    ("losses", "told"), [(("mae", "mae"), "deviations per value"), (("mae", "mse"), "each run's own")]
)
def test_runs_of_numbers_are_compared_in_their_own_words_and_their_losses_by_their_unit(
    tmp_path: Path, losses: tuple[str, str], told: str
) -> None:
    for name, loss, off in zip(("near", "far"), losses, (0.25, 1.5), strict=True):
        rows = [line(n, n + off * (-1) ** n, reference=float(n)) for n in range(1, 61)]
        rows = [row | {"answers": row["answers"] | {"trivial": 30.5}} for row in rows]
        train = {"learning_rate": 1e-3, "loss": loss}
        run(tmp_path / name, rows, task="regression", primary="rmse", log=log(0.5), recipe={"train": train})
    page = read_page(comparison_page(compare([tmp_path / "far", tmp_path / "near"], resamples=1_000)))
    assert page.all("h1")[0].text == (
        "Better: near is off by 0.250 (root mean square) on the test rows; far, 1.500 (lower is better)."
    )
    marks = {mark.text for mark in page.all("span") if mark.attributes.get("class", "").startswith("mark")}
    assert marks == {"off by 0.250", "off by 1.500"}
    assert "right value" in page.text
    assert f"validation loss, {told}" in [text.text for text in page.all("text")]
