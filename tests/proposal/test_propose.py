"""What `pegbox init` makes of files as people have them: the right task and columns, or a word on what it does not know."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import init_rows as files
import pytest
import yaml
from init_rows import made, sentence, write_jsonl, write_parquet, write_table, write_text

from named_sources import paths
from pegbox.data import formats
from pegbox.errors import DataError, RecipeError
from pegbox.evaluation import verdict
from pegbox.models.packages import CARRIED
from pegbox.proposal import propose as module
from pegbox.proposal import settings
from pegbox.proposal.propose import NOT_YET, propose
from pegbox.proposal.recipe import Proposal
from pegbox.recipe import Recipe, load
from tiny_folder import causal_folder, encoder_decoder_folder

Rows = list[dict[str, Any]]


def proposed(folder: Path, rows: Rows, name: str = "rows.jsonl") -> Proposal:
    return propose([write_jsonl(folder / name, rows)])


# ---- unlike files ----------------------------------------------------------------------------------------------------

UNLIKE: dict[str, tuple[Callable[[Path], str], str, dict[str, str | tuple[str, ...]], str]] = {
    "chat": (lambda d: write_jsonl(d / "rows.jsonl", made(90, files.chat)), "chat", {}, "sure"),
    "ShareGPT": (lambda d: write_jsonl(d / "rows.jsonl", made(90, files.share_gpt)), "chat", {}, "sure"),
    "Alpaca": (lambda d: write_jsonl(d / "rows.jsonl", made(90, files.alpaca)), "chat", {}, "sure"),
    "a CSV of reviews": (
        lambda d: write_table(d / "rows.csv", made(90, files.review)),
        "classification",
        {"text": "review", "label": "stars"},
        "sure",
    ),
    "a TSV with ids": (lambda d: write_table(d / "rows.tsv", made(90, files.ticket)), "classification", {}, "sure"),
    "pairs with a label": (
        lambda d: write_jsonl(d / "rows.jsonl", made(90, files.entailed)),
        "classification",
        {"text": "premise", "text_pair": "hypothesis"},
        "sure",
    ),
    "texts that match": (
        lambda d: write_jsonl(d / "rows.jsonl", made(90, files.matched)),
        "embedding",
        {"text": "anchor", "text_pair": "positive"},
        "likely",
    ),
    "texts that match and others": (
        lambda d: write_jsonl(d / "rows.jsonl", made(90, files.contrasted)),
        "embedding",
        {"text": "query", "text_pair": "positive"},
        "likely",
    ),
    "translations": (
        lambda d: write_table(d / "rows.tsv", made(90, files.translated)),
        "chat",
        {"prompt": "en", "completion": "de"},
        "likely",
    ),
    "questions and answers": (
        lambda d: write_parquet(d / "rows.parquet", made(90, files.answered)),
        "chat",
        {"prompt": "question", "completion": "answer"},
        "likely",
    ),
    "plain text": (lambda d: write_text(d / "rows.txt", 90), "completion", {}, "sure"),
    "Markdown": (lambda d: write_text(d / "rows.md", 90), "completion", {}, "sure"),
    "Parquet": (
        lambda d: write_parquet(d / "rows.parquet", made(90, files.review)),
        "classification",
        {"text": "review", "label": "stars"},
        "sure",
    ),
    "tags": (
        lambda d: write_jsonl(d / "rows.jsonl", made(90, files.tagged)),
        "token_classification",
        {"tags": "ner_tags"},
        "sure",
    ),
    "scores of pairs": (
        lambda d: write_table(d / "rows.csv", made(90, files.scored)),
        "regression",
        {"text": "sentence1", "text_pair": "sentence2"},
        "likely",
    ),
    "lists of labels": (
        lambda d: write_jsonl(d / "rows.jsonl", made(90, files.genres)),
        "multilabel",
        {"text": "plot", "labels": "genres"},
        "likely",
    ),
    "columns of 0 and 1": (
        lambda d: write_table(d / "rows.csv", made(90, files.flagged)),
        "multilabel",
        {"text": "comment", "labels": ("rude", "spam", "toxic")},
        "likely",
    ),
}


@pytest.mark.parametrize("kind", UNLIKE)
def test_the_task_and_the_columns_are_found(tmp_path: Path, kind: str) -> None:
    write, task, columns, sureness = UNLIKE[kind]
    proposal = propose([write(tmp_path)])
    assert (proposal.task, dict(proposal.columns), proposal.sureness) == (task, columns, sureness)
    assert proposal.rows == 90 and proposal.complete
    assert proposal.reasons
    assert proposal.settings.test_units >= 30
    json.dumps(proposal.to_json())


def tokens_in_csv(draw: random.Random, number: int) -> dict[str, Any]:
    row = files.tagged(draw, number)
    return {name: str(value) for name, value in row.items()}


NOT_TRAINABLE: dict[str, tuple[str, Callable[[random.Random, int], dict[str, Any]], tuple[str, ...]]] = {
    "chosen and rejected": (
        "preference",
        lambda draw, n: {"prompt": f"{sentence(draw)} {n}", "chosen": sentence(draw), "rejected": sentence(draw)},
        ("prompt: 'prompt'", "chosen: 'chosen'", "rejected: 'rejected'"),
    ),
    "wanted and unwanted answers": (
        "preference",
        lambda draw, n: {"prompt": f"{sentence(draw)} {n}", "completion": sentence(draw), "label": n % 2 == 0},
        ("label: 'label'",),
    ),
}


@pytest.mark.parametrize("form", NOT_TRAINABLE)
def test_a_task_that_cannot_be_trained_yet_is_named_with_its_columns_and_what_can_be_done(
    tmp_path: Path, form: str
) -> None:
    kind, row, columns = NOT_TRAINABLE[form]
    with pytest.raises(RecipeError) as refusal:
        proposed(tmp_path, made(60, row))
    assert f"task: {kind}" in refusal.value.what and "cannot train yet" in refusal.value.what
    assert all(column in refusal.value.what for column in columns)
    assert refusal.value.cure == f"today: {NOT_YET[kind]}"
    assert refusal.value.where == str(tmp_path / "rows.jsonl")


@pytest.mark.parametrize("form", NOT_TRAINABLE)
def test_a_kind_that_can_be_trained_one_day_is_one_row_less(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its row the refusal is no longer ours: the rows go to the formats, which do not know the kind."""
    kind, row, _ = NOT_TRAINABLE[form]
    monkeypatch.setattr(module, "NOT_YET", {name: cure for name, cure in NOT_YET.items() if name != kind})
    monkeypatch.setattr(formats, "FORMATS", {name: forms for name, forms in formats.FORMATS.items() if name != kind})
    with pytest.raises(KeyError, match=kind):
        proposed(tmp_path, made(60, row))


