"""Every task can be planned by trying it, with recomputed layers and without, and what training then takes is what was said."""

from __future__ import annotations

from pathlib import Path

import pytest

import pegbox
from tiny_folder import causal_folder, chat_recipe, sums, write_rows
from tiny_tasks import FORMS, MODELS, by_heart

KINDS = {form: "bert" for form in FORMS} | {"seq2seq": "t5 that writes", "masked_lm": "masked bert"}
KINDS |= {form: "llama" for form in ("chat", "completion", "plain text", "regression", "pairs")}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: MODELS[kind](tmp_path_factory.mktemp("model")) for kind in set(KINDS.values())}


@pytest.mark.parametrize("form", FORMS)
def test_every_task_can_be_tried(form: str, models: dict[str, Path], tmp_path: Path) -> None:
    for again in (False, True):
        recipe = by_heart(form, models[KINDS[form]], "full", tmp_path, max_steps=3, gradient_checkpointing=again)
        plan = pegbox.check(recipe)["plan"]
        assert plan["gradient_checkpointing"] == again
        assert plan["peaks"].keys() == {"loading", "training", "evaluation", "loading again"}
        assert plan["memory"] == max(plan["peaks"].values()) < plan["available_memory"]
        assert 0 < plan["seconds"] < 60 and 0 < plan["probe_seconds"] < 60
        assert ("recomputed" in plan["summary"]) == again


def test_prediction_and_measurement_stand_beside_each_other(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", sums(40))
    recipe = chat_recipe(causal_folder(tmp_path / "model"), rows, train={"max_steps": 3, "batch_size": 8})
    run = pegbox.train(recipe, run_dir=tmp_path / "run")
    told = run.receipt["peak_memory"]
    assert told["predicted"] == run.receipt["plan"]["memory"]
    assert told["measured"] >= run.receipt["plan"]["peaks"]["loading"] > 0  # a process has but one peak
    assert "(predicted: " in (run.path / "report.html").read_text(encoding="utf-8")
