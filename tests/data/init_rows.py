"""Files as people have them, small, for tests of what `pegbox init` makes of them."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

WORDS = [
    "room",
    "clean",
    "quiet",
    "breakfast",
    "late",
    "left",
    "early",
    "never",
    "friendly",
    "staff",
    "lovely",
    "view",
    "broken",
    "lift",
    "cold",
    "warm",
]


def sentence(draw: random.Random, words: int = 9) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(words))


def made(count: int, row: Any, seed: int = 0) -> list[dict[str, Any]]:
    """`count` rows of `row(draw, number)`."""
    draw = random.Random(seed)
    return [row(draw, number) for number in range(count)]


def chat(draw: random.Random, number: int) -> dict[str, Any]:
    turns = [{"role": "user", "content": f"{sentence(draw)} {number}?"}]
    return {"id": number, "messages": [*turns, {"role": "assistant", "content": sentence(draw, 2)}]}


def share_gpt(draw: random.Random, number: int) -> dict[str, Any]:
    turns = [{"from": "human", "value": f"{sentence(draw)} {number}?"}, {"from": "gpt", "value": sentence(draw, 2)}]
    return {"id": f"identity_{number}", "conversations": turns}


def alpaca(draw: random.Random, number: int) -> dict[str, Any]:
    given = sentence(draw, 4) if number % 2 else ""
    return {"instruction": f"{sentence(draw, 5)} {number}", "input": given, "output": sentence(draw, 3)}


def review(draw: random.Random, number: int) -> dict[str, Any]:
    return {
        "id": 1000 + number,
        "date": f"2026-{1 + number % 12:02d}-{1 + number % 28:02d}",
        "review": f"{sentence(draw)} {number}",
        "stars": 1 + number % 5,
        "customer_id": f"c{number % 9}",
    }


def ticket(draw: random.Random, number: int) -> dict[str, Any]:
    return {"ticket_id": f"T-{number:05d}", "text": f"{sentence(draw)} {number}", "label": ["bug", "wish"][number % 2]}


def tagged(draw: random.Random, number: int) -> dict[str, Any]:
    tokens = sentence(draw, 3 + number % 4).split()
    return {"tokens": tokens, "ner_tags": [draw.choice(["O", "B-X", "I-X"]) for _ in tokens]}


def entailed(draw: random.Random, number: int) -> dict[str, Any]:
    texts = {"premise": f"{sentence(draw, 5)} {number}", "hypothesis": sentence(draw, 3)}
    return texts | {"label": ["entailment", "neutral", "contradiction"][number % 3]}


def translated(draw: random.Random, number: int) -> dict[str, Any]:
    return {"de": f"{sentence(draw, 6)} ({number})", "en": f"{sentence(draw, 6)} {number}"}


def answered(draw: random.Random, number: int) -> dict[str, Any]:
    return {"question": f"{sentence(draw)} {number}?", "answer": sentence(draw, 2), "source_file": f"faq{number}.md"}


def flagged(draw: random.Random, number: int) -> dict[str, Any]:
    return {
        "comment": f"{sentence(draw)} {number}",
        "toxic": number % 2,
        "rude": number // 2 % 2,
        "spam": number % 3 % 2,
    }


def scored(draw: random.Random, number: int) -> dict[str, Any]:
    return {"sentence1": sentence(draw, 3), "sentence2": sentence(draw, 3), "score": draw.random() * 5}


def genres(draw: random.Random, number: int) -> dict[str, Any]:
    return {"plot": f"{sentence(draw)} {number}", "genres": ["war", "love"][: 1 + number % 2]}


def matched(draw: random.Random, number: int) -> dict[str, Any]:
    return {"anchor": f"{sentence(draw)} {number}", "positive": f"{sentence(draw, 5)} {number}"}


def contrasted(draw: random.Random, number: int) -> dict[str, Any]:
    texts = {"query": f"{sentence(draw)} {number}", "positive": sentence(draw, 6), "negative": sentence(draw, 6)}
    return texts


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], encoding: str = "utf-8") -> str:
    with path.open("w", encoding=encoding, newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        table.writeheader()
        table.writerows(rows)
    return str(path)


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return str(path)


def write_text(path: Path, paragraphs: int) -> str:
    rows = made(paragraphs, lambda draw, number: {"text": f"{sentence(draw)}\n{sentence(draw)} {number}."})
    path.write_text("\n\n".join(row["text"] for row in rows) + "\n", encoding="utf-8")
    return str(path)
