"""What the report shows of the rows: a bar a label, lengths with the limit, in pictures and in numbers; nothing of old runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_run import CHAT, chat_lines, make_run
from page_reader import Element, read_page, section

from pegbox.data.doctor.shape import Shape, lengths
from pegbox.data.records import LabelledText, PromptCompletion, Record
from pegbox.report import shape
from pegbox.report.html import report

COUNTS = {f"label <{n}>": 3 * (40 - n) for n in range(30)}
TOKENS = np.array([3] * 40 + [70] * 25 + [130] * 2, dtype=np.int64)


def made(*, labels: bool = True) -> dict[str, Any]:
    check = Shape()
    for name, count in COUNTS.items():
        for n in range(count):
            content = LabelledText("t" * n, name) if labels else PromptCompletion("t" * n, "answer")
            check.see(Record(f"{name if n % 2 else 'rows'}.jsonl:{n}", content))
    return check.shape() | {"tokens": lengths(TOKENS, 128)}


def page(folder: Path, found: dict[str, Any] | None) -> Element:
    run = make_run(folder / "run", CHAT, chat_lines())
    if found is not None:
        findings = json.loads((run.path / "data.json").read_text(encoding="utf-8"))
        run.write_json("data.json", findings | {"shape": found})
    return read_page(report(run, CHAT))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Element:
    return page(tmp_path_factory.mktemp("shape"), made())


def listed(part: Element, place: int) -> dict[str, str]:
    return {div.all("dt")[0].text: div.all("dd")[0].text for div in part.all("details")[place].all("div")}


def test_runs_without_a_shape_have_no_such_section_and_findings_stay(tmp_path: Path, shown: Element) -> None:
    old = page(tmp_path, None)
    assert not old.all("section", id="shape") and not old.all("a", href="#shape")
    assert shown.all("section", id="shape") and shown.all("a", href="#shape")
    assert (
        section(shown, "data").text == section(old, "data").text and "40 rows are repeated" in section(old, "data").text
    )
    assert shape.section({"rows": 0}) is None


def test_each_label_has_a_bar_as_long_as_its_rows_and_the_rest_one_together(shown: Element) -> None:
    part = section(shown, "shape")
    texts = [text.text for text in part.all("svg")[0].all("text")]
    rest = sum(list(COUNTS.values())[shape.PICTURED :])
    wanted = [*list(COUNTS.items())[: shape.PICTURED], (f"{30 - shape.PICTURED} others", rest)]
    assert texts == [text for name, count in wanted for text in (name, f"{count:,}")]
    drawn = [path.attributes for path in part.all("svg")[0].all("path")]
    bars = [path["d"].split() for path in drawn if "--accent" in path.get("style", "")]
    widths = [float(bar[4]) - float(bar[1]) for bar in bars]
    assert widths == pytest.approx([400 * count / rest for _, count in wanted], abs=0.5)
    assert listed(part, 0) == {name: str(count) for name, count in COUNTS.items()}
    assert "30 labels: 'label <0>' is the most frequent with 120, 'label <29>' the rarest with 33." in part.text


def test_the_limit_is_marked_and_told_with_the_rows_beyond_it(shown: Element) -> None:
    part = section(shown, "shape")
    picture = part.all("svg")[1]
    assert any(text.text == "limit 128" for text in picture.all("text"))
    assert "the limit of 128 is marked" in picture.attributes["aria-label"]
    assert "The limit is 128 (data.max_length): 2 rows are longer." in part.text
    assert listed(part, 1) == {"2 to 4": "40 rows", "50 to 99": "25 rows", "129 to 199": "2 rows"}
    styles = " ".join(path.attributes.get("style", "") for path in picture.all("path"))
    assert styles.count("fill: var(--wrong)") == 1


def test_a_limit_that_no_row_reaches_is_marked_too() -> None:
    block = shape.section(made() | {"tokens": lengths(np.array([3, 4]), 4096)})
    assert block is not None and "limit 4,096" in block.blocks[1].figures[0].picture


def test_characters_are_shown_of_what_is_asked_and_of_written_answers(tmp_path: Path) -> None:
    part = section(page(tmp_path, made(labels=False)), "shape")
    assert [head.text for head in part.all("h3")] == [
        "Lengths in tokens",
        "Lengths in characters",
        "Rows of each source",
    ]
    assert [caption.text for caption in part.all("figcaption")] == ["What is asked.", "The right answer."]
    numbers = listed(part, 1)
    assert numbers["The right answer: 5 to 9"] == f"{sum(COUNTS.values()):,} rows"
    assert numbers["What is asked: 1"] == "30 rows"


def test_every_picture_is_told_in_words_and_ids_are_unique(shown: Element) -> None:
    pictures = section(shown, "shape").all("svg")
    assert len(pictures) == 4 and all(len(svg.attributes["aria-label"]) > 20 for svg in pictures)
    ids = [element.attributes["id"] for element in shown.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", ["$x^2$", "<b>", "", "\u202eabc", "long " * 40])
def test_odd_labels_do_no_harm(name: str) -> None:
    check = Shape()
    check.see(Record("rows.jsonl:1", LabelledText("", name)))
    found = shape.section(check.shape())
    assert found is not None and "<b>" not in found.blocks[0].figures[0].picture
