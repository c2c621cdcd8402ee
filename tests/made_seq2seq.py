"""Tiny encoder-decoders with the task `seq2seq` on them, untaught and half taught."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from made_tasks import made_task
from pegbox.data.formats import to_record
from pegbox.data.records import Record, Row
from pegbox.data.render import Renderer
from pegbox.models.load import heads_of, load_model, load_tokenizer, stop_ids
from pegbox.tasks.seq2seq import Seq2Seq
from tiny_folder import encoder_decoder_folder, write_rows
from tiny_languages import CODES, coded_folder
from tiny_models import make_double
from tiny_sentencepiece import m2m100_folder, marian_folder
from tiny_tasks import asked

TEXTS = [text.replace(" ", "") if n % 3 else text for n, (text, _, _) in enumerate(asked(200))]  # ragged
TURNED = [text[::-1] for text in TEXTS]
MADE: Mapping[str, Callable[[Path], Path]] = {
    "t5": encoder_decoder_folder,
    "t5, untied": lambda folder: encoder_decoder_folder(folder, tied=False),
    "bart": lambda folder: encoder_decoder_folder(folder, "bart"),
    "marian": lambda folder: encoder_decoder_folder(folder, "marian", tied=False),
    **{kind: lambda folder, kind=kind: coded_folder(folder, kind) for kind in CODES},  # type: ignore[misc]
    "marian, published": lambda folder: marian_folder(folder, TEXTS, [*TURNED, *TEXTS]),
    "m2m100": lambda folder: m2m100_folder(folder, TEXTS),
}
LANGUAGES = {**CODES, "m2m100": ("en", "de")}


class Made:
    """A tiny model of a kind, in float64, and the task on it."""

    def __init__(self, folder: Path, kind: str, **changes: Any) -> None:
        self.folder, self.tokenizer = folder, load_tokenizer(folder)
        codes = dict(zip(("source_lang", "target_lang"), LANGUAGES.get(kind, ()), strict=False))
        renderer = Renderer(self.tokenizer, stop_ids(folder))
        changes = {"task": {"kind": "seq2seq", **codes}} | changes
        task = made_task("seq2seq", renderer, heads=heads_of(folder), **changes)
        assert isinstance(task, Seq2Seq)
        self.task: Seq2Seq = task
        self.model: Any = load_model(folder, "seq2seq", kernels=False)
        self.model.generation_config = GenerationConfig()  # BART's forces an end at the greatest length
        make_double(self.model)

    def teach(self, updates: int = 40) -> None:
        """Let it half learn to turn texts round, so that answers differ and end at various places."""
        records = [pair(text, " ".join(reversed(text.split()))) for text in TEXTS[:32]]
        batch = self.task.collate([self.task.encode(record) for record in records], packed=False, share_prefix=False)
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        for _ in range(updates):
            optimizer.zero_grad()
            self.task.loss(self.model, batch)[0].div(batch.weights.sum()).backward()
            optimizer.step()


class Makers:
    """One of each kind, made when it is asked for; `taught`: half taught."""

    def __init__(self, root: Path, *, taught: bool = False) -> None:
        self.root, self.taught, self.known = root, taught, dict[str, Made]()

    def __call__(self, kind: str) -> Made:
        if kind not in self.known:
            self.known[kind] = Made(MADE[kind](self.root / kind), kind)
            if self.taught:
                self.known[kind].teach(120 if kind == "marian" else 40)
        return self.known[kind]


def pair(source: str, target: str, where: str = "rows:1", instruction: str | None = None) -> Record:
    return to_record(Row(where, {"source": source, "target": target}), "seq2seq", {}, instruction)


PAIRS = [pair(text, " ".join(reversed(text.split()))) for text in TEXTS[:7]]


def recipe_of(model: Path, rows: list[dict[str, str]], folder: Path, **changes: Any) -> dict[str, Any]:
    file = str(write_rows(folder / "rows.jsonl", rows))
    data = {"train": file, "validation": file, "test": file, "allow": ["leak"]} | changes.pop("data", {})
    train = {"batch_size": 16, "report_to": [], "max_steps": 3} | changes.pop("train", {})
    return {"model": str(model), "task": "seq2seq", "data": data, "train": train, **changes}
