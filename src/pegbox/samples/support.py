"""Support: what customers of a builder ask, and the answer to each, in English.

Source: zaragoza-construction-faq 1.2.1, 503 questions about building in Sweden, each with a category, an answer and the
law that it stands on. Licence: CC BY 4.0 (`License:` in its `METADATA`, `__license__` in its code). The attribution that
it asks for: "Swedish Construction FAQ by Zaragoza AB, CC BY 4.0. https://github.com/zaragoza-ab/swedish-construction-faq-1000".
"""

from __future__ import annotations

import json
import zipfile

from pegbox.archives import Archive, fetch
from pegbox.samples.sample import Row, Sample, shuffled

FAQ = Archive("zaragoza-construction-faq", "1.2.1", "716a1999dd5ad8494c6a4e47d3510f017aa767ea9e55d3b348b0ad70b0e8d3d7")
FILE = "zaragoza_construction_faq/data/faq-en.jsonl"


def answers() -> list[Row]:
    """The rows of `answered`. Raises RecipeError where the package cannot be had."""
    with zipfile.ZipFile(fetch(FAQ, "questions and answers (CC BY 4.0)", "sample support-answers")) as archive:
        return shuffled(answered(archive.read(FILE).decode("utf-8")))


def answered(text: str) -> list[Row]:
    """A customer's question -> its answer, of a file with a JSON object a line."""
    return [{"text": one["q"], "text_pair": one["a"]} for one in map(json.loads, text.strip().split("\n"))]


ANSWERS = Sample(
    about="a customer's question -> the answer to it",
    task="embedding",
    package=FAQ.pinned,
    licence="CC-BY-4.0",
    attribution="Swedish Construction FAQ by Zaragoza AB, github.com/zaragoza-ab/swedish-construction-faq-1000",
    rows=answers,
)