def test_translations_are_learnt_as_chat_and_it_is_said(tmp_path: Path) -> None:
    proposal = propose([write_table(tmp_path / "rows.csv", made(90, files.translated))])
    assert any("seq2seq" in reason and "chat stands in" in reason for reason in proposal.reasons)
    assert any("English to German is the way that is meant" in line for line in proposal.unknown)
    assert any("data.instruction" in line for line in proposal.unknown)


def test_with_an_encoder_decoder_translations_are_learnt_as_they_are(tmp_path: Path) -> None:
    rows = write_table(tmp_path / "rows.csv", made(90, files.translated))
    folder = encoder_decoder_folder(tmp_path / "model")
    for model in ("google-t5/t5-small", "facebook/mbart-large-50", str(folder)):
        proposal = propose([rows], model)
        assert (proposal.task, proposal.model) == ("seq2seq", model)
        assert set(proposal.columns) == {"source", "target"}
        assert load(yaml.safe_load(proposal.to_yaml(tmp_path))).task.kind == "seq2seq"
    for model in ("gpt2", "HuggingFaceTB/SmolLM2-135M-Instruct", str(causal_folder(tmp_path / "other"))):
        assert propose([rows], model).task == "chat"


# ---- files that are broken -------------------------------------------------------------------------------------------


