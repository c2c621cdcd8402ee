"""The rows of the workloads: real ones, as files of JSON lines.

conversations  zaragoza-construction-faq (`pegbox.samples.support`), one to four questions and answers a conversation
uniform        Python's standard library, in pieces of as many tokens as the recipe's `max_length`, to the token
docstrings     its functions and the first lines of their docstrings, behind a line that all share
tweets         vaderSentiment's (`pegbox.demo.ratings`), by three labels (`pegbox.demo.opinions`)
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from itertools import cycle
from pathlib import Path
from types import MappingProxyType

from transformers import PreTrainedTokenizerBase

from pegbox.data.render import Renderer
from pegbox.demo.opinions import opinion
from pegbox.demo.ratings import rated
from pegbox.samples import Row, path_of, software

TURNS = (1, 1, 1, 2, 3, 4)  # questions of a conversation: then about half of a padded batch of eight is padding
ASKED = "# What does this function of Python's standard library do? Say it in one sentence.\n"
TWEETS, UNIFORM = 1600, 80  # rows
SEED = 42

Source = Callable[[PreTrainedTokenizerBase, int], Iterator[Row]]


def write(name: str, file: Path, tokenizer: PreTrainedTokenizerBase, length: int) -> None:
    """Write the rows of that name; `length`: the tokens of a row, where all have the same."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in SOURCES[name](tokenizer, length))
    file.write_text("".join(lines), encoding="utf-8", newline="\n")


def conversations(tokenizer: PreTrainedTokenizerBase, length: int) -> Iterator[Row]:
    """As many turns as `TURNS` says, one conversation after another, until no question is left."""
    pairs = _sample("support-answers")
    for turns in cycle(TURNS):
        if len(pairs) < turns:
            return
        told, pairs = pairs[:turns], pairs[turns:]
        spoken = ((("user", pair["text"]), ("assistant", pair["text_pair"])) for pair in told)
        yield {"messages": [{"role": role, "content": text} for turn in spoken for role, text in turn]}


def uniform(tokenizer: PreTrainedTokenizerBase, length: int) -> Iterator[Row]:
    """Pieces of modules that are tokenised into `length` tokens again, with what is put around a text."""
    renderer, found = Renderer(tokenizer), 0
    around = len(renderer.plain_text("").input_ids)
    modules = software.standard_library()
    random.Random(SEED).shuffle(modules)
    for module in modules:
        ids, size = tokenizer(module.source, add_special_tokens=False).input_ids, length - around
        for start in range(0, len(ids) - size + 1, size):
            text = tokenizer.decode(ids[start : start + size])
            if len(renderer.plain_text(text).input_ids) == length:
                yield {"text": text, "group": module.name}
                if (found := found + 1) == UNIFORM:
                    return


def docstrings(tokenizer: PreTrainedTokenizerBase, length: int) -> Iterator[Row]:
    """The sample's rows with the same line before each function."""
    for row in _sample("software-docstrings"):
        yield {**row, "prompt": ASKED + row["prompt"]}


def tweets(tokenizer: PreTrainedTokenizerBase, length: int) -> Iterator[Row]:
    """Some of the tweets, drawn."""
    drawn = [{"text": one.text, "label": opinion(one)} for one in rated("tweets")]
    yield from random.Random(SEED).sample(drawn, TWEETS)


def _sample(name: str) -> list[Row]:
    with path_of(name).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


SOURCES: Mapping[str, Source] = MappingProxyType(
    {"conversations": conversations, "uniform": uniform, "docstrings": docstrings, "tweets": tweets}
)
