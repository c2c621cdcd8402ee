"""`python one_run.py FOLDER`: one run of the study, in a process of its own, so that its peak memory is its own.

Trains by the recipe in FOLDER/asked.json, and leaves there `predictions.jsonl` and, when all is done, `figures.json`. The
run folder itself, with its model and checkpoints, is deleted.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch

import pegbox
from pegbox import runtime
from pegbox.finished import Run
from pegbox.pipeline import train
from pegbox.runs.folder import RunFolder


def figures(run: Run) -> dict[str, Any]:
    """What the table needs of a run."""
    receipt, primary = run.receipt, run.evaluation["primary"]
    return {
        "score": run.evaluation["systems"]["tuned"][primary]["value"],
        "trainable": receipt["plan"]["trainable_parameters"],
        "parameters": receipt["plan"]["parameters"],
        "updates": receipt["plan"]["updates"],
        "chosen_step": receipt["chosen_step"],
        "seconds": receipt["seconds"]["training"],
        "peak_memory": receipt["peak_memory"]["measured"],
        "file_bytes": sum(file.stat().st_size for file in run.folder.model.glob("*.safetensors")),
        "ended": receipt["ended"],
        "versions": receipt["versions"],
        "hardware": receipt["hardware"],
    }


def main(folder: RunFolder) -> None:
    before = runtime.peak_memory(torch.device("cpu"))
    asked = folder.read_json("asked.json")
    shutil.rmtree(folder.path / "run", ignore_errors=True)  # of an attempt that came to nothing
    run = train(asked, run_dir=folder.path / "run")
    folder.write_lines("predictions.jsonl", run.folder.read_lines("predictions.jsonl"))
    found = {"recipe": asked, "pegbox": pegbox.__version__, **figures(run), "memory_before": before}
    shutil.rmtree(run.path)
    folder.write_json("figures.json", found)


if __name__ == "__main__":
    main(RunFolder(Path(sys.argv[1])))
