"""Parquet, Arrow and Feather: column by column on disk, row by row here, as plain values that JSON can write.

Dates and times become ISO text, decimals numbers (text where a number would not be the same), missing numbers (NaN)
nothing; bytes and infinities are refused. The buffers of a stranger's file are validated before they are looked at:
Arrow itself trusts them.
"""

from __future__ import annotations

import datetime
import math
import mmap
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID

from pegbox.data.records import Row
from pegbox.data.sources.files import File
from pegbox.data.sources.outcomes import MalformedRow, check_names
from pegbox.data.sources.unpacking import Allowance
from pegbox.errors import DataError

AT_ONCE = 512  # rows
CURE = "write it again with pyarrow or pandas"


def read_parquet(file: File) -> Iterator[Row | MalformedRow]:
    """The rows of a Parquet file; the place of a row is its number."""
    from pyarrow import parquet

    def batches(handle: Any) -> tuple[Any, Iterator[Any]]:
        opened = parquet.ParquetFile(handle, buffer_size=2**16)
        return opened.schema_arrow, opened.iter_batches(batch_size=AT_ONCE, use_threads=False)

    return _read(file, "a Parquet file", batches)


def read_arrow(file: File) -> Iterator[Row | MalformedRow]:
    """The rows of an Arrow file or stream (Feather is the former); the place of a row is its number."""
    from pyarrow import ipc

    def batches(handle: Any) -> tuple[Any, Iterator[Any]]:
        start = handle.read(6)
        handle.seek(0)
        if start == b"ARROW1":
            opened = ipc.open_file(handle)
            return opened.schema, (opened.get_batch(number) for number in range(opened.num_record_batches))
        stream = ipc.open_stream(handle)
        return stream.schema, iter(stream)

    return _read(file, "an Arrow file", batches)


def _read(
    file: File, what: str, batches_of: Callable[[Any], tuple[Any, Iterator[Any]]]
) -> Iterator[Row | MalformedRow]:
    import pyarrow

    number = 0
    try:
        held = _held(file)
        with pyarrow.BufferReader(pyarrow.py_buffer(held)) as handle:
            schema, batches = batches_of(handle)
            check_names(schema.names, file.where, "name the columns, each once")
            allowance = Allowance(file.where, len(held))
            for part in (part for batch in batches for part in _parts(batch)):
                allowance.take(part.num_rows)
                for values in _values(part, allowance):
                    number += 1
                    where = f"{file.where}:{number}"
                    yield Row(where, values) if isinstance(values, dict) else MalformedRow(where, values)
                if isinstance(held, mmap.mmap) and sys.platform != "win32":
                    held.madvise(mmap.MADV_DONTNEED)  # what has been read counts as memory of ours until it is let go
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        place = f"{file.where}:{number + 1}" if number else file.where
        raise DataError(f"not {what}, or damaged: {_line(error)}", where=place, cure=CURE) from None


def _held(file: File) -> mmap.mmap | bytes:
    """The bytes of a file, which Arrow reads at any place of it: mapped, or out of an archive into memory."""
    with file.open() as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if file.path else stream.read()


def _parts(batch: Any) -> Iterator[Any]:
    return (batch.slice(start, AT_ONCE) for start in range(0, batch.num_rows, AT_ONCE))


def _values(part: Any, allowance: Allowance) -> Iterator[dict[str, Any] | str]:
    """The values of each row of a batch, or why it cannot be read."""
    try:
        part.validate(full=True)  # before anything else: even to ask for its size is to follow its offsets
        allowance.take(part.nbytes)
        rows = part.to_pylist()
    except (ValueError, OverflowError, LookupError) as error:
        if part.num_rows == 1:
            yield f"not usable values: {_line(error)}"
            return
        for number in range(part.num_rows):  # one of them is to blame
            yield from _values(part.slice(number, 1), allowance)
        return
    for row in rows:
        try:
            yield {name: plain(value, name) for name, value in row.items()}
        except ValueError as error:
            yield str(error)


def plain(value: Any, name: str) -> Any:
    """A value of a column as JSON has it. Raises ValueError where it has none such."""
    match value:
        case None | str() | bool() | int():
            return value
        case float():
            if math.isinf(value):
                raise ValueError(f"'{name}' is infinite, which JSON cannot say")
            return None if math.isnan(value) else value
        case list() | tuple():
            return [plain(item, name) for item in value]
        case dict():
            return {str(key): plain(item, name) for key, item in value.items()}
        case datetime.date() | datetime.time():  # a datetime is a date
            return value.isoformat()
        case datetime.timedelta():
            return value.total_seconds()
        case Decimal():
            return _number(value)
        case UUID():
            return str(value)
    raise ValueError(f"'{name}' holds {type(value).__name__}, which is no text and no number: leave the column out")


def _number(value: Decimal) -> int | float | str:
    if value == value.to_integral_value():
        return int(value)
    return float(value) if Decimal(repr(float(value))) == value else str(value)


def _line(error: Exception) -> str:
    """The first line of a message, which may be long."""
    return str(error).split("\n")[0][:200] or type(error).__name__
