"""What the study compares: the methods, the recipe that all runs share, and the learning rates that are tried.

The recipe is that of `pegbox demo --task classification`, but for the method, the rate and the length. Every method is as
pegbox has it when nothing but its kind is asked for; prompts have 20 tokens.

Each method gets the learning rate that is best for it: its own default times 1, 4 or 16, for a run of some forty updates
is short. They are judged by one run each, of a seed that no other run has, on rows for the choice that no other run sees.
So no method is tuned more than another, and nothing is tuned on the test rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
METRIC = "f1_macro"
FULL, HEAD = "full", "head alone"

METHODS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        FULL: {"kind": "full"},
        HEAD: {"kind": "freeze"},
        "BitFit": {"kind": "freeze", "parts": ["biases"]},
        "LoRA": {"kind": "lora"},
        "DoRA": {"kind": "lora", "use_dora": True},
        "Houlsby adapters": {"kind": "adapter", "variant": "houlsby"},
        "Pfeiffer adapters": {"kind": "adapter", "variant": "pfeiffer"},
        "IA3": {"kind": "peft", "peft_type": "IA3"},
        "prompt tuning": {"kind": "peft", "peft_type": "PROMPT_TUNING", "num_virtual_tokens": 20},
    }
)

STEP, MOST_RATES = 4, 3
FIRST = (1.0, float(STEP), float(STEP**2))  # times the method's default


@dataclass(frozen=True)
class Size:
    """How many of the rows are used, for how many epochs, and which seeds; `trial`: that of the runs for the choice."""

    rows: int
    epochs: float
    seeds: tuple[int, ...]
    trial: int = 0
    most_rates: int = MOST_RATES


WHOLE, SMALL = Size(rows=1600, epochs=2, seeds=(1, 2, 3)), Size(rows=500, epochs=1, seeds=(1, 2), most_rates=3)


@dataclass(frozen=True)
class Asked:
    """One run. `judged`: whether it is scored on the rows for the choice of a rate, or on those of the test."""

    method: str
    rate: float
    seed: int
    judged: Literal["choice", "test"]

    @property
    def folder(self) -> str:
        """Its place in the work folder."""
        return f"{self.method.replace(' ', '-').lower()}/{self.judged}-{self.rate:g}-seed-{self.seed}"


def recipe(asked: Asked, rows: Path, size: Size) -> dict[str, Any]:
    """The recipe of one run on the files in `rows`."""
    return {
        "model": ENCODER,
        "task": "classification",
        "data": {
            "train": str(rows / "train.jsonl"),
            "validation": str(rows / "validation.jsonl"),
            "test": str(rows / f"{asked.judged}.jsonl"),
        },
        "method": dict(METHODS[asked.method]),
        "train": {
            "num_train_epochs": size.epochs,
            "learning_rate": asked.rate,
            "batch_size": 32,
            "eval_steps": 30,
            "report_to": "none",
        },
        "evaluate": {"primary": METRIC, "metrics": [METRIC], "max_rows": size.rows},
        "seed": asked.seed,
    }


def further(scores: Mapping[float, float], most: int) -> float | None:
    """The factor to be tried next: beyond the best where that stands at an end; None where it does not, or all are tried."""
    best = best_of(scores)
    if len(scores) >= most or min(scores) < best < max(scores):
        return None
    return best * STEP if best == max(scores) else best / STEP


def best_of(scores: Mapping[float, float]) -> float:
    """The factor with the highest score; of equals the smallest."""
    return max(sorted(scores), key=lambda factor: scores[factor])


def rate(default: float, factor: float) -> float:
    """A rate without the noise of a multiplication, so that a folder can be named by it."""
    return float(f"{default * factor:.3g}")


def chosen(names: Sequence[str]) -> list[str]:
    """The methods named, in the order of the table, and the two that the others are held against."""
    return [name for name in METHODS if name in names or name in (FULL, HEAD)]
