"""What is told of examples without reading them is what reading them tells; what all begin with is found one by one."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizers import tokenizer

from made_tasks import made_task
from pegbox.data.prepare import Prepared, prepare
from pegbox.data.records import Example
from pegbox.data.render import Renderer
from pegbox.data.sizes import Tally, shared_beginning, sizes_of
from pegbox.data.store import Stored, Writer, dump_example, load_example
from pegbox.models.prefix_tree import shared_prefix
from pegbox.recipe import load

ROWS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6).map(tuple), min_size=1, max_size=5)


def prepared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    monkeypatch.setenv("PEGBOX_CACHE", str(folder / "cache"))
    rows = [{"prompt": f"question {i} " * (1 + i % 7), "completion": f"answer {i} " * (1 + i % 3)} for i in range(200)]
    train = folder / "rows.jsonl"
    train.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = load({"model": "a/b", "task": "chat", "data": {"train": {"path": str(train), "weight": 1.5}}})
    return prepare(recipe, made_task("chat", Renderer(tokenizer("byte_level"))), 500)


def test_the_sizes_of_prepared_rows_are_those_of_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):  # as they are prepared, and as they are found
        made = prepared(tmp_path, monkeypatch)
        for side in (made.train, made.validation, made.train[3:40:2]):
            read, known = list(side), sizes_of(side)
            assert known.tokens.tolist() == [len(example) for example in read]
            assert known.room.tolist() == [example.room for example in read]
            assert known.learnt.tolist() == [sum(weight > 0 for weight in example.loss_weights) for example in read]
            assert all(map(np.array_equal, dataclasses.astuple(known), dataclasses.astuple(sizes_of(read))))


def test_no_row_is_read_for_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = prepared(tmp_path, monkeypatch)
    monkeypatch.setattr(made.train, "_decode", lambda data: pytest.fail("read"))
    assert len(sizes_of(made.train).tokens) == len(made.train)


def test_sizes_in_another_order_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Tally.columns
    monkeypatch.setattr(Tally, "columns", lambda self: {name: row[::-1] for name, row in right(self).items()})
    with pytest.raises(AssertionError):
        test_the_sizes_of_prepared_rows_are_those_of_the_rows(tmp_path, monkeypatch)


def examples(rows: Sequence[tuple[int, ...]]) -> list[Example]:
    return [Example("row", ids, (1.0,) * len(ids)) for ids in rows]


@given(ROWS)
def test_what_all_begin_with_is_what_a_pack_would_share(rows: list[tuple[int, ...]]) -> None:
    assert shared_beginning(examples(rows)) == max(0, shared_prefix(rows))


def test_what_all_begin_with_is_found_with_one_row_in_memory(tmp_path: Path) -> None:
    with Writer(tmp_path / "rows.bin", dump_example) as file:
        for number in range(2_000):
            file.append(Example(f"row {number}", (*range(24), *range(1_000, 1_100), number), (1.0,) * 125))
    stored = Stored.open(tmp_path / "rows.bin", load_example)
    assert shared_beginning(stored) == 124
    tracemalloc.start()
    shared_beginning(stored)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken < 1_000_000  # all rows at once would be more than 6 MB
