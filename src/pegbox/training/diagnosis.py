"""Why an update is not finite: which rows, and in which part of the model the first such number is.

The rows are computed once more, each alone and with the noise of the update. Weights are looked at first, for where one is
not finite every row is; then, of the first guilty row, the first module whose output is not (the innermost runs first), else
the loss, else the first module that is handed such a gradient on the way back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import torch
from torch import nn

from pegbox import runtime
from pegbox.data.records import Example
from pegbox.errors import TrainingError
from pegbox.runs.checkpoint import trainable
from pegbox.training import gradient
from pegbox.training.gradient import Gradient
from pegbox.training.job import Job
from pegbox.training.schedule import learning_rate

GRADIENT = "the gradient"
NAMED, BEFORE = 8, 5  # rows in the message; gradient norms of updates before


def refuse(job: Job, found: Gradient, step: int) -> NoReturn:
    """Raise TrainingError with what can be said of update `step` (from 0), whose loss or gradient is not finite."""
    examples = job.examples_of(step)
    guilty, first = examine(job, examples, step)
    rate = learning_rate(step, job.plan.updates, job.peak_learning_rate, job.settings)
    lines = [line for line in job.run.read_lines("metrics.jsonl") if "split" not in line]
    norms = [line["grad_norm"] for line in lines[-BEFORE:]]
    rows = guilty or [example.where for example in examples]
    facts = {"loss": str(found.loss), "grad_norm": str(found.norm), "learning_rate": rate, "first": first}
    job.tell(step + 1, "not_finite", **facts, grad_norms_before=norms, rows=rows)
    before = ", ".join(f"{norm:.3g}" for norm in norms) or "none"
    what = (
        f"update {step + 1}: the loss ({found.loss}) or its gradient ({found.norm}) is not finite; the weights were not "
        f"changed. First in {first}; learning rate {rate:.3g}; gradient norms before: {before}"
    )
    cure = "look at these rows" if guilty and len(guilty) < len(examples) else "look at the model's weights"
    cure += "; else go on with a lower rate: `pegbox train --resume RUN --accept-change train.learning_rate`"
    raise TrainingError(what, where=named(rows), cure=cure)


def named(rows: Sequence[str]) -> str:
    """The first few rows, and how many more."""
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return ", ".join(rows[:NAMED]) + more


def examine(job: Job, examples: Sequence[Example], step: int) -> tuple[list[str], str]:
    """The rows that alone give a loss or gradient that is not finite, and the part where the first such number is."""
    parameters = trainable(job.model)
    guilty, first = [], ""
    with _watched(job.model) as seen:
        for example in examples:
            seen.clear()
            for parameter in parameters.values():
                parameter.grad = None
            runtime.seed_noise(job.seed, step, job.ranks.rank)
            batches = [batch.to(job.device) for batch in gradient.micro_batches(job.task, job.plan, [example], step)]
            with runtime.autocast(job.device, job.bf16):
                loss, _ = job.task.update_loss(job.model, batches, partial(_backward, seen))
            wrong = [name for name, parameter in parameters.items() if not _is_finite(parameter.grad)]
            if wrong or not math.isfinite(loss):
                guilty.append(example.where)
                # a loss by chunks goes back before it is known as a whole: what lies on the way forward comes first
                behind = f"the gradient of {wrong[-1]}" if wrong else "the loss"
                first = first or min(seen, key=lambda part: part.startswith(GRADIENT), default=behind)
    for parameter in parameters.values():
        parameter.grad = None
    weights = [name for name, weight in job.model.named_parameters() if not _is_finite(weight)]
    if weights:
        return guilty, f"the weights {weights[0]}"
    return guilty, first or "the sum over its rows, each of which is finite"


def _backward(seen: list[str], loss: torch.Tensor) -> None:
    if not _is_finite(loss):
        seen.append("the loss")
    loss.backward()


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[str]]:
    """A list of where numbers that are not finite come up inside, in the order of computation."""
    seen: list[str] = []

    def watch(name: str) -> Any:
        def back(grad: torch.Tensor) -> None:
            if not _is_finite(grad):
                seen.append(f"{GRADIENT} behind {name}")

        def after(module: nn.Module, inputs: Any, output: Any) -> None:
            for tensor in _tensors(output):
                if not _is_finite(tensor):
                    seen.append(f"the output of {name}")
                if tensor.requires_grad:
                    tensor.register_hook(back)

        return after

    hooks = [module.register_forward_hook(watch(name or "the model")) for name, module in model.named_modules()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, Mapping):
        yield from _tensors(list(output.values()))
    elif isinstance(output, tuple | list):
        for part in output:
            yield from _tensors(part)


def _is_finite(tensor: torch.Tensor | None) -> bool:
    return tensor is None or bool(torch.isfinite(tensor).all())
