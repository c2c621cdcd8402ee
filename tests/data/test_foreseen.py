"""Rows that the tokenizer was asked for ahead become the tokens that they become by themselves, and it is asked once."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from families import FAMILIES, family_tokenizer
from small_tokenizers import FAITHFUL, tokenizer
from transformers import PreTrainedTokenizerBase

from made_tasks import made_task
from pegbox.data.codec import Codec
from pegbox.data.foreseen import ROWS, blocks
from pegbox.data.prepare import prepare
from pegbox.data.records import Content, Conversation, Message, PlainText, PromptCompletion
from pegbox.data.render import Renderer, Tokens
from pegbox.recipe import load

PIECES = ["river", " ", "  ", "\n", "\n\n", "é", "東京", "👩‍🚀", "<|im_end|>", "</s>", "12", "'s", " a b", "\tx", "."]
TOKENIZERS = [*((kind, "small") for kind in FAITHFUL), *((kind, "family") for kind in FAMILIES)]


def made(kind: str, of: str) -> PreTrainedTokenizerBase:
    return tokenizer(kind) if of == "small" else family_tokenizer(kind)


def contents(count: int, seed: int) -> list[Content]:
    """Rows of every kind that is foreseen, some of them with names of controls, some empty, some that are refused."""
    draw = random.Random(seed)

    def text() -> str:
        return "".join(draw.choices(PIECES, k=draw.randrange(8)))

    def talk() -> Conversation:
        turns = [Message("system", text())] * draw.randrange(2)
        for _ in range(draw.randrange(1, 4)):
            turns += [Message("user", text()), Message("assistant", text(), draw.choice([0.0, 1.0]))]
        return Conversation(tuple(turns))

    kinds = (talk, talk, lambda: PromptCompletion(text(), text()), lambda: PlainText(text()))
    return [draw.choice(kinds)() for _ in range(count)]


def encoded(renderer: Renderer, content: Content) -> Tokens | str:
    """The tokens of a row, or why it is refused."""
    try:
        if isinstance(content, Conversation):
            return renderer.conversation(content)
        if isinstance(content, PromptCompletion):
            return renderer.prompt_completion(content)
        assert isinstance(content, PlainText)
        return renderer.plain_text(content.text)
    except ValueError as error:
        return f"refused: {error}"


@pytest.mark.parametrize(("kind", "of"), TOKENIZERS)
def test_what_was_foreseen_is_what_each_row_is_by_itself(kind: str, of: str) -> None:
    rows = contents(60, seed=len(kind))
    alone, ahead = Renderer(made(kind, of)), Renderer(made(kind, of))
    for block in (rows[:25], rows[25:]):
        ahead.foresee(block)
        found = [encoded(ahead, row) for row in block]
        assert found == [encoded(alone, row) for row in block]
    assert any(isinstance(one, Tokens) for one in found)


def test_names_of_controls_that_were_foreseen_as_controls_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Codec.look_ahead

    def mistaken(self: Codec, served: Sequence[str], behind: Sequence[str], learnt: Sequence[str]) -> None:
        right(self, served, behind, learnt)
        self._ahead = {key: self._encoding(key[0], plain=False).ids for key in self._ahead}

    monkeypatch.setattr(Codec, "look_ahead", mistaken)
    with pytest.raises(AssertionError):
        test_what_was_foreseen_is_what_each_row_is_by_itself("byte_level", "small")


def prepared(folder: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> int:
    """How many texts the tokenizer is asked for by themselves while 600 rows are prepared."""
    monkeypatch.setenv("PEGBOX_CACHE", str(folder / "cache"))
    rows = [{"prompt": f"question {i} of {i * i}", "completion": f"answer {i}"} for i in range(600)]
    rows = rows if form != "plain" else [{"text": f"{row['prompt']}: {row['completion']}"} for row in rows]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    asked = []
    one_by_one = Codec._encoding

    def counted(self: Codec, text: str, *, plain: bool) -> object:
        asked.append(text)
        return one_by_one(self, text, plain=plain)

    monkeypatch.setattr(Codec, "_encoding", counted)
    kind = "chat" if form == "chat" else "completion"
    task = made_task(kind, Renderer(tokenizer("byte_level", "default_system")))
    recipe = load({"model": "a/b", "task": kind, "data": str(folder / "rows.jsonl")})
    assert len(prepare(recipe, task, 500).train) > 300
    return len(asked)


@pytest.mark.parametrize("form", ["chat", "completion", "plain"])
def test_no_row_that_is_prepared_asks_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    assert prepared(tmp_path, monkeypatch, form) < 60  # what is found out of the tokenizer and its template


def test_rows_that_ask_by_themselves_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Renderer, "foresee", lambda self, contents: list(contents))
    assert prepared(tmp_path, monkeypatch, "chat") > 600


def test_blocks_hold_every_row_once_in_order() -> None:
    found = list(blocks(range(2 * ROWS + 3)))
    assert [len(block) for block in found] == [ROWS, ROWS, 3]
    assert [row for block in found for row in block] == list(range(2 * ROWS + 3))
