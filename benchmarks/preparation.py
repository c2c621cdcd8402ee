"""Preparing rows: memory and speed of pegbox, beside `datasets` + TRL on the same file.

A row is a short question and its answer, in a chat template. pegbox reads, examines (all of the doctor's checks), finds
near twins, splits and encodes; TRL's SFTTrainer reads through `datasets`, applies the template and encodes prompt and
answer with the answer's mask, and does no more. Each runs in a process of its own, whose largest memory is told; the
peers take turns in one run. TRL is not among the dependencies: `pip install trl datasets`.

    python benchmarks/preparation.py --rows 100000 --turns 3          # both
    python benchmarks/preparation.py --rows 2000000 --turns 1 --only pegbox
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
from pathlib import Path
from typing import Any

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
WORDS = 4_000


def write(path: Path, count: int) -> None:
    """`count` rows of 8 to 16 made-up words and an answer of 1 to 4, the same for the same count."""
    draw = random.Random(count)
    syllables = [a + b for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u", "an", "er", "in", "or", "us")]
    words = ["".join(draw.choices(syllables, k=draw.randrange(1, 4))) for _ in range(WORDS)]
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            asked, answer = (" ".join(draw.choices(words, k=draw.randrange(*size))) for size in ((8, 17), (1, 5)))
            file.write(json.dumps({"prompt": asked, "completion": answer}) + "\n")


def with_pegbox(path: Path) -> int:
    """The number of tokens of train, validation and test."""
    from pegbox.pipeline import read_rows
    from pegbox.recipe import load

    recipe = load({"model": MODEL, "task": "chat", "data": str(path)})
    data = read_rows(recipe)[2]
    return len(data.splits.train) + len(data.splits.validation) + len(data.splits.test) + len(data.splits.left_out)


def with_trl(path: Path) -> int:
    """The number of rows that TRL has made ready."""
    from datasets import load_dataset
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    from pegbox.models.sources import resolve

    tokenizer = AutoTokenizer.from_pretrained(resolve(MODEL).path)
    tiny = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    rows = load_dataset("json", data_files=str(path), split="train").map(
        lambda row: {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["completion"]}],
        }
    )
    with tempfile.TemporaryDirectory() as out:
        settings = SFTConfig(
            output_dir=out, max_length=1024, completion_only_loss=True, report_to="none", use_cpu=True, bf16=False
        )
        trainer = SFTTrainer(LlamaForCausalLM(tiny), args=settings, train_dataset=rows, processing_class=tokenizer)
        return len(trainer.train_dataset)


def measured(who: str, path: Path) -> dict[str, Any]:
    """Rows per second, and MB of memory at most, of one of them in a process and a cache of its own."""
    with tempfile.TemporaryDirectory() as cache:
        own = {"HF_DATASETS_CACHE": f"{cache}/datasets", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, __file__, "--one", who, "--file", str(path)]
        done = subprocess.run(command, env=os.environ | own, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def one(who: str, path: Path) -> None:
    """Prepare, and tell the time and the memory."""
    import torch  # noqa: F401  both need it, and neither's time is that of its import
    import transformers  # noqa: F401
    from reading import peak

    began = time.perf_counter()
    rows = {"pegbox": with_pegbox, "trl": with_trl}[who](path)
    seconds = time.perf_counter() - began
    print(
        json.dumps(
            {
                "rows": rows,
                "seconds": round(seconds, 1),
                "rows_per_second": round(rows / seconds),
                "peak_mb": round(peak()),
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", choices=["pegbox", "trl"])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one(given.one, given.file)
        return
    peers = [given.only] if given.only else ["pegbox", "trl"]
    results: dict[str, list[dict[str, Any]]] = {who: [] for who in peers}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(given.turns):
            path = Path(folder) / f"rows{turn}.jsonl"
            write(path, given.rows + turn)  # another number: nobody finds it in a cache
            for who in peers:
                results[who].append(measured(who, path))
                print(who, results[who][-1], file=sys.stderr)
            path.unlink()
    medians = {who: statistics.median(one["rows_per_second"] for one in turns) for who, turns in results.items()}
    print(json.dumps({"rows": given.rows, "median_rows_per_second": medians, "turns": results}, indent=1))


if __name__ == "__main__":
    main()
