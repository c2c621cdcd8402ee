"""Training speed on the demo's rows: pegbox's update beside plain Transformers + PEFT, the same maths, in one run.

Prints JSON: median seconds of an update and tokens per second (tokens of the rows, not padding), the loss of each form
(they must agree), peak memory of the process. Forms are interleaved, so that a noisy machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from peft import LoraConfig, get_peft_model

from pegbox import runtime
from pegbox.data.records import Conversation, Example, Message, Record
from pegbox.data.render import Renderer
from pegbox.demo.house import INSTRUCTION, sample_rows
from pegbox.demo.run import MODEL
from pegbox.methods import lora
from pegbox.models import load as models
from pegbox.models.batch import pad
from pegbox.models.packing import enable_packing
from pegbox.models.sources import resolve
from pegbox.recipe import Lora
from pegbox.recipe import load as load_recipe
from pegbox.tasks.chat import Chat

BATCH = 16


def examples(task: Chat, count: int) -> list[Example]:
    rows = sample_rows("en", {"train": count}).split("train")
    turns = [
        (Message("system", INSTRUCTION["en"]), Message("user", row.command), Message("assistant", row.answer, 1.0))
        for row in rows
    ]
    return [task.encode(Record(f"row {n}", Conversation(messages))) for n, messages in enumerate(turns, start=1)]


def pegbox_update(task: Chat, packed: bool) -> Callable[[Sequence[Example]], float]:
    folder = resolve(MODEL).path
    model = models.load_model(folder, "causal_lm", device=runtime.find_device(), kernels=packed)
    if packed:
        assert enable_packing(model, PROBES)
    lora.prepare(model, Lora(r=16), seed=0)

    def update(rows: Sequence[Example]) -> float:
        model.train()
        model.zero_grad(set_to_none=True)
        batch = task.collate(sorted(rows, key=len), packed=packed, share_prefix=packed).to(model.device)
        loss, weight = task.loss(model, batch)
        (loss / weight).backward()
        return loss.item() / weight

    return update


def peft_update(task: Chat) -> Callable[[Sequence[Example]], float]:
    base = models.load_model(resolve(MODEL).path, "causal_lm", device=runtime.find_device(), kernels=False)
    model = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))

    def update(rows: Sequence[Example]) -> float:
        model.train()
        model.zero_grad(set_to_none=True)
        batch = pad(rows, int(task.renderer.tokenizer.pad_token_id)).to(base.device)
        labels = torch.full_like(batch.input_ids, -100)
        for row, example in enumerate(rows):
            for t, weight in enumerate(example.loss_weights):
                labels[row, t] = example.input_ids[t] if weight else -100
        loss = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels).loss
        loss.backward()
        return float(loss.item())

    return update


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=6)
    settings = parser.parse_args()
    runtime.tune_allocator()
    recipe = load_recipe({"model": MODEL, "task": "chat", "data": "rows.jsonl"})
    task = Chat(Renderer(models.load_tokenizer(resolve(MODEL).path)), recipe)
    task.fit(())
    rows = examples(task, BATCH * (settings.updates + 1))
    PROBES.extend(rows[:8])
    forms = {
        "pegbox, packed": pegbox_update(task, packed=True),
        "pegbox, plain": pegbox_update(task, packed=False),
        "Transformers + PEFT": peft_update(task),
    }
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    losses: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(settings.updates + 1):
        chosen = rows[number * BATCH : (number + 1) * BATCH]
        for name, update in forms.items():
            began = time.perf_counter()
            losses[name].append(update(chosen))
            seconds[name].append(time.perf_counter() - began)
    tokens = sum(map(len, rows[BATCH:])) / settings.updates
    result = {
        name: {
            "seconds": round(statistics.median(times[1:]), 3),
            "tokens_per_second": round(tokens / statistics.median(times[1:])),
            "largest_loss_difference": max(
                abs(a - b) for a, b in zip(losses[name], losses["Transformers + PEFT"], strict=True)
            ),
        }
        for name, times in seconds.items()
    }
    print(json.dumps({"tokens_per_update": tokens, "peak_memory": runtime.peak_memory(torch.device("cpu")), **result}))


PROBES: list[Example] = []

if __name__ == "__main__":
    main()
