"""How well the plan keeps its word: memory and time, predicted before training and measured at the end, over a grid.

Each cell is a short `pegbox train` in a process of its own; both figures come from its receipt. Models: two real ones and random
ones of other shapes; methods, tasks, and rows of many lengths. What was kept of an earlier start is not run again.
Writes `benchmarks/results/plan.json` and the figures in `docs/plan.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from tokenizers import processors
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from pegbox import runtime
from pegbox.demo.opinions import MODEL as ENCODER
from pegbox.demo.run import MODEL as WRITER
from pegbox.models.load import load_tokenizer
from pegbox.models.sources import resolve
from pegbox.runs import receipt

HERE = Path(__file__).resolve().parent
FIGURES, PAGE = HERE / "results" / "plan.json", HERE.parent / "docs" / "plan.md"
MARKS = "<!-- figures: written by benchmarks/plan.py -->", "<!-- end of the figures -->"
COMMAND = "from pegbox.cli import main; main()"  # what the program `pegbox` is
ROWS = 60
WITHIN, BYTES = 0.10, 200e6  # a peak is met where it is within the one or the other
WORDS = (
    *("the", "of", "and", "to", "in", "is", "you", "that", "it", "he", "was", "for", "on", "are"),
    *("as", "with", "his", "they", "at", "be", "this", "have", "from", "or", "one", "had", "by", "word"),
)
ANSWERS = ("yes", "no", "maybe")
# words of the shortest and of the longest row
LENGTHS = {"short": (10, 100), "512": (440, 440), "1024": (900, 900), "ragged": (10, 900), "250": (200, 200)}


@dataclass(frozen=True)
class Cell:
    """One run of the grid."""

    model: str
    task: str
    method: str
    length: str
    batch_size: int = 8
    updates: int = 5

    @property
    def name(self) -> str:
        """The cell in a line."""
        return f"{self.model}, {self.task}, {self.method}, {self.length}, {self.batch_size} rows"


def grid() -> list[Cell]:
    """All cells; those of the trial first."""
    small = [
        Cell("SmolLM2-135M", "chat", "lora", "short"),
        Cell("MiniLM", "classification", "full", "short"),
        Cell("llama-256", "chat", "full", "ragged"),
        Cell("bert-512", "classification", "lora", "250"),
        Cell("t5-256", "seq2seq", "full", "short"),
        Cell("llama-512", "chat", "adapter", "512"),
    ]
    more = [Cell("SmolLM2-135M", "chat", method, "short") for method in ("full", "adapter")]
    more += [Cell("SmolLM2-135M", "chat", method, "512", 4) for method in ("lora", "full", "adapter")]
    more += [Cell("SmolLM2-135M", "chat", "lora", "1024", 2), Cell("SmolLM2-135M", "classification", "lora", "short")]
    more += [Cell("MiniLM", "classification", method, "short", 32) for method in ("lora", "adapter")]
    more += [Cell("MiniLM", "classification", method, "250") for method in ("full", "lora")]
    more += [Cell("llama-256", "chat", "lora", "1024"), Cell("llama-256", "chat", "adapter", "ragged")]
    more += [Cell("llama-512", "chat", "full", "short", 16), Cell("llama-512", "chat", "lora", "ragged")]
    more += [Cell("bert-512", "classification", "full", "short"), Cell("bert-512", "classification", "adapter", "250")]
    more += [Cell("t5-256", "seq2seq", "lora", "250"), Cell("t5-256", "seq2seq", "adapter", "short", 16)]
    more += [Cell("llama-768", "chat", "lora", "512", 4), Cell("llama-768", "classification", "lora", "short")]
    return small + more


def llama(hidden: int) -> Callable[[Path], None]:
    """Makes a random Llama of eight layers with the tokenizer of the real model."""

    def make(folder: Path) -> None:
        tokenizer = load_tokenizer(resolve(WRITER).path)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=8 * hidden // 3,
            num_hidden_layers=8,
            num_attention_heads=hidden // 64,
            num_key_value_heads=hidden // 64,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        LlamaForCausalLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return make


def bert(folder: Path) -> None:
    """A random BERT of six layers with the tokenizer of the real encoder."""
    tokenizer = load_tokenizer(resolve(ENCODER).path)
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6, "num_attention_heads": 8}
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def t5(folder: Path) -> None:
    """A random T5 of four layers each side, whose tokenizer ends each text."""
    tokenizer = load_tokenizer(resolve(WRITER).path)
    end = tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    sizes = {"d_model": 256, "d_kv": 64, "d_ff": 1024, "num_layers": 4, "num_heads": 4}
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    made = T5Config(vocab_size=len(tokenizer), **sizes, **ids, decoder_start_token_id=tokenizer.pad_token_id)
    T5ForConditionalGeneration(made).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


MADE: dict[str, Callable[[Path], None]] = {f"llama-{hidden}": llama(hidden) for hidden in (256, 512, 768)}
MADE |= {"bert-512": bert, "t5-256": t5}
REAL = {"SmolLM2-135M": WRITER, "MiniLM": ENCODER}


def rows(cell: Cell) -> Iterator[dict[str, str]]:
    """Rows of random words, no two alike, as long as the cell has it."""
    draw = random.Random(cell.name)
    for number in range(ROWS):
        text = f"{number} " + " ".join(draw.choices(WORDS, k=draw.randint(*LENGTHS[cell.length])))
        answer = ANSWERS[number % len(ANSWERS)]
        if cell.task == "classification":
            yield {"text": text, "label": answer}
        elif cell.task == "seq2seq":
            yield {"source": text, "target": " ".join(text.split()[: len(text.split()) // 2])}
        else:
            yield {"prompt": text, "completion": " ".join([answer] * draw.randint(1, 20))}


def run(cell: Cell, folder: Path) -> dict[str, Any]:
    """What the receipt of a cell's run says."""
    model = REAL.get(cell.model)
    if model is None:
        model = str(folder / cell.model)
        if not Path(model).is_dir():
            torch.manual_seed(0)
            MADE[cell.model](Path(model))
    here = Path(tempfile.mkdtemp(dir=folder))
    (here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(cell)), encoding="utf-8")
    recipe = {
        "model": model,
        "task": cell.task,
        "data": {"train": "rows.jsonl", "validation": 0.1, "test": 0.2, "allow": ["near_duplicate"]},
        "method": cell.method,
        "train": {"max_steps": cell.updates, "batch_size": cell.batch_size, "report_to": "none"},
        "evaluate": {"few_shot": 2, "max_rows": 8},
    }
    (here / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    command = [sys.executable, "-c", COMMAND, "train", "recipe.yaml", "--run-dir", "run", "--quiet"]
    began = time.perf_counter()
    subprocess.run(command, cwd=here, check=True, stdout=subprocess.DEVNULL)
    told = json.loads((here / "run" / "receipt.json").read_text(encoding="utf-8"))
    plan, measured = told["plan"], told["peak_memory"]["measured"]
    return {
        **asdict(cell),
        "memory": {"predicted": plan["memory"], "measured": measured, "available": plan["available_memory"]},
        "seconds": {"predicted": plan["seconds"], "measured": told["seconds"]["training"]},
        "peaks": plan["peaks"],
        "probe_seconds": plan["probe_seconds"],
        "process_seconds": time.perf_counter() - began,
    }


def off(told: dict[str, float]) -> float:
    """A prediction's error, as a share of what was measured."""
    return (told["predicted"] - told["measured"]) / told["measured"]


def kept(cell: dict[str, Any]) -> bool:
    """Whether the peak was met."""
    memory = cell["memory"]
    return abs(off(memory)) <= WITHIN or abs(memory["predicted"] - memory["measured"]) <= BYTES


def spread(errors: Sequence[float]) -> str:
    """Least, median and largest, in words."""
    return f"{min(errors):+.0%} to {max(errors):+.0%}, median of the sizes {statistics.median(map(abs, errors)):.0%}"


def page(told: dict[str, Any]) -> str:
    """The figures, for the page."""
    cells = told["cells"]
    met = sum(map(kept, cells))
    over = sum(cell["memory"]["measured"] > cell["memory"]["available"] for cell in cells)
    lines = [
        f"{told['date']}, {told['hardware']['cores']} cores, {told['hardware']['instructions']}; {len(cells)} runs.",
        "",
        "| | |",
        "|---|---|",
        f"| peak memory within 10 % or 200 MB | {met} of {len(cells)} |",
        f"| error of the peak | {spread([off(cell['memory']) for cell in cells])} |",
        f"| more than the machine had | {over} |",
        f"| error of the time | {spread([off(cell['seconds']) for cell in cells])} |",
        "",
        "| run | memory, predicted | measured | | seconds, predicted | measured | | to find out |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        name = Cell(**{key: cell[key] for key in Cell.__dataclass_fields__}).name
        memory, seconds = cell["memory"], cell["seconds"]
        lines.append(
            f"| {name} | {memory['predicted'] / 1e9:.2f} GB | {memory['measured'] / 1e9:.2f} GB | {off(memory):+.0%} "
            f"| {seconds['predicted']:.1f} | {seconds['measured']:.1f} | {off(seconds):+.0%} | {cell['probe_seconds']:.1f} |"
        )
    return "\n".join(lines)


def publish(told: dict[str, Any]) -> None:
    """Write the figures between the marks of the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
    PAGE.write_text(f"{before}{MARKS[0]}\n\n{page(told)}\n\n{MARKS[1]}{rest.partition(MARKS[1])[2]}", encoding="utf-8")


def main() -> None:
    """Run the grid, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="six cells, printed and not kept")
    parser.add_argument("--work", type=Path, help="a folder for the runs, which keeps what is done")
    asked = parser.parse_args()
    folder = asked.work or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "cells.jsonl"
    cells = [json.loads(line) for line in done.read_text().splitlines()] if done.is_file() else []
    there = {Cell(**{key: cell[key] for key in Cell.__dataclass_fields__}) for cell in cells}
    for cell in grid()[: 6 if asked.small else None]:
        if cell in there:
            continue
        cells.append(run(cell, folder))
        with done.open("a") as file:
            file.write(json.dumps(cells[-1]) + "\n")
        print(f"{cell.name}: memory {off(cells[-1]['memory']):+.0%}, time {off(cells[-1]['seconds']):+.0%}", flush=True)
    hardware = receipt.hardware(runtime.find_device())
    hardware = {name: hardware[name] for name in ("device", "processor", "cores", "threads", "instructions")}
    told = {"date": datetime.now(UTC).date().isoformat(), "hardware": hardware, "versions": receipt.versions()}
    told["cells"] = cells
    print(page(told))
    if not asked.small:
        FIGURES.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        publish(told)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
