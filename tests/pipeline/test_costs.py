"""What the receipt says of a whole run's cost and of its examples in the prompt is what was measured and used."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_tokenizers import tokenizer
from transformers import AutoModelForCausalLM

import pegbox
from pegbox import pipeline, runtime
from tiny_folder import causal_folder, chat_recipe, sums, write_rows


def test_the_energy_of_training_and_the_examples_that_were_used_stand_in_the_receipt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = iter([1_000_000, 43_000_000])
    counter = runtime.EnergyCounter("package-0", lambda: next(readings), 1e6)
    monkeypatch.setattr(runtime, "_cpu_counters", lambda powercap: [counter])
    rows = write_rows(tmp_path / "rows.jsonl", sums(60))
    recipe = chat_recipe(causal_folder(tmp_path / "model"), rows, train={"max_steps": 1, "batch_size": 8})
    run = pegbox.train(recipe, run_dir=tmp_path / "run")
    assert run.receipt["energy"] == {
        "joules": pytest.approx(42.0),
        "source": "the processor's own counters (RAPL: package-0)",
    }
    assert run.receipt["resumed_at"] == 0 and run.receipt["shots"] == 2
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "42 J" in page and "untouched model with 2 examples" in page


def test_examples_that_do_not_fit_are_not_counted(tmp_path: Path) -> None:
    folder = causal_folder(tmp_path / "model")
    rows = write_rows(tmp_path / "rows.jsonl", sums(60))
    made = tokenizer("byte_level", "default_system")
    asked = max(
        len(
            made.apply_chat_template([{"role": "user", "content": row["prompt"]}], add_generation_prompt=True)[
                "input_ids"
            ]
        )
        for row in sums(60)
    )
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.config.max_position_embeddings = asked + 6 + 70
    model.save_pretrained(folder)
    recipe = chat_recipe(folder, rows, train={"max_steps": 1, "batch_size": 8})
    recipe["evaluate"] |= {"few_shot": 20}
    run = pegbox.train(recipe, run_dir=tmp_path / "run")
    assert 0 < run.receipt["shots"] < 20
    assert f"untouched model with {run.receipt['shots']} example" in (run.path / "report.html").read_text(
        encoding="utf-8"
    )


def test_what_a_resumed_run_measured_is_said_to_begin_where_it_was_resumed(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", sums(60))
    train = {"max_steps": 3, "save_steps": 1, "batch_size": 8}
    run = pegbox.train(chat_recipe(causal_folder(tmp_path / "model"), rows, train=train), run_dir=tmp_path / "run")
    shutil.rmtree(run.folder.checkpoints / "step-3")
    again = pipeline.resume(run.path)
    assert again.receipt["resumed_at"] == 2
    assert "from update 2 on, where the run was resumed" in (run.path / "report.html").read_text(encoding="utf-8")
