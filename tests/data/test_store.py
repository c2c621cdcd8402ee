"""What was written comes back as it was, in any order, without the rest of the file in memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pegbox.data.records import (
    Content,
    Conversation,
    Example,
    LabelledText,
    LabelSetText,
    Message,
    PlainText,
    Preference,
    PromptCompletion,
    Record,
    ScoredText,
    SourceTarget,
    TaggedWords,
    ToolCall,
)
from pegbox.data.store import Stored, Writer, dump_example, dump_record, load_example, load_record

TEXT = st.text(max_size=20)
WEIGHT = st.sampled_from([0.0, 1.0, 0.3, 1e-9, 1000.0])
MESSAGES = st.builds(
    Message,
    st.sampled_from(["user", "assistant"]),
    TEXT,
    WEIGHT,
    trained=st.none() | st.just(((0, 1), (3, 4))),
    tool_calls=st.lists(st.builds(ToolCall, TEXT, TEXT), max_size=2).map(tuple),
)
CHATS = st.builds(Conversation, st.lists(MESSAGES, max_size=3).map(tuple), tools=st.lists(TEXT, max_size=1).map(tuple))
CONTENTS: st.SearchStrategy[Content] = st.one_of(
    CHATS,
    st.builds(PromptCompletion, TEXT, TEXT),
    st.builds(PlainText, TEXT),
    st.builds(LabelledText, TEXT, TEXT, st.none() | TEXT),
    st.builds(LabelSetText, TEXT, st.lists(TEXT).map(tuple)),
    st.builds(ScoredText, TEXT, st.dictionaries(TEXT, st.floats(allow_nan=False, allow_infinity=False))),
    st.builds(TaggedWords, st.lists(TEXT).map(tuple), st.lists(TEXT).map(tuple)),
    st.builds(SourceTarget, TEXT, TEXT),
    st.builds(Preference, CHATS, CHATS),
)
RECORDS = st.builds(Record, TEXT, CONTENTS, st.none() | TEXT, st.none() | TEXT)
IDS = st.lists(st.integers(0, 2**31 - 1), max_size=9).map(tuple)
FLOATS = st.lists(st.floats(allow_nan=False), max_size=4).map(tuple)
EXAMPLES = st.builds(Example, TEXT, IDS, st.lists(WEIGHT, max_size=9).map(tuple), FLOATS, IDS, IDS)


@given(RECORDS)
def test_a_record_comes_back(record: Record) -> None:
    assert load_record(dump_record(record)) == record


@given(EXAMPLES)
def test_an_example_comes_back(example: Example) -> None:
    assert load_example(dump_example(example)) == example


def written(folder: Path, count: int, size: int = 5) -> Stored[Example]:
    with Writer(folder / "examples.bin", dump_example) as writer:
        for row in range(count):
            assert writer.append(Example(f"x:{row}", (row,) * size)) == row
    return Stored.open(folder / "examples.bin", load_example)


def test_rows_are_read_in_any_order_as_a_list_would_give_them(tmp_path: Path) -> None:
    stored = written(tmp_path, 1000)
    rows = list(stored)
    assert [row.where for row in rows] == [f"x:{row}" for row in range(1000)]
    assert stored[7] == rows[7] and stored[-1] == rows[-1]
    assert list(stored[10:900:7]) == rows[10:900:7]
    chosen = [5, 999, 5, 0, 3]
    assert list(stored.take(chosen)) == [rows[row] for row in chosen]
    assert list(stored.take([1, 2, 3, 4]).take([2, 3])) == rows[3:5]
    assert stored.take(np.arange(1000) % 2 == 0) == rows[::2]
    assert stored != rows[1:] and len(stored.take([])) == 0 and list(stored.take([])) == []


def test_what_is_being_written_can_be_read_already(tmp_path: Path) -> None:
    with Writer(tmp_path / "examples.bin", dump_example) as writer:
        writer.append(Example("a", (1,)))
        so_far = writer.stored(load_example)
        writer.append(Example("b", (2,)))
        assert [example.where for example in so_far] == ["a"]
        assert [example.where for example in writer.stored(load_example)] == ["a", "b"]


def test_memory_does_not_hold_what_the_file_does(tmp_path: Path) -> None:
    stored = written(tmp_path, 2000, 2000)  # 16 MB
    tracemalloc.start()
    assert sum(len(example) for example in stored) == 4_000_000
    assert sum(len(stored[row]) for row in range(0, 2000, 3)) > 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6  # those that are read at once
