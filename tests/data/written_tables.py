"""Arrow tables as the bytes of each kind of file that pegbox reads."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pyarrow
from pyarrow import feather, ipc, parquet


def to_parquet(table: Any) -> bytes:
    out = io.BytesIO()
    parquet.write_table(table, out, row_group_size=max(1, min(len(table), 700)))
    return out.getvalue()


def to_arrow(table: Any) -> bytes:
    out = io.BytesIO()
    with ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table, max_chunksize=1000)
    return out.getvalue()


def to_feather(table: Any) -> bytes:
    out = pyarrow.BufferOutputStream()
    feather.write_feather(table, out)
    return bytes(out.getvalue())


TABLES: dict[str, Callable[[Any], bytes]] = {".parquet": to_parquet, ".arrow": to_arrow, ".feather": to_feather}
