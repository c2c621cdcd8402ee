"""Greedy answers in batches: tokens a second and peak memory, pegbox beside Transformers, on the same rows and weights.

Each measurement is a process of its own, and the systems take turns, so that a noisy machine slows all of them alike. The
answers of all are compared; rows in which pegbox's two best logits were ever closer than rounding may differ.

    house      the demo's commands, short prompts with one system message, answers of a few to 48 tokens
    few-shot   the same behind eight examples
    groups     eight groups, each with a system message of its own, as long as eight examples
    ragged     a paragraph of free text, until a line ends: of a few to 200 tokens

Transformers: `generate` in batches of 64 rows of like length, padded on the left, and `generate_batch` (continuous batching).
`pegbox, plain layers` is pegbox without its linear layers for CPUs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from pegbox import runtime
from pegbox.data.records import Message
from pegbox.data.render import Renderer
from pegbox.demo.house import INSTRUCTION, sample_rows
from pegbox.demo.run import MODEL
from pegbox.models import generation
from pegbox.models import load as models
from pegbox.models.sources import resolve

RESULTS = Path(__file__).parent / "results" / "decoding.json"
BATCH = 64
SYSTEMS = ("pegbox", "pegbox, plain layers", "Transformers generate", "Transformers generate_batch")
THINGS = (
    "a dog",
    "the sea",
    "bread",
    "Mars",
    "a violin",
    "winter",
    "a bridge",
    "tea",
    "a lawyer",
    "gravity",
    "rice",
    "iron",
)
Answers = list[list[int]]


def house(renderer: Renderer, count: int, shots: int, groups: int) -> list[list[int]]:
    """Prompts of the demo, behind so many examples, those of each group its own."""
    rows = sample_rows("en", {"train": count + shots * groups}).split("train")
    prompts = []
    for number, row in enumerate(rows[:count]):
        first = [Message("system", INSTRUCTION["en"])]
        begin = count + number % groups * shots
        for shown in rows[begin : begin + shots]:
            first += [Message("user", shown.command), Message("assistant", shown.answer)]
        prompts.append(renderer.prompt([*first, Message("user", row.command)]))
    return prompts


def free(renderer: Renderer, count: int) -> list[list[int]]:
    """Questions whose answers are paragraphs."""
    rng = random.Random(3)
    told = (
        "Tell me about {}, {} and {}.",
        "What has {} to do with {}? Say it to {}.",
        "Write about {}, then {}, never {}.",
    )
    texts = [rng.choice(told).format(*rng.sample(THINGS, 3)) for _ in range(count)]
    return [renderer.prompt([Message("user", text)]) for text in texts]


def workload(name: str, renderer: Renderer, count: int) -> tuple[list[list[int]], frozenset[int], int]:
    """The prompts, the tokens that end an answer, and the most tokens of one."""
    if name == "ragged":
        ends = {renderer.encode(text)[-1] for text in ("\n", "\n\n")}
        return free(renderer, count), frozenset(ends | renderer.stop_ids), 200
    shots, groups = {"house": (0, 1), "few-shot": (8, 1), "groups": (8, 8)}[name]
    return house(renderer, count, shots, groups), renderer.stop_ids, 48


def by_pegbox(
    model: Any, prompts: Sequence[list[int]], stop_ids: frozenset[int], most: int
) -> tuple[Answers, list[int]]:
    answers = generation.generate(model, prompts, stop_ids=stop_ids, max_new_tokens=most)
    return [answer.input_ids for answer in answers], list(generation.count_close(answers))


def by_generate(
    model: Any, prompts: Sequence[list[int]], stop_ids: frozenset[int], most: int
) -> tuple[Answers, list[int]]:
    found: Answers = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        size = max(len(prompts[index]) for index in chosen)
        ids = torch.tensor([[0] * (size - len(prompts[index])) + prompts[index] for index in chosen])
        mask = torch.tensor([[0] * (size - len(prompts[index])) + [1] * len(prompts[index]) for index in chosen])
        options = {"max_new_tokens": most, "do_sample": False, "eos_token_id": sorted(stop_ids), "pad_token_id": 0}
        written = model.generate(ids, attention_mask=mask, **options)[:, size:].tolist()
        for index, row in zip(chosen, written, strict=True):
            found[index] = until(row, stop_ids)
    return found, []


def by_generate_batch(
    model: Any, prompts: Sequence[list[int]], stop_ids: frozenset[int], most: int
) -> tuple[Answers, list[int]]:
    settings = GenerationConfig(max_new_tokens=most, do_sample=False, eos_token_id=sorted(stop_ids), pad_token_id=0)
    written = model.generate_batch(inputs=list(prompts), generation_config=settings, progress_bar=False)
    rows = sorted(written.values(), key=lambda row: int(row.request_id.split("_")[-1]))
    return [until(row.generated_tokens, stop_ids) for row in rows], []


def until(row: Sequence[int], stop_ids: frozenset[int]) -> list[int]:
    end = next((place for place, token in enumerate(row) if token in stop_ids), len(row))
    return list(row[:end])


ANSWER: dict[str, Callable[..., tuple[Answers, list[int]]]] = {
    "pegbox": by_pegbox,
    "pegbox, plain layers": by_pegbox,
    "Transformers generate": by_generate,
    "Transformers generate_batch": by_generate_batch,
}


def measure(system: str, name: str, count: int) -> dict[str, Any]:
    """One system's answers to one workload, in this process."""
    runtime.tune_allocator()
    folder = resolve(MODEL).path
    renderer = Renderer(models.load_tokenizer(folder))
    model = models.load_model(folder, "causal_lm", device=torch.device("cpu"), kernels=system not in SYSTEMS[1:]).eval()
    prompts, stop_ids, most = workload(name, renderer, count)
    with torch.inference_mode():
        ANSWER[system](model, prompts[:2], stop_ids, 2)  # what is done once in a process
        before, began = resident(again=True), time.perf_counter()
        answers, close = ANSWER[system](model, prompts, stop_ids, most)
        seconds = time.perf_counter() - began
    said = sum(len(answer) + (len(answer) < most) for answer in answers)
    memory = resident() - before
    lengths = sorted(map(len, answers))
    return {"seconds": seconds, "said": said, "memory": memory, "lengths": lengths, "answers": answers, "close": close}


