"""Whatever learns: a run that goes on from a checkpoint ends in the same bytes as one that was never stopped."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import pegbox
from pegbox import pipeline
from tiny_folder import chat_home, chat_recipe

pytestmark = [pytest.mark.filterwarnings("ignore:::peft"), pytest.mark.filterwarnings("ignore:::torch")]
WAYS: dict[str, dict[str, Any]] = {
    "freeze": {"method": {"kind": "freeze", "top_layers": 1}},
    "dora": {"method": {"kind": "lora", "r": 4, "use_dora": True, "lora_dropout": 0.1}},
    "pissa": {"method": {"kind": "lora", "r": 4, "init_lora_weights": "pissa", "loraplus_lr_ratio": 4.0}},
    "pissa by rounds": {"method": {"kind": "lora", "r": 4, "init_lora_weights": "pissa_niter_2"}},
    "adapter": {"method": {"kind": "adapter", "bottleneck_size": 4}},
    "ia3": {"method": {"kind": "peft", "peft_type": "IA3"}},
    "prompt": {"method": {"kind": "peft", "peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3}},
    "new tokens": {"method": {"kind": "lora", "r": 4}, "add_tokens": ["<a>", "<b>"]},
    "nf4": {"method": {"kind": "lora", "r": 4}, "quantization": "nf4"},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_home(tmp_path_factory.mktemp("home"))


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_was_stopped_ends_in_the_same_bytes(way: str, home: Path, tmp_path: Path) -> None:
    asked = dict(WAYS[way])
    recipe = chat_recipe(home / "model", home / "rows.jsonl", method=asked.pop("method"))
    recipe |= {"model": {"name": str(home / "model"), **asked}}
    recipe["train"] = {"max_steps": 5, "batch_size": 8, "learning_rate": 1e-2, "save_steps": 3, "report_to": []}
    recipe["evaluate"] = {"max_new_tokens": 2, "few_shot": 0, "max_rows": 4}
    whole = pegbox.train(recipe, run_dir=tmp_path / "whole")
    stopped = tmp_path / "stopped"
    shutil.copytree(whole.path, stopped)
    for path in (stopped / "model", stopped / "checkpoints" / "step-5"):
        shutil.rmtree(path)
    again = pipeline.resume(stopped)
    assert again.receipt["resumed_at"] in (3, 4)
    assert again.receipt["model_files"] == whole.receipt["model_files"]
    assert (stopped / "metrics.jsonl").read_bytes() == (whole.path / "metrics.jsonl").read_bytes()
