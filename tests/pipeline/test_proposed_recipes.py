"""What `pegbox init` writes is trained unedited: one whole run for every form that can be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import init_rows as files
import pytest
from init_rows import made, write_jsonl, write_parquet, write_table, write_text

import pegbox
from pegbox.data.sources import read_all
from pegbox.proposal.propose import propose
from tiny_folder import causal_folder, encoder_folder

ROWS = 75


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    causal = causal_folder(tmp_path_factory.mktemp("causal"))
    encoder = encoder_folder(tmp_path_factory.mktemp("encoder"))
    return {"chat": causal, "completion": causal} | dict.fromkeys(
        ("classification", "multilabel", "regression", "token_classification", "embedding"), encoder
    )


TRAINABLE: dict[str, tuple[str, Callable[[Path], str]]] = {
    "chat": ("chat", lambda d: write_jsonl(d / "rows.jsonl", made(ROWS, files.chat))),
    "ShareGPT": ("chat", lambda d: write_jsonl(d / "rows.jsonl", made(ROWS, files.share_gpt))),
    "Alpaca": ("chat", lambda d: write_jsonl(d / "rows.jsonl", made(ROWS, files.alpaca))),
    "a CSV of reviews": ("classification", lambda d: write_table(d / "my rows: 1.csv", made(ROWS, files.review))),
    "a TSV with ids": ("classification", lambda d: write_table(d / "rows.tsv", made(ROWS, files.ticket))),
    "pairs with a label": ("classification", lambda d: write_jsonl(d / "rows.jsonl", made(ROWS, files.entailed))),
    "translations": ("chat", lambda d: write_table(d / "rows.csv", made(ROWS, files.translated))),
    "plain text": ("completion", lambda d: write_text(d / "rows.txt", ROWS)),
    "Parquet": ("chat", lambda d: write_parquet(d / "rows.parquet", made(ROWS, files.answered))),
    "tags": ("token_classification", lambda d: write_jsonl(d / "rows.jsonl", made(ROWS, files.tagged))),
    "scores of pairs": ("regression", lambda d: write_table(d / "rows.csv", made(ROWS, files.scored))),
    "lists of labels": ("multilabel", lambda d: write_jsonl(d / "rows.jsonl", made(ROWS, files.genres))),
    "columns of 0 and 1": ("multilabel", lambda d: write_table(d / "rows.csv", made(ROWS, files.flagged))),
    "texts that match": ("embedding", lambda d: write_jsonl(d / "rows.jsonl", made(ROWS, files.contrasted))),
    "a dozen rows": ("chat", lambda d: write_jsonl(d / "rows.jsonl", made(12, files.answered))),
    "a dozen labels": ("classification", lambda d: write_jsonl(d / "rows.jsonl", made(12, files.ticket))),
}


@pytest.mark.parametrize("form", TRAINABLE)
def test_a_proposed_recipe_is_trained_unedited(tmp_path: Path, models: dict[str, Path], form: str) -> None:
    task, write = TRAINABLE[form]
    data = write(tmp_path)
    proposal = propose([data], str(models[task]))
    assert proposal.task == task
    (tmp_path / "recipe.yaml").write_text(proposal.to_yaml(tmp_path), encoding="utf-8")
    run = pegbox.train(tmp_path / "recipe.yaml", run_dir=tmp_path / "run")
    assert sum(run.receipt["rows"].values()) == proposal.rows
    assert run.evaluation["units"] == proposal.settings.test_units
    if proposal.settings.test_units < 30:
        assert run.verdict == "not shown" and any("too few for a verdict" in line for line in proposal.unknown)
    asked = {
        name: value
        for name, value in read_all([data])[0].values.items()
        if name not in ("output", "answer", "label", "ner_tags", "score", "genres", "toxic", "rude", "spam")
    }
    assert len(run.predict([asked])) == 1
