"""Memory and speed of reading: 100 thousand against 2 million rows of each kind, each in a process of its own.

Prints a JSON object a line: rows per second, and the most that the process held, in MB (Linux): the imports are in it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pyarrow
from pyarrow import ipc, parquet

from pegbox.data.sources import read

KINDS = ("jsonl", "json", "csv", "parquet", "arrow", "txt", "jsonl.gz", "csv.zst", "csv.zip")


def peak() -> float:
    """MB that this process has held at most; `ru_maxrss` would count what held the process that started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def lines(count: int, kind: str) -> Iterator[str]:
    """A file's text, row by row."""
    yield {"csv": "text,label\n", "json": "[\n"}.get(kind, "")
    for number in range(count):
        text, label = f"the customer {number * 7919} asks about order {number}", f"label {number % 7}"
        row = json.dumps({"text": text, "label": label})
        mark = "" if number == count - 1 else ","
        yield {"csv": f"{text},{label}\n", "json": f"{row}{mark}\n", "txt": f"{text}\n\n"}.get(kind, f"{row}\n")
    yield {"json": "]\n"}.get(kind, "")


def write(path: Path, count: int) -> None:
    """A file of `count` rows of the kind that its name says."""
    kind, packed = path.suffixes[0][1:], path.suffixes[-1]
    if kind in ("parquet", "arrow"):
        _write_table(path, count)
        return
    raw = (line.encode() for line in lines(count, kind))
    if packed == ".gz":
        with gzip.open(path, "wb", compresslevel=6) as file:
            file.writelines(raw)
    elif packed == ".zst":
        with pyarrow.CompressedOutputStream(str(path), "zstd") as stream:
            for line in raw:
                stream.write(line)
    elif packed == ".zip":
        with ZipFile(path, "w", ZIP_DEFLATED) as archive, archive.open(f"rows.{kind}", "w") as member:
            member.writelines(raw)
    else:
        with path.open("wb") as plain:
            plain.writelines(raw)


def _write_table(path: Path, count: int) -> None:
    table = pyarrow.Table.from_pylist([json.loads(line) for line in lines(count, "jsonl") if line])
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
    else:
        with ipc.new_file(path, table.schema) as file:
            file.write_table(table, max_chunksize=2**16)


def measure(path: str) -> dict[str, object]:
    """Read one file to its end."""
    start = time.perf_counter()
    count = sum(1 for _ in read([path]))
    seconds = time.perf_counter() - start
    kind = Path(path).name.partition(".")[2]
    return {
        "kind": kind,
        "rows": count,
        "rows_per_second": round(count / seconds),
        "peak_mb": round(peak(), 1),
    }


def main() -> None:
    """Write and measure each kind at each size, or measure one file that is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", help="measure this file alone")
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 2_000_000])
    parser.add_argument("--kinds", nargs="+", default=KINDS)
    given = parser.parse_args()
    if given.file:
        print(json.dumps(measure(given.file)), flush=True)
        return
    for kind in given.kinds:
        for count in given.rows:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"rows.{kind}"
                write(path, count)
                subprocess.run([sys.executable, __file__, "--file", str(path)], check=True)


if __name__ == "__main__":
    main()
