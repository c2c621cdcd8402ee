"""Names and contents that mislead: what is proposed does not depend on the order of columns, and is never wrong in silence."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import init_rows as files
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from init_rows import made, sentence, write_jsonl, write_table

from named_sources import paths
from pegbox.data.formats import to_record
from pegbox.data.records import LabelledText
from pegbox.data.sources import read_all
from pegbox.errors import DataError, PegboxError, RecipeError
from pegbox.proposal.columns import columns_of, normal
from pegbox.proposal.propose import propose
from pegbox.proposal.recipe import Proposal, _value
from pegbox.proposal.settings import Settings
from pegbox.recipe import load

Row = dict[str, Any]


def proposed(folder: Path, rows: list[Row]) -> Proposal:
    return propose([write_jsonl(folder / "rows.jsonl", rows)])


def told(proposal: Proposal) -> str:
    return " ".join((*proposal.reasons, *proposal.unknown))


# ---- names and contents that disagree --------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [files.review, files.ticket, files.entailed, files.translated, files.answered])
def test_the_order_of_the_columns_changes_nothing(tmp_path: Path, row: Callable[[random.Random, int], Row]) -> None:
    rows = made(80, row)
    turned = [dict(reversed(values.items())) for values in rows]
    assert proposed(tmp_path, turned).to_json() == proposed(tmp_path, rows).to_json()


def test_a_text_column_of_ids_is_not_taken_for_the_text(tmp_path: Path) -> None:
    rows = made(80, lambda draw, n: {"text": f"id-{n:04x}9", "body": f"{sentence(draw)} {n}", "label": "ab"[n % 2]})
    proposal = proposed(tmp_path, rows)
    assert (proposal.task, dict(proposal.columns)) == ("classification", {"text": "body"})
    (tmp_path / "recipe.yaml").write_text(proposal.to_yaml(tmp_path), encoding="utf-8")
    recipe = load(tmp_path / "recipe.yaml")
    records = [to_record(row, "classification", recipe.data.columns).content for row in read_all(recipe.data.train)]
    assert records == [LabelledText(row["body"], row["label"]) for row in rows]


@pytest.mark.parametrize("label", [lambda n: f"row-{n}", lambda n: n, lambda n: f"{n}"])
def test_a_label_that_is_unique_in_each_row_is_an_id_and_it_is_said(
    tmp_path: Path, label: Callable[[int], object]
) -> None:
    proposal = proposed(tmp_path, made(80, lambda draw, n: {"text": f"{sentence(draw)} {n}", "label": label(n)}))
    assert (proposal.task, proposal.sureness) == ("completion", "a guess")
    assert "'label' (a different code in every row)" in told(proposal)


def test_two_texts_that_no_name_explains_are_not_guessed(tmp_path: Path) -> None:
    rows = made(80, lambda draw, n: {"foo": f"{sentence(draw)} {n}", "bar": sentence(draw)})
    with pytest.raises(RecipeError) as refusal:
        proposed(tmp_path, rows)
    assert "'foo' (text, 80 different" in refusal.value.what and "'bar' (text" in refusal.value.what
    assert "data.columns" in str(refusal.value.cure)


def test_of_several_columns_that_could_be_the_label_none_is_picked_in_silence(tmp_path: Path) -> None:
    def row(draw: random.Random, n: int) -> Row:
        return {"remark": f"{sentence(draw)} {n}", "colour": "rgb"[n % 3], "size": "sml"[n // 3 % 3]}

    with pytest.raises(RecipeError, match="'colour' .* different values"):
        proposed(tmp_path, made(80, row))
    named = [{"sentiment" if name == "size" else name: v for name, v in values.items()} for values in made(80, row)]
    proposal = proposed(tmp_path, named)
    assert proposal.columns["label"] == "sentiment" and proposal.sureness == "likely"
    assert any("not used: 'colour'" in line for line in proposal.unknown)


def test_a_label_by_its_values_alone_is_a_guess(tmp_path: Path) -> None:
    rows = made(80, lambda draw, n: {"remark": f"{sentence(draw)} {n}", "outcome": ["won", "lost"][n % 2]})
    proposal = proposed(tmp_path, rows)
    assert (proposal.task, proposal.sureness) == ("classification", "a guess")
    assert any("whether 'outcome' is what is to be learnt" in line for line in proposal.unknown)


def test_a_passage_that_a_question_is_about_is_not_lost(tmp_path: Path) -> None:
    rows = made(80, lambda draw, n: files.answered(draw, n) | {"context": sentence(draw, 30)})
    with pytest.raises(RecipeError, match="would be lost") as refusal:
        proposed(tmp_path, rows)
    renamed = dict(re.findall(r"'(\w+)' to (\w+)", str(refusal.value.cure)))
    assert renamed == {"question": "instruction", "context": "input", "answer": "output"}
    mended = [{renamed.get(name, name): value for name, value in row.items()} for row in rows]
    assert proposed(tmp_path, mended).sureness == "sure"


@pytest.mark.parametrize(
    ("extra", "row"),
    [
        ({"text_pair": "x y z"}, files.review),
        ({"messages": "none"}, files.answered),
        ({"prompt": "a b", "completion": "c d"}, files.alpaca),
    ],
)
def test_a_column_that_would_be_read_for_its_name_alone_is_refused(
    tmp_path: Path, extra: Row, row: Callable[[random.Random, int], Row]
) -> None:
    with pytest.raises(PegboxError) as refusal:
        proposed(tmp_path, [values | extra for values in made(80, row)])
    assert all(name in refusal.value.what for name in extra)


@pytest.mark.parametrize("values", [[1, 2, 3], ["1", "2", "3"], ["yes", "no"]])
def test_labels_may_be_whole_numbers_or_names(tmp_path: Path, values: list[Any]) -> None:
    rows = made(90, lambda draw, n: {"text": f"{sentence(draw)} {n}", "label": values[n % len(values)]})
    assert proposed(tmp_path, rows).task == "classification"


@pytest.mark.parametrize("values", [[True, False], [1.0, 2.0], [None, "a", "b"]])
def test_labels_that_training_would_refuse_are_refused_with_the_row(tmp_path: Path, values: list[Any]) -> None:
    rows = made(90, lambda draw, n: {"text": f"{sentence(draw)} {n}", "label": values[n % len(values)]})
    with pytest.raises(DataError, match=r"rows.jsonl:1: 'label' must be a name or a whole number"):
        proposed(tmp_path, rows)


def test_two_hundred_columns_and_empty_ones_are_told_in_short(tmp_path: Path) -> None:
    def row(draw: random.Random, n: int) -> Row:
        empty = {f"empty {i}": "" for i in range(100)}
        return {**empty, **{f"f{i}": draw.random() for i in range(98)}, "text": f"{sentence(draw)} {n}", "label": n % 2}

    proposal = propose([write_table(tmp_path / "rows.csv", made(90, row))])
    assert (proposal.task, proposal.columns) == ("classification", {})
    assert len(told(proposal)) < 1200 and "and 190 more" in told(proposal)
    with pytest.raises(RecipeError) as refusal:
        propose([write_table(tmp_path / "numbers.csv", [{f"f{i}": i for i in range(200)}] * 40)])
    assert len(str(refusal.value)) < 1500


def test_rows_that_belong_together_are_offered_as_a_group_and_not_made_one(tmp_path: Path) -> None:
    proposal = proposed(tmp_path, made(90, files.review))
    text = proposal.to_yaml(tmp_path)
    assert proposal.group == "customer_id" and "\n    # group: customer_id" in text
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    assert "group" not in load(tmp_path / "recipe.yaml").data.columns
    (tmp_path / "recipe.yaml").write_text(text.replace("# group:", "group:"), encoding="utf-8")
    assert load(tmp_path / "recipe.yaml").data.columns["group"] == "customer_id"


def test_an_instruction_that_every_row_repeats_is_offered(tmp_path: Path) -> None:
    proposal = proposed(tmp_path, [row | {"system": "Be: brief # now"} for row in made(90, files.answered)])
    text = proposal.to_yaml(tmp_path)
    assert any("data.instruction" in line for line in proposal.unknown)
    (tmp_path / "recipe.yaml").write_text(text.replace("# instruction:", "instruction:"), encoding="utf-8")
    assert load(tmp_path / "recipe.yaml").data.instruction == "Be: brief # now"


def test_nesting_and_numbers_beyond_reason_end_in_a_refusal_and_not_in_a_traceback(tmp_path: Path) -> None:
    deep = "[" * 700 + "]" * 700
    lines = [f'{{"text": "a {n} b", "x": {deep}, "y": {"9" * 900}}}' for n in range(50)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert propose([str(tmp_path / "rows.jsonl")]).task == "completion"


cells = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=30)
cells = cells | st.lists(st.text(max_size=4) | st.integers(), max_size=3) | st.just([{"role": "user", "content": "x"}])
words = st.sampled_from(["text", "label", "messages", "prompt", "answer", "source", "tokens", "tags", "id", "x", ""])


@settings(max_examples=150)
@given(rows=st.lists(st.dictionaries(words, cells, max_size=5), max_size=12))
def test_any_rows_end_in_a_proposal_or_in_an_error_with_a_cure(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    try:
        proposal = proposed(folder, rows)
    except PegboxError as error:
        assert error.exit_code in (2, 3) and error.cure
    else:
        (folder / "recipe.yaml").write_text(proposal.to_yaml(folder), encoding="utf-8")
        assert load(folder / "recipe.yaml").data.columns == dict(proposal.columns)


# ---- the recipe ------------------------------------------------------------------------------------------------------


def uncommented(text: str) -> str:
    """The recipe with every key that stands behind a `#` set to the default given there."""
    head, body = text.split("\n\n", 1)
    return head + "\n\n" + re.sub(r"^( *)# ( *[a-z0-9_]+:)", r"\1\2", body, flags=re.MULTILINE)


@pytest.mark.parametrize("row", [files.chat, files.ticket, files.answered])
def test_the_defaults_behind_the_comments_are_the_defaults(
    tmp_path: Path, row: Callable[[random.Random, int], Row]
) -> None:
    text = proposed(tmp_path, made(90, row)).to_yaml(tmp_path)
    for name, content in (("as_it_is", text), ("uncommented", uncommented(text))):
        (tmp_path / f"{name}.yaml").write_text(content, encoding="utf-8")
    assert uncommented(text).count("\n  lora_alpha: null") == 1
    assert load(tmp_path / "uncommented.yaml") == load(tmp_path / "as_it_is.yaml")


def test_a_default_that_is_told_wrong_is_caught(tmp_path: Path) -> None:
    text = proposed(tmp_path, made(90, files.chat)).to_yaml(tmp_path).replace("# r: 16", "# r: 8")
    (tmp_path / "recipe.yaml").write_text(uncommented(text), encoding="utf-8")
    assert load(tmp_path / "recipe.yaml").method.r == 8  # type: ignore[union-attr]


HOSTILE = [
    "yes",
    "null",
    "*a",
    "&a",
    "#",
    "a: b",
    "a #b",
    "'",
    '"',
    "- a",
    "{a}",
    "[a",
    "!!str",
    "%",
    "@",
    "`",
    "|",
    ">",
]
HOSTILE += [
    "~",
    "1e5",
    "012",
    "2026-01-01",
    "",
    " ",
    "a\nb: c",
    "\r",
    "\t",
    "\u0085",
    "\u2028",
    "\ufeff",
    "\ufffe",
    "\x00",
]
HOSTILE += [
    "\x7f",
    "🙂",
    "=",
    "<<",
    ".inf",
    "NaN",
    "on",
    "Y",
    "0x1F",
    "1_000",
    "..",
    "---",
    "a" * 500,
    "\\",
    "\\n",
    "名前",
]
named = st.sampled_from(HOSTILE) | st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12)


def proposal_with(text: str, label: str, group: str, said: str, file: str) -> Proposal:
    return Proposal(
        task="classification",
        columns={"text": text, "label": label},
        model="org/model",
        files=(file,),
        rows=9,
        complete=True,
        sureness="likely",
        reasons=(said,),
        unknown=(said, label),
        settings=Settings(0.1, 0.2, 3, 8, 30),
        group=group,
        instruction=None,
    )


@settings(max_examples=300)
@given(text=named, label=named, group=named, said=named, file=named.filter(lambda name: name not in ("", "\x00")))
@example(text="yes", label="null", group="a\nb: c", said="x\nseed: 1", file="~x.csv")
def test_a_recipe_says_what_was_proposed_whatever_the_names_are(
    tmp_path_factory: pytest.TempPathFactory, text: str, label: str, group: str, said: str, file: str
) -> None:
    folder = tmp_path_factory.getbasetemp()
    name = str(folder / file.replace("/", "_"))
    written = proposal_with(text, label, group, said, name).to_yaml(folder)
    (folder / "recipe.yaml").write_bytes(written.encode("utf-8"))
    recipe = load(folder / "recipe.yaml")
    assert recipe.data.columns == {"text": text, "label": label}
    assert paths(recipe.data.train) == (name,) or file in (".", "..")
    assert recipe.seed == 42
    offered = written.replace("\n    # group:", "\n    group:")
    (folder / "recipe.yaml").write_bytes(offered.encode("utf-8"))
    assert load(folder / "recipe.yaml").data.columns["group"] == group


def test_names_that_are_written_bare_are_caught(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pegbox.proposal.recipe._value", lambda value: str(value))
    (tmp_path / "recipe.yaml").write_text(proposal_with("yes", "null", "g", "", "rows.csv").to_yaml(tmp_path))
    with pytest.raises(RecipeError):
        load(tmp_path / "recipe.yaml")
    assert _value("yes") == '"yes"'


@pytest.mark.parametrize("below", [".", "deep/er", "../beside"])
def test_files_and_a_model_folder_are_named_as_seen_from_the_recipe(
    tmp_path: Path, below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, folder = tmp_path / "here", tmp_path / "here" / below
    here.mkdir()
    folder.mkdir(parents=True, exist_ok=True)
    (here / "model").mkdir()
    write_jsonl(here / "~rows.jsonl", made(90, files.chat))
    monkeypatch.chdir(here)
    for rows, model in (("~rows.jsonl", "model"), (str(here / "~rows.jsonl"), str(here / "model"))):
        (folder / "recipe.yaml").write_text(propose([rows], model).to_yaml(folder), encoding="utf-8")
        monkeypatch.chdir("/")
        recipe = load(folder / "recipe.yaml")
        assert paths(recipe.data.train) == (str(here / "~rows.jsonl"),)
        assert recipe.model.name == str(here / "model")
        monkeypatch.chdir(here)


def test_a_name_is_known_however_it_is_spelled() -> None:
    assert {normal(name) for name in ("documentId", "Document ID", "document-id", "_DOCUMENT_ID")} == {"document_id"}
    assert [column.name for column in columns_of([])] == []
