"""Rows of ragged length in any number, made from the words of Python's own documentation; the same for the same seed.

A text follows the words as they follow each other in the docstrings of the standard library's modules (a chain of one
word's memory): the lengths of words and the share of code among them are real, and no two texts are near twins.
"""

from __future__ import annotations

import ast
import json
import random
import sysconfig
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

ASKED, ANSWERED = (3, 15), (2, 12)  # words


def followers() -> dict[str, list[str]]:
    """Each word of the docstrings, with the words that stand behind it, as often as they do."""
    behind: dict[str, list[str]] = defaultdict(list)
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        defined = (ast.Module, ast.ClassDef, ast.FunctionDef)
        texts = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, defined)]
        words = " ".join(texts).split()
        for one, other in pairwise(words):
            behind[one].append(other)
    return behind


def write(path: Path, count: int, seed: int = 0) -> None:
    """`count` rows of a prompt and its completion, as JSONL."""
    behind, draw = followers(), random.Random(seed)
    begin = sorted(behind)

    def text(size: tuple[int, int]) -> str:
        words = [draw.choice(begin)]
        for _ in range(draw.randint(*size) - 1):
            words.append(draw.choice(behind.get(words[-1], begin)))
        return " ".join(words)

    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            file.write(json.dumps({"prompt": text(ASKED), "completion": text(ANSWERED)}) + "\n")