def test_all_broken_lines_are_counted_and_the_first_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those behind the rows that are looked at, once one of these is broken."""
    monkeypatch.setattr(module, "LOOK", 20)
    lines = [json.dumps(row) for row in made(200, files.chat)]
    broken = [3, 7, *range(100, 150)]
    for number in broken:
        lines[number] = lines[number][:-4]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError) as refusal:
        propose([str(tmp_path / "rows.jsonl")])
    assert refusal.value.what.startswith("52 rows cannot be read")
    assert f"{tmp_path / 'rows.jsonl'}:4: not JSON" in refusal.value.what
    assert f"{tmp_path / 'rows.jsonl'}:8: not JSON" in refusal.value.what
    assert refusal.value.what.count("rows.jsonl:") == 20 and "and 32 more" in refusal.value.what


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.txt"])
def test_a_file_of_two_encodings_ends_in_one_message_with_the_first_byte_and_the_cure(
    tmp_path: Path, name: str
) -> None:
    rows = made(40, files.review)
    rows[4]["review"] = rows[9]["review"] = "très déçu, à éviter"
    path = tmp_path / name
    if path.suffix == ".txt":
        path.write_bytes("\n".join(row["review"] for row in rows).encode("latin-1"))
    else:
        write_table(path, rows, "latin-1")
    path.write_bytes(path.read_bytes() + "\nvoilà".encode())
    line = 5 if path.suffix == ".txt" else 6
    with pytest.raises(DataError) as refusal:
        propose([str(path)])
    assert refusal.value.where == f"{path}:{line}"
    assert "not UTF-8 text: the byte 0xE8" in refusal.value.what and "2 lines" in refusal.value.what
    assert "write these lines again" in str(refusal.value.cure)


def test_rows_that_training_would_refuse_are_named_with_what_they_would_have_been(tmp_path: Path) -> None:
    rows = made(90, files.ticket)
    rows[3]["label"], rows[70]["label"] = None, ""
    with pytest.raises(DataError) as refusal:
        proposed(tmp_path, rows)
    what = refusal.value.what
    assert "2 rows cannot be used for task: classification with columns {text: 'text', label: 'label'}" in what
    assert "rows.jsonl:4: 'label' must be a name" in what and "rows.jsonl:71" in what
    assert "data.allow: [malformed]" in str(refusal.value.cure)


@pytest.mark.parametrize(
    ("name", "content"),
    [("rows.csv", "text,label\n"), ("rows.json", "[]"), ("rows.jsonl", "\n\n"), ("rows.txt", " \n")],
)
def test_a_file_without_rows_is_refused(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="no rows"):
        propose([str(tmp_path / name)])


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such data file"):
        propose([str(tmp_path / "rows.csv")])


# ---- how many rows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
def test_rows_that_cannot_be_split_are_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(DataError, match="cannot be split|too few to be split"):
        proposed(tmp_path, made(count, files.chat))


@pytest.mark.parametrize("count", [12, 40, 60])
def test_too_few_rows_for_a_verdict_are_told_before_training(tmp_path: Path, count: int) -> None:
    proposal = proposed(tmp_path, made(count, files.chat))
    told = any("too few for a verdict" in line for line in proposal.unknown)
    assert told == (proposal.settings.test_units < 30)
    assert told or count == 60


def test_many_rows_keep_the_defaults(tmp_path: Path) -> None:
    settings = proposed(tmp_path, made(1200, files.chat)).settings
    assert (settings.validation, settings.test, settings.num_train_epochs, settings.batch_size) == (0.1, 0.1, 3, 16)


def test_only_some_rows_are_looked_at_and_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK", 400)
    proposal = proposed(tmp_path, made(500, files.ticket))
    assert proposal.rows == 400 and not proposal.complete
    assert any("all but the 400 rows looked at" in line for line in proposal.unknown)
    assert "from 400 of the rows" in proposal.to_yaml(tmp_path)


def test_a_file_that_is_sorted_by_its_label_is_looked_at_throughout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is every second row the same as the first: the labels of these take turns before they are sorted."""
    monkeypatch.setattr(module, "LOOK", 100)
    rows = made(800, files.ticket)
    assert proposed(tmp_path, rows).task == "classification"
    rows.sort(key=lambda row: str(row["label"]))
    assert proposed(tmp_path, rows) == proposed(tmp_path, rows)
    assert proposed(tmp_path, rows).task == "classification"
    monkeypatch.setattr(module, "READ", 300)
    alone = proposed(tmp_path, rows)
    assert (alone.task, alone.sureness) == ("completion", "a guess")
    assert any("not used: 'label'" in line for line in alone.unknown)


def test_what_is_known_of_other_rooms_here_is_so() -> None:
    assert settings.UNITS == verdict.MINIMUM_UNITS
    assert Recipe.model_fields["seed"].default == settings.SEED
    assert {module.GENERATES, module.READS} == set(CARRIED)


def test_several_files_are_looked_at_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of files sorted by their label, the first alone would show one label."""
    monkeypatch.setattr(module, "LOOK", 100)
    halves = [[row for row in made(300, files.ticket) if row["label"] == label] for label in ("bug", "wish")]
    given = [write_jsonl(tmp_path / f"{name}.jsonl", rows) for name, rows in zip(("bug", "test"), halves, strict=True)]
    proposal = propose(given)
    assert proposal.task == "classification" and proposal.rows == 100
    assert any("'test.jsonl' is meant to be set aside" in line for line in proposal.unknown)
    (tmp_path / "recipe.yaml").write_text(proposal.to_yaml(tmp_path), encoding="utf-8")
    assert paths(load(tmp_path / "recipe.yaml").data.train) == tuple(given)


def test_a_column_about_people_is_offered_for_fairness(tmp_path: Path) -> None:
    told = [line for line in proposed(tmp_path, made(90, about_people)).unknown if "sensitive_feature" in line]
    assert len(told) == 1 and "'gender'" in told[0]
    assert not any("sensitive_feature" in line for line in proposed(tmp_path, made(90, files.ticket)).unknown)


def about_people(draw: random.Random, number: int) -> dict[str, Any]:
    return files.ticket(draw, number) | {"gender": draw.choice(["f", "m", "x"])}


def test_tags_that_are_numbers_are_refused_with_the_cure(tmp_path: Path) -> None:
    numbered = made(60, lambda draw, n: {"tokens": sentence(draw, 4).split(), "ner_tags": [n % 3, 0, 1, 2]})
    with pytest.raises(RecipeError, match="'ner_tags' holds numbers") as refusal:
        proposed(tmp_path, numbered)
    assert "B-PER" in str(refusal.value.cure)
