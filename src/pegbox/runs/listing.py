"""The runs under a folder, newest last, each with its verdict; read from their files alone, without torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pegbox.errors import RecipeError
from pegbox.recipe import load
from pegbox.runs.folder import RunFolder


def list_runs(folder: Path) -> list[dict[str, Any]]:
    """One object a run, by the time it began. Raises RecipeError where the folder does not exist.

    Keys: `run`, `began`, `model`, `task`, `method`, `updates`, `planned`, `primary`, `value`, `low`, `high`, `verdict`.
    A run without an evaluation has None for the last five; one that cannot be read has its `problem` instead.
    """
    if not folder.is_dir():
        cure = "name the folder that holds runs: pegbox runs FOLDER"
        raise RecipeError("no such folder", where=str(folder), cure=cure)
    found = [_described(path) for path in _run_folders(folder)]
    return sorted(found, key=lambda run: (run.get("began", ""), run["run"]))


def _run_folders(folder: Path) -> Iterator[Path]:
    """Every folder with a recipe and a receipt; what lies inside a run is not looked at."""
    for path, inside, files in os.walk(folder):
        if {"recipe.yaml", "receipt.json"} <= set(files):
            inside.clear()
            yield Path(path)


def _described(path: Path) -> dict[str, Any]:
    try:
        return {"run": str(path)} | _told(RunFolder(path))
    except (RecipeError, json.JSONDecodeError, KeyError, TypeError) as error:
        return {"run": str(path), "problem": f"cannot be read: {str(error).splitlines()[0]}"}


def _told(folder: RunFolder) -> dict[str, Any]:
    receipt, recipe = folder.read_json("receipt.json"), load(folder.path / "recipe.yaml")
    told = {
        "began": receipt["began"],
        "model": recipe.model.name,
        "task": recipe.task.kind,
        "method": recipe.method.kind,
        "updates": max((line["step"] for line in folder.read_lines("metrics.jsonl")), default=0),
        "planned": receipt["plan"]["updates"],
        "primary": recipe.evaluate.primary,
    }
    if not (folder.path / "evaluation.json").is_file():
        return told | dict.fromkeys(("value", "low", "high", "verdict"))
    evaluation = folder.read_json("evaluation.json")
    tuned = evaluation["systems"]["tuned"][evaluation["primary"]]
    found = {key: tuned[key] for key in ("value", "low", "high")}
    return told | found | {"primary": evaluation["primary"], "verdict": evaluation["verdict"]}
