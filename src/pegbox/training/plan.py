"""The plan of memory and time: what `planning` finds out before training, and what the loop then keeps to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from transformers import PreTrainedModel

from pegbox.data.records import Example
from pegbox.recipe import Train
from pegbox.runtime import ALONE, Ranks
from pegbox.tasks import Task


@dataclass(frozen=True)
class Asking:
    """How the evaluation will ask a model.

    `rows`: how many at once at most; `ask` asks the model in training so many rows of train, the longest, for a word or two.
    `stretch`: what an answer of full length keeps, in times of what those few words do.
    """

    rows: int
    ask: Callable[[int], object]
    stretch: float = 1.0


@dataclass(frozen=True)
class Given:
    """What is planned. `validation`: its examples; `asking`: how the evaluation asks, where that is known."""

    model: PreTrainedModel
    task: Task
    train: Sequence[Example]
    validation: Sequence[Example]
    settings: Train
    seed: int
    packed: bool
    share_prefix: bool
    bf16: bool = False
    asking: Asking | None = None
    ranks: Ranks = ALONE


@dataclass(frozen=True)
class Plan:
    """What a run will do and take. Bytes and seconds are predictions; tokens are counted.

    `memory`: the most that the process will hold, from its start to the report; `peaks`: what that is the largest of.
    `seconds`: of training, with its validations and checkpoints. `probe_seconds`: what it took to find out.
    """

    updates: int
    micro_batch_tokens: int
    micro_batch_rows: int
    packed: bool
    share_prefix: bool
    prefix: int
    tokens: int
    trainable_parameters: int
    parameters: int
    memory: int
    available_memory: int
    seconds: float
    gradient_checkpointing: bool = False
    torch_compile: bool = False
    peaks: Mapping[str, int] = field(default_factory=dict)
    probe_seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The plan for the receipt and `check --json`."""
        return asdict(self)

    @property
    def shared(self) -> int:
        """How many tokens at the start of every row are stored once in a pack."""
        return self.prefix if self.packed and self.share_prefix else 0

    @property
    def summary(self) -> str:
        """The plan in one line."""
        share = 100 * self.trainable_parameters / self.parameters
        form = "packed" if self.packed else "padded"
        prefix = f", {self.prefix} shared prefix tokens computed once" if self.share_prefix and self.prefix else ""
        again = ", layers recomputed on the way back" if self.gradient_checkpointing else ""
        again += ", layers compiled" if self.torch_compile else ""
        return (
            f"{self.updates} updates; {self.trainable_parameters:,} of {self.parameters:,} parameters learn "
            f"({share:.2f} %); up to {self.micro_batch_tokens} tokens at once, {form}{prefix}{again}; about "
            f"{self.memory / 1e9:.1f} GB of {self.available_memory / 1e9:.1f} GB and {self.seconds:.0f} s "
            f"(tried in {self.probe_seconds:.1f} s)"
        )
