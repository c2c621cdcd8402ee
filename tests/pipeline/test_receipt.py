"""The receipt of a whole run: the licence that the base model states, and the hashes of what the run wrote."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

import pegbox
from pegbox.finished import Run
from tiny_folder import causal_folder, chat_recipe, sums, write_rows


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    home = tmp_path_factory.mktemp("home")
    model = causal_folder(home / "model")
    (model / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# A model\n", encoding="utf-8")
    recipe = chat_recipe(model, write_rows(home / "rows.jsonl", sums(40)))
    return pegbox.train(recipe | {"train": {"max_steps": 2, "learning_rate": 1e-3}}, run_dir=home / "run")


def test_the_licence_of_the_base_model_goes_into_receipt_and_card(run: Run) -> None:
    assert run.receipt["model"]["licence"] == {"id": "cc-by-4.0", "source": "README.md of the model"}
    assert ModelCard.load(run.path / "README.md").data.license == "cc-by-4.0"


def test_the_base_models_card_may_be_mended(run: Run) -> None:
    """It says nothing to the model: a new one is no other model."""
    assert "README.md" not in run.receipt["model"]["files"] and "config.json" in run.receipt["model"]["files"]
    card = Path(run.recipe.model.name) / "README.md"
    card.write_text("# The same model\n", encoding="utf-8")
    assert Run(run.path).base_folder == card.parent


def test_the_receipt_holds_the_hashes_of_all_that_the_run_tells_but_what_is_made_from_it(run: Run) -> None:
    there = {path.name for path in run.path.iterdir() if path.is_file()}
    assert run.receipt["files"].keys() == there - {"receipt.json", "report.html", "README.md"}
    for name, digest in run.receipt["files"].items():
        assert digest == sha256((run.path / name).read_bytes()).hexdigest(), name
