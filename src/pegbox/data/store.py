"""Rows on disk: what has been understood and what has been encoded, read back one by one, so that memory stays flat.

A file of byte strings one behind another and an array of where each ends; nothing is mapped into memory, for the pages
of a map count as memory in use once they have been looked at. A record is kept as JSON, an example in binary:

    sizes of where, input_ids, runs of equal loss_weights, targets, token_labels, token_type_ids, lengths: 7 uint32
    where in UTF-8 | input_ids, token_labels, token_type_ids, lengths: int32 | runs (weight, how often), targets: float64
"""

from __future__ import annotations

import json
import os
import struct
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain, groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar, get_args, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from pegbox.data.records import Content, Example, Record

T = TypeVar("T")
HEAD = struct.Struct("<7I")
Columns = Mapping[str, NDArray[np.int64]]
NOTHING: Columns = MappingProxyType({})
AHEAD = 256  # rows read at once where they are read in order


class Stored(Sequence[T], Generic[T]):
    """Things in a file, some of them or all, in the order of `rows` (int64 [n], their numbers in the file).

    `columns`: what is known of each thing without reading it, by its number in the file.
    """

    def __init__(
        self,
        path: Path,
        decode: Callable[[bytes], T],
        ends: NDArray[np.int64],
        rows: NDArray[np.int64],
        columns: Columns = NOTHING,
    ) -> None:
        self.path, self._decode, self._ends, self.rows, self.columns = path, decode, ends, rows, columns
        self._file = os.open(path, os.O_RDONLY)

    @classmethod
    def open(cls, path: Path, decode: Callable[[bytes], T], columns: Columns = NOTHING) -> Stored[T]:
        """All that a `Writer` wrote to `path`."""
        ends = np.load(_ends(path), allow_pickle=False)
        return cls(path, decode, ends, np.arange(len(ends)), columns)

    def take(self, rows: NDArray[np.int64] | Sequence[int]) -> Stored[T]:
        """Those at these places (ints, or a mask of truths), in this order."""
        chosen = self.rows[np.asarray(rows, None if len(rows) else np.int64)]
        return Stored(self.path, self._decode, self._ends, chosen, self.columns)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Stored[T]: ...
    def __getitem__(self, index: int | slice) -> T | Stored[T]:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        row = int(self.rows[index])
        begin = int(self._ends[row - 1]) if row else 0
        return self._decode(os.pread(self._file, int(self._ends[row]) - begin, begin))

    def __iter__(self) -> Iterator[T]:
        for first in range(0, len(self), AHEAD):
            rows = self.rows[first : first + AHEAD]
            if (
                len(rows) and rows[-1] - rows[0] == len(rows) - 1
            ):  # one behind another (they never stand twice in a run)
                yield from self._run(int(rows[0]), int(rows[-1]))
            else:
                yield from (self[first + place] for place in range(len(rows)))

    def _run(self, first: int, last: int) -> Iterator[T]:
        begin = int(self._ends[first - 1]) if first else 0
        data = os.pread(self._file, int(self._ends[last]) - begin, begin)
        start = 0
        for end in (self._ends[first : last + 1] - begin).tolist():
            yield self._decode(data[start:end])
            start = end

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Sequence)
            and len(self) == len(other)
            and all(a == b for a, b in zip(self, other, strict=True))
        )

    __hash__ = None  # type: ignore[assignment]

    _close = staticmethod(os.close)  # where the interpreter ends, the name `os` may be gone before this is

    def __del__(self) -> None:
        self._close(self._file)


class Writer(Generic[T]):
    """Appends things to a new file; used as a context, behind which `Stored.open` can read them."""

    def __init__(self, path: Path, encode: Callable[[T], bytes]) -> None:
        self.path, self._encode, self._file = path, encode, path.open("xb")
        self._ends = array("q")

    def append(self, thing: T) -> int:
        """Write one; its number in the file."""
        self._file.write(self._encode(thing))
        self._ends.append(self._file.tell())
        return len(self._ends) - 1

    def stored(self, decode: Callable[[bytes], T]) -> Stored[T]:
        """All that has been written so far; more may follow."""
        self._file.flush()
        ends = np.array(self._ends, np.int64)
        return Stored(self.path, decode, ends, np.arange(len(ends)))

    def __enter__(self) -> Writer[T]:
        return self

    def __exit__(self, *_: object) -> None:
        """Everything is on disk."""
        self._file.close()
        np.save(_ends(self.path), np.array(self._ends, np.int64))


def _ends(path: Path) -> Path:
    return path.with_suffix(".ends.npy")


# ---- records ---------------------------------------------------------------------------------------------------------


@cache
def _adapters() -> dict[str, TypeAdapter[Any]]:
    return {kind.__name__: TypeAdapter(kind) for kind in get_args(Content)}


def dump_record(record: Record) -> bytes:
    """The record, as a line of JSON about it and one of what it holds."""
    kind = type(record.content).__name__
    about = json.dumps([kind, record.where, record.group, record.sensitive], ensure_ascii=False)
    return about.encode() + b"\n" + _adapters()[kind].dump_json(record.content)


def load_record(data: bytes) -> Record:
    """What `dump_record` wrote."""
    about, _, content = data.partition(b"\n")
    kind, where, group, sensitive = json.loads(about)
    return Record(where, _adapters()[kind].validate_json(content), group, sensitive)


# ---- examples --------------------------------------------------------------------------------------------------------


def dump_example(example: Example) -> bytes:
    """The example in the binary form above."""
    where = example.where.encode()
    runs = [(weight, float(len(list(same)))) for weight, same in groupby(example.loss_weights)]
    ids, targets, labels, types = example.input_ids, example.targets, example.token_labels, example.token_type_ids
    lengths = example.lengths
    head = HEAD.pack(len(where), len(ids), len(runs), len(targets), len(labels), len(types), len(lengths))
    whole = array("i", chain(ids, labels, types, lengths))
    numbers = array("d", chain(chain.from_iterable(runs), targets))
    return head + where + whole.tobytes() + numbers.tobytes()


def load_example(data: bytes) -> Example:
    """What `dump_example` wrote."""
    named, ids, runs, _, labels, types, lengths = HEAD.unpack_from(data)
    at = HEAD.size + named
    whole, numbers = array("i"), array("d")
    middle = at + whole.itemsize * (ids + labels + types + lengths)
    whole.frombytes(data[at:middle])
    numbers.frombytes(data[middle:])
    weights = chain.from_iterable([numbers[i]] * int(numbers[i + 1]) for i in range(0, 2 * runs, 2))
    return Example(
        data[HEAD.size : at].decode(),
        tuple(whole[:ids]),
        tuple(weights),
        tuple(numbers[2 * runs :]),
        tuple(whole[ids : ids + labels]),
        tuple(whole[ids + labels : ids + labels + types]),
        tuple(whole[ids + labels + types :]),
    )