def resident(again: bool = False) -> int:
    """The most bytes that the process has held; from now on, if `again` (Linux: proc(5), clear_refs)."""
    if again:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def child(system: str, name: str, count: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--rows", str(count), "--workloads", name, "--only", system]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{system}, {name}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Of each system: tokens a second (median, and all), memory beyond the model's, rows that pegbox answers otherwise."""
    first = runs[SYSTEMS[0]][0]
    known = {"rows": len(first["answers"]), "tokens": first["said"], "close": len(first["close"])}
    known["lengths"] = [first["lengths"][len(first["lengths"]) * share // 10] for share in (0, 1, 5, 9)] + first[
        "lengths"
    ][-1:]
    for system, found in runs.items():
        rates = [round(run["said"] / run["seconds"], 1) for run in found]
        differ = [
            n for n, pair in enumerate(zip(first["answers"], found[0]["answers"], strict=True)) if pair[0] != pair[1]
        ]
        known[system] = {
            "tokens_per_second": statistics.median(rates),
            "runs": rates,
            "memory_mb": round(max(run["memory"] for run in found) / 1e6),
            "answers_that_differ": len(differ),
            "of_them_clear": len(set(differ) - set(first["close"])),
        }
    return known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=384)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workloads", nargs="*", default=["house", "few-shot", "groups", "ragged"])
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS))
    parser.add_argument("--only", help="measure one system in this process")
    settings = parser.parse_args()
    if settings.only:
        print(json.dumps(measure(settings.only, settings.workloads[0], settings.rows)))
        return
    result: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "hardware": {"threads": torch.get_num_threads(), "capability": torch.backends.cpu.get_cpu_capability()},
        "model": MODEL,
    }
    for name in settings.workloads:
        runs: dict[str, list[dict[str, Any]]] = {system: [] for system in settings.systems}
        for _ in range(settings.repeats):
            for system in settings.systems:
                runs[system].append(child(system, name, settings.rows))
        result[name] = table(runs)
        print(json.dumps({name: result[name]}), flush=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
