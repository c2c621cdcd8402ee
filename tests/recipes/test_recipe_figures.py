"""The table of what the shipped recipes come to: from the runs, between its two marks, and nothing else of the page."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml

from pegbox import samples
from pegbox.samples import SAMPLES
from source_tree import REPOSITORY
from tiny_folder import encoder_folder

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import recipes

NAME = "support-answers"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one recipe of a tiny model, a page, and the results of a recipe that is not run."""
    made = [{"text": f"question {n}", "text_pair": f"answer {n}"} for n in range(90)]
    planted = samples.Sample(**{**vars(SAMPLES[NAME]), "rows": lambda: made})
    monkeypatch.setenv("PEGBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(samples, "SAMPLES", MappingProxyType({NAME: planted}))
    recipe = {
        "model": str(encoder_folder(tmp_path / "model")),
        "task": "embedding",
        "data": {"train": {"kind": "sample", "name": NAME}, "test": 0.4},
        "method": "full",
        "train": {"max_steps": 2, "report_to": "none"},
    }
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "support.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    page = f"# Words before\n\n{recipes.BEGIN}\n\nold\n\n{recipes.END}\n\nWords behind.\n"
    (tmp_path / "page.md").write_text(page, encoding="utf-8")
    monkeypatch.setattr(recipes, "RECIPES", tmp_path / "recipes")
    monkeypatch.setattr(recipes, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(recipes, "RESULTS", tmp_path / "recipes.json")
    return tmp_path


def result(**changes: Any) -> dict[str, Any]:
    return {
        "date": "2026-11-30",
        "machine": "2 CPU cores",
        "seconds": 90,
        "task": "embedding",
        "sample": NAME,
        "splits": {"train": 1234, "validation": 5, "test": 678},
        "primary": "ndcg",
        "systems": {"tuned": {"ndcg": {"value": 0.5, "low": 0.4, "high": 0.6}}},
        "comparison": {"against": "bm25", "difference": 0.1, "low": 0.05, "high": 0.15},
        "verdict": "better",
        **changes,
    }


def test_a_recipe_that_is_run_is_told_and_the_others_stay(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (world / "recipes.json").write_text(json.dumps({"earlier": result()}), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["recipes.py", "support"])
    recipes.main()
    found = json.loads((world / "recipes.json").read_text(encoding="utf-8"))
    assert list(found) == ["earlier", "support"] and found["earlier"] == result()
    told = found["support"]
    assert sum(told["splits"].values()) == 90 and {"tuned", "base", "bm25"} <= set(told["systems"])
    page = (world / "page.md").read_text(encoding="utf-8")
    assert page.startswith("# Words before\n") and page.endswith("\nWords behind.\n") and "\nold\n" not in page
    score, least = told["systems"]["tuned"]["ndcg"], told["comparison"]
    assert f"| `support` | {SAMPLES[NAME].about} (`embedding`) |" in page
    assert f"| ndcg {score['value']:.3f} ({score['low']:.3f} .. {score['high']:.3f}) |" in page
    assert f"| {least['against']}: {least['difference']:.3f} ({least['low']:.3f} .. {least['high']:.3f}) |" in page
    assert f"| **{told['verdict']}** |" in page


def test_a_row_of_the_table_is_the_result() -> None:
    lines = recipes.table({"b": result(verdict="worse"), "a": result(date="2026-12-01", seconds=30)}).split("\n")
    about = f"{SAMPLES[NAME].about} (`embedding`)"
    figures = "1,234, 678 | ndcg 0.500 (0.400 .. 0.600) | bm25: 0.100 (0.050 .. 0.150)"
    assert lines[2:4] == [
        f"| `a` | {about} | {figures} | **better** | 0.5 |",
        f"| `b` | {about} | {figures} | **worse** | 1.5 |",
    ]
    assert lines[5:] == ["2026-11-30, 2 CPU cores.", "2026-12-01, 2 CPU cores."]


def test_a_recipe_that_is_not_there_is_refused(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["recipes.py", "suport"])
    with pytest.raises(SystemExit):
        recipes.main()
    assert "no such recipe: suport" in capsys.readouterr().err
    assert not (world / "recipes.json").exists()


def test_the_page_in_the_docs_shows_what_was_measured() -> None:
    """The committed page is what the committed results make; every result is of a recipe that ships."""
    page = recipes.PAGE.read_text(encoding="utf-8")
    shown = page.partition(recipes.BEGIN)[2].partition(recipes.END)[0].strip()
    if not recipes.RESULTS.exists():
        assert shown == ""
        return
    results = json.loads(recipes.RESULTS.read_text(encoding="utf-8"))
    assert set(results) == set(recipes.names())
    assert shown == recipes.table(results)
