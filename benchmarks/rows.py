"""A million rows: tokenised, prepared, packed and an epoch begun, beside `datasets` + TRL's packing.

pegbox does what `pegbox train` does up to its first update (`pipeline.get_ready`: the rows read, examined by every check
of the doctor, near twins found, split, in tokens; the plan), then cuts and packs updates of the first epoch. What
the doctor takes of it, which the peer has no counterpart of, is told apart. The peer is the fastest form that we know of
the same job: `datasets.map` in batches, chat template and tokenizer called on whole batches, prompts' tokens masked,
`pack_dataset` (best fit decreasing, 1,024 tokens), then TRL's own collator over a shuffled epoch; with one process (the
tokenizer's threads use every core) and with two. TRL's `SFTTrainer` itself prepares rows more slowly (`preparation.py`).

Each runs in a process and a cache of its own; `peak_mb` is the most that the process held by the end of each stage, the
imports among it. Systems take turns at every size. Linux.

    python benchmarks/rows.py --rows 100000 300000 1000000 --out benchmarks/results/rows.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from made_rows import write
from reading import peak

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
BATCH, LENGTH = 16, 1024  # rows of an update here, tokens of a packed sequence there: about as many tokens
UPDATES = 1000  # of the first epoch, made ready to be computed
PREPARED, AGAIN = "rows prepared", "the same again, found prepared, with model and plan"
FIRST, OTHERS = "first update ready", f"{UPDATES - 1} more updates ready"
SYSTEMS = ("pegbox", "peer, 1 process", "peer, 2 processes")


class Stages:
    """How long each stage took, by the clock and of the processors (its children's too), and the most memory by its end."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self.peak_mb: dict[str, int] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began, used = time.perf_counter(), sum(os.times()[:4])
        yield
        self.cpu_seconds[name] = round(sum(os.times()[:4]) - used, 2)
        self.seconds[name] = round(time.perf_counter() - began, 2)
        self.peak_mb[name] = round(peak())


def tiny_model(folder: Path) -> Path:
    """A model of a thousandth of the size with SmolLM2's tokenizer, for the rows are what is measured."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from pegbox.models.sources import resolve

    tokenizer = AutoTokenizer.from_pretrained(resolve(MODEL).path)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def with_pegbox(path: Path, work: Path, stages: Stages) -> int:
    """The tokens of the rows in the updates that were made ready."""
    from pegbox.data.doctor.checks import Examination
    from pegbox.pipeline import get_ready, read_rows
    from pegbox.recipe import load
    from pegbox.training.batching import rows_of_update, updates_per_epoch
    from pegbox.training.gradient import micro_batches

    settings = {"batch_size": BATCH, "num_train_epochs": 1}
    given = {"model": str(tiny_model(work / "model")), "task": "chat", "data": str(path), "train": settings}
    examined = _timed(Examination, "see")
    recipe = load(given)
    with stages.stage(PREPARED):
        read_rows(recipe)
    stages.seconds["of these, the doctor's look at each row"] = round(sum(examined), 2)
    with stages.stage(AGAIN):
        ready = get_ready(recipe)
    train = ready.data.train

    def update(step: int) -> int:
        rows = [train[row] for row in rows_of_update(step, len(train), BATCH, recipe.seed)]
        assert list(micro_batches(ready.task, ready.plan, rows, step))
        return sum(map(len, rows))

    with stages.stage(FIRST):
        tokens = update(0)
    with stages.stage(OTHERS):
        tokens += sum(map(update, range(1, min(UPDATES, updates_per_epoch(len(train), BATCH)))))
    return tokens


def _timed(owner: type, name: str) -> list[float]:
    """The seconds that each call of a method takes, from now on, summed in one number."""
    plain: Callable[..., Any] = getattr(owner, name)
    total = [0.0]

    def timed(*given: Any) -> Any:
        began = time.perf_counter()
        try:
            return plain(*given)
        finally:
            total[0] += time.perf_counter() - began

    setattr(owner, name, timed)
    return total


def with_peer(path: Path, work: Path, stages: Stages, processes: int) -> int:
    """Likewise."""
    from datasets import load_dataset
    from torch.utils.data import DataLoader
    from transformers import AutoTokenizer
    from trl import pack_dataset
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    tokenizer = AutoTokenizer.from_pretrained(tiny_model(work / "model"))

    def encode(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        asked = [[{"role": "user", "content": text}] for text in rows["prompt"]]
        turns = [
            [*turns, {"role": "assistant", "content": text}]
            for turns, text in zip(asked, rows["completion"], strict=True)
        ]
        opened = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        prompts = tokenizer(opened, add_special_tokens=False)["input_ids"]
        whole = tokenizer(tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False)["input_ids"]
        masks = [[0] * len(one) + [1] * (len(all) - len(one)) for one, all in zip(prompts, whole, strict=True)]
        return {"input_ids": whole, "completion_mask": masks}

    with stages.stage(PREPARED):
        rows = load_dataset("json", data_files=str(path), split="train", cache_dir=str(work / "cache"))
        rows = rows.map(
            encode, batched=True, num_proc=None if processes == 1 else processes, remove_columns=rows.column_names
        )
        packed = pack_dataset(rows, LENGTH, "bfd")
    collate = DataCollatorForLanguageModeling(tokenizer.pad_token_id, padding_free=True)
    loader = DataLoader(packed.shuffle(seed=0), batch_size=1, shuffle=False, collate_fn=collate)
    updates = iter(loader)
    with stages.stage(FIRST):
        tokens = next(updates)["input_ids"].numel()
    with stages.stage(OTHERS):
        tokens += sum(batch["input_ids"].numel() for batch in islice(updates, UPDATES - 1))
    return int(tokens)


def one(system: str, path: Path, count: int) -> dict[str, Any]:
    """What one system takes for a file, in this process."""
    import torch  # noqa: F401  both need it, and neither's time is that of its import
    import transformers  # noqa: F401

    stages, imports = Stages(), round(peak())
    with tempfile.TemporaryDirectory() as work:
        if system == "pegbox":
            tokens = with_pegbox(path, Path(work), stages)
        else:
            tokens = with_peer(path, Path(work), stages, processes=int(system.split()[1]))
    first = sum(stages.seconds.get(name, 0.0) for name in (PREPARED, AGAIN, FIRST))
    return {
        "system": system,
        "rows": count,
        "seconds": stages.seconds,
        "cpu_seconds": stages.cpu_seconds,
        "rows_per_second_prepared": round(count / stages.seconds[PREPARED]),
        "rows_per_second_until_first_update": round(count / first),
        "tokens_per_second_of_updates_made_ready": round(tokens / (stages.seconds[FIRST] + stages.seconds[OTHERS])),
        "peak_mb": {"imports": imports, **stages.peak_mb},
    }


def apart(system: str, path: Path, count: int) -> dict[str, Any]:
    """The same in a process and a cache of its own."""
    with tempfile.TemporaryDirectory() as cache:
        models = os.environ.get("PEGBOX_CACHE", str(Path.home() / ".cache/pegbox"))
        Path(cache, "pegbox").mkdir()
        for folder in Path(models).iterdir():
            if not folder.name.startswith((".", "rows-")):
                Path(cache, "pegbox", folder.name).symlink_to(folder)
        own = {"HF_DATASETS_CACHE": f"{cache}/datasets", "HF_HUB_OFFLINE": "1", "PEGBOX_CACHE": f"{cache}/pegbox"}
        command = [sys.executable, __file__, "--one", system, "--file", str(path), "--rows", str(count)]
        done = subprocess.run(command, env=os.environ | own, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def growth(results: list[dict[str, Any]]) -> dict[str, float]:
    """Bytes of memory that a row more takes, of each system, between the smallest and the largest number of rows."""
    found = {}
    for system in {result["system"]: None for result in results}:
        by_rows = {result["rows"]: max(result["peak_mb"].values()) for result in results if result["system"] == system}
        least, most = min(by_rows), max(by_rows)
        if most > least:
            found[system] = round((by_rows[most] - by_rows[least]) * 2**20 / (most - least), 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--only", choices=SYSTEMS, nargs="+", default=SYSTEMS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one, given.file, given.rows[0])))
        return
    results = []
    for count in given.rows:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.jsonl"
            write(path, count)
            for system in given.only:
                results.append(apart(system, path, count))
                print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    versions = {name: version(name) for name in ("datasets", "trl", "tokenizers", "transformers")}
    told = {
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "versions": versions,
        "bytes_per_row": growth(results),
        "results": results,
    }
    text = json.dumps(told, indent=1) + "\n"
    if given.out:
        given.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
