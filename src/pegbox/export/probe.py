"""What an export is asked and what was said: rows of tokens, logits at some places of each, and greedy answers.

A job is a folder with `job.json` (what to load, how, and the rows) into which the process that loads the export writes
`logits.safetensors` and `said.json`. So nothing but files passes between the model that was measured and its export.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pegbox.tasks.asked import Asked

PLACES = 16  # of a row's tokens: those whose logits are compared
JOB, LOGITS, SAID = "job.json", "logits.safetensors", "said.json"


@dataclass(frozen=True)
class Job:
    """How an export is loaded (`way`: a key of `reload.LOADED`, or onnx), and what it is asked.

    `base`: the untouched model of an adapter, held as `quantization` says; `head` as in `models.load.HEADS`, `labels` of a new head; `texts` for the
    tokenizer; answers of at most `max_new_tokens` tokens (0: none are asked for) end at one of `stop_ids`, and hold none of
    those that are `never` said.
    """

    way: str
    export: str
    base: str
    head: str
    labels: Sequence[str]
    rows: Sequence[Asked]
    texts: Sequence[str]
    max_new_tokens: int
    stop_ids: Sequence[int]
    quantization: str | None = None
    never: Sequence[int] = ()

    def write(self, folder: Path) -> None:
        """Put the job into its folder."""
        (folder / JOB).write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Job:
        """The job of a folder."""
        told: dict[str, Any] = json.loads((folder / JOB).read_text(encoding="utf-8"))
        return cls(**{**told, "rows": [Asked(**row) for row in told["rows"]]})


@dataclass(frozen=True)
class Said:
    """What a model says to the rows of a job: `logits[i]` float32 [places, V], or [1, K]; `answers[i]` token ids.

    `serving`: what it is served with: the template, the tokens that end an answer, how texts become tokens.
    """

    logits: Sequence[torch.Tensor]
    answers: Sequence[Sequence[int]] = ()
    serving: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Put it into the job's folder."""
        save_file({str(index): row.contiguous() for index, row in enumerate(self.logits)}, folder / LOGITS)
        told = {"answers": [list(answer) for answer in self.answers], "serving": self.serving}
        (folder / SAID).write_text(json.dumps(told), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Said:
        """What was said in the folder of a job."""
        logits = load_file(folder / LOGITS)
        told = json.loads((folder / SAID).read_text(encoding="utf-8"))
        return cls([logits[str(index)] for index in range(len(logits))], told["answers"], told["serving"])


def at_places(logits: torch.Tensor, row: Asked) -> torch.Tensor:
    """float32 [places, V] of a row's logits [T, V]; whole where they are of the row as a whole, [1, K]."""
    chosen = logits[list(row.places)] if row.places else logits
    return chosen.detach().to(torch.float32).cpu()
