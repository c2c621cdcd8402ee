"""What is trained: each workload is one model, one set of rows and one method, the same for everybody who is measured.

    short         conversations of 180 tokens on average, ragged, behind a system prompt of 24 tokens that all share
    long          plain text in rows of 1,024 tokens exactly, which have nothing in common
    minilm full   tweets with three labels, every weight of an encoder learns
    minilm lora   the same with LoRA
    parity        a tiny random Llama and 100 updates: what everybody ends up with, not how fast

`for_gpus` adds the shapes of Llama 3.2 1B and Llama 3.1 8B with random weights, in rows of 4,096 tokens. AdamW, its rate
(constant), weight decay and clipping are the same everywhere; `updates` are measured after one that is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

MODEL, ENCODER = "HuggingFaceTB/SmolLM2-135M-Instruct", "sentence-transformers/all-MiniLM-L6-v2"
WARM_UP = 1
HELD_OUT = 8  # rows of validation that the loss afterwards is taken of
WEIGHT_DECAY, MAX_GRAD_NORM = 0.01, 1.0

LORA: Mapping[str, Any] = MappingProxyType({"kind": "lora", "r": 16, "lora_alpha": 32})
OURS = ("pegbox", "pegbox, no kernels")
WRITERS = (*OURS, "Trainer + PEFT", "Trainer + PEFT, sorted", "TRL", "TRL, packed")
READERS = ("pegbox", "Trainer", "Trainer, sorted")


@dataclass(frozen=True)
class Shape:
    """What a Llama with random weights is like; `tied`: its head is its embeddings."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    tied: bool
    dtype: torch.dtype = torch.bfloat16
    spread: float = 0.02  # the standard deviation of its matrices


ONE_BILLION = Shape(2048, 8192, 16, 32, 8, 128_256, tied=True)
EIGHT_BILLION = Shape(4096, 14_336, 32, 32, 8, 128_256, tied=False)
# large matrices: with 0.02 so small a model is close to linear, and a wrong mask would hardly show
TINY = Shape(64, 128, 2, 4, 2, 1024, tied=True, dtype=torch.float32, spread=0.1)


@dataclass(frozen=True)
class Workload:
    """One row of the table above.

    `model`: a name, or the shape of a random one; `rows`: a function of `rows`; `batch_size`: rows of an update; `at_once`:
    rows that padded peers compute at once; `packs`: packs that TRL makes of an update; `data`: more of the recipe's `data`;
    `repetitions`: how often everybody is measured. What other `at_once` and `packs` would give the peers was not tried.
    """

    name: str
    about: str
    model: str | Shape
    task: str
    rows: str
    method: Mapping[str, Any]
    peers: tuple[str, ...]
    batch_size: int
    at_once: int
    updates: int
    packs: int = 1
    learning_rate: float = 2e-4
    data: Mapping[str, Any] = field(default_factory=dict)
    repetitions: int = 2
    warm_up: int = WARM_UP

    @property
    def steps(self) -> int:
        """Updates in all."""
        return self.warm_up + self.updates

    def recipe(self, folder: Path, seed: int) -> dict[str, Any]:
        """pegbox's recipe, for the rows and the random model (where it is one) in the folder."""
        model = self.model if isinstance(self.model, str) else str(folder / "model")
        return {
            "model": model,
            "task": self.task,
            "data": {"train": str(folder / "rows.jsonl"), "validation": 0.1, "test": 0.1, **self.data},
            "method": dict(self.method),
            "train": {
                "max_steps": self.steps,
                "batch_size": self.batch_size,
                "learning_rate": self.learning_rate,
                "lr_scheduler_type": "constant",
                "warmup_ratio": 0.0,
                "weight_decay": WEIGHT_DECAY,
                "max_grad_norm": MAX_GRAD_NORM,
                "eval_steps": self.steps,
                "report_to": "none",
            },
            "seed": seed,
        }


SHORT = Workload(
    name="short",
    about="SmolLM2-135M-Instruct, LoRA: conversations of one to four questions to a builder and their answers",
    model=MODEL,
    task="chat",
    rows="conversations",
    method=LORA,
    peers=WRITERS,
    batch_size=16,
    at_once=8,
    updates=2,
    packs=4,
)
LONG = replace(
    SHORT,
    name="long",
    about="SmolLM2-135M-Instruct, LoRA: Python's standard library in rows of 1,024 tokens, every token learnt",
    task="completion",
    rows="uniform",
    data={"max_length": 1024},
    peers=("pegbox", "Trainer + PEFT", "TRL, packed"),
    batch_size=4,
    at_once=1,
    updates=2,
)
MINILM_FULL = replace(
    SHORT,
    name="minilm full",
    about="all-MiniLM-L6-v2, all weights: a tweet and one of three labels",
    model=ENCODER,
    task="classification",
    rows="tweets",
    method={"kind": "full"},
    peers=READERS,
    batch_size=32,
    at_once=32,
    updates=20,
    repetitions=3,
)
MINILM_LORA = replace(MINILM_FULL, name="minilm lora", about="all-MiniLM-L6-v2, LoRA: the same", method=LORA)
PARITY = replace(
    SHORT,
    name="parity",
    about="a random Llama of two layers, LoRA: functions and the first line of their docstrings, behind a line that all share",
    model=TINY,
    task="completion",
    rows="docstrings",
    batch_size=8,
    at_once=4,
    updates=99,
    packs=2,
    learning_rate=5e-3,
    repetitions=3,
)
WORKLOADS: Mapping[str, Workload] = {one.name: one for one in (SHORT, LONG, MINILM_FULL, MINILM_LORA, PARITY)}

FASTER = ("Trainer + PEFT, compiled", "Trainer + PEFT, Liger", "TRL, packed, Liger", "Unsloth")
GIANT = replace(
    LONG,
    name="1B",
    about="a random Llama of the shape of Llama 3.2 1B, LoRA, bfloat16: rows of 4,096 tokens, every token learnt",
    model=ONE_BILLION,
    data={"max_length": 4096},
    peers=("pegbox", "Trainer + PEFT", "TRL", "TRL, packed", *FASTER),
    updates=5,
)


def for_gpus() -> dict[str, Workload]:
    """What is measured on a GPU beside the rest."""
    eight = replace(
        GIANT,
        name="8B",
        about=GIANT.about.replace("Llama 3.2 1B", "Llama 3.1 8B"),
        model=EIGHT_BILLION,
        batch_size=2,
        packs=2,
    )
    found = {name: replace(one, peers=(*one.peers, *FASTER)) for name, one in (("short", SHORT), ("long", LONG))}
    return {**found, "1B": GIANT, "8B": eight}


def small(one: Workload) -> Workload:
    """The same for a trial of minutes: few rows and updates."""
    return replace(
        one,
        batch_size=min(one.batch_size, 4),
        at_once=min(one.at_once, 2),
        packs=min(one.packs, 2),
        updates=min(one.updates, 2),
    )
