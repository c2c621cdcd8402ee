"""The plan of memory and time, made before training: how many tokens at once, what it will take.

A first plan: weights, gradients and moments are counted exactly; what a forward pass keeps for the backward pass is
estimated from the model's shape (per token and layer 16 hidden-sized and 6 intermediate-sized vectors, and the logits
of learnt tokens three times); time from the matmul rate of this machine, measured now.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from pegbox import runtime
from pegbox.data.records import Example
from pegbox.models.prefix_tree import shared_prefix
from pegbox.models.quantization import count, size
from pegbox.recipe import Train
from pegbox.training.batching import total_updates

MOST_TOKENS = 4096  # beyond this a matmul gains nothing from more rows


@dataclass(frozen=True)
class Plan:
    """What a run will do and take. Bytes and seconds are predictions; tokens are counted."""

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
        return (
            f"{self.updates} updates; {self.trainable_parameters:,} of {self.parameters:,} parameters learn "
            f"({share:.2f} %); up to {self.micro_batch_tokens} tokens at once, {form}{prefix}; about "
            f"{self.memory / 1e9:.1f} GB of {self.available_memory / 1e9:.1f} GB and {self.seconds:.0f} s"
        )


def make_plan(
    model: PreTrainedModel, examples: Sequence[Example], settings: Train, *, packed: bool, share_prefix: bool
) -> Plan:
    """The plan for training `examples` on the device where the model is."""
    parameters = list(model.parameters())
    learnt, held = sum(p.numel() for p in parameters if p.requires_grad), sum(map(size, parameters))
    fixed = held + 12 * learnt  # + gradient and two moments
    available = runtime.available_memory(model.device) + held
    longest = max(example.room for example in examples)
    rows = settings.batch_size if settings.micro_batch_size == "auto" else int(settings.micro_batch_size)
    per_token = _bytes_per_token(model, examples)
    room = int(0.6 * (available - fixed) / per_token)
    tokens = max(longest, min(MOST_TOKENS, room))
    prefix = shared_prefix([example.input_ids for example in examples]) if packed and share_prefix else 0
    updates = total_updates(len(examples), settings)
    mean = sum(map(len, examples)) / len(examples)
    learnt_tokens = round(updates * settings.batch_size * mean)
    computed = updates * (prefix + settings.batch_size * (mean - prefix))
    at_once = min(tokens, round(settings.batch_size * mean))
    return Plan(
        updates=updates,
        micro_batch_tokens=tokens,
        micro_batch_rows=rows,
        packed=packed,
        share_prefix=share_prefix,
        prefix=prefix,
        tokens=learnt_tokens,
        trainable_parameters=learnt,
        parameters=sum(map(count, parameters)),
        memory=fixed + at_once * per_token,
        available_memory=available,
        seconds=computed * _flops_per_token(model) / matmul_rate(model.device),
    )


def _bytes_per_token(model: PreTrainedModel, examples: Sequence[Example]) -> int:
    config = model.config.get_text_config()
    hidden = config.hidden_size
    intermediate = getattr(config, "intermediate_size", None) or 4 * hidden
    kept = config.num_hidden_layers * (16 * hidden + 6 * intermediate)
    learnt = sum(sum(w > 0 for w in e.loss_weights) for e in examples) / sum(map(len, examples))
    return int(4 * (kept + 3 * learnt * config.vocab_size))


def _flops_per_token(model: PreTrainedModel) -> float:
    """Two a weight forward, two for the inputs' gradient, and two more for each weight that learns."""
    embedded = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    weights = [p for p in model.parameters() if p.ndim == 2 and id(p) not in embedded]
    return float(sum((6 if p.requires_grad else 4) * count(p) for p in weights))


def matmul_rate(device: torch.device) -> float:
    """Floating-point operations a second of a float32 matrix product on the device, measured in a fifth of a second."""
    a, b = torch.ones(512, 1024, device=device), torch.ones(1024, 1024, device=device)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < 0.2:
        (a @ b)[0, 0].item()
        done += 2 * a.numel() * b.shape[1]
    return done / (time.perf_counter() - began)
