"""Batch predictions: a file of rows in, a file of answers out, in the same order, in constant memory.

Answers are kept in `OUT.partial`, one JSON object a line, and become OUT when all are there. Its first line says of
what data and which model it is, so that the same command, started again, goes on where it was stopped. It goes on at
the last whole *chunk*: rows are then batched as they would have been, and the file has the same bytes.

A row that cannot be answered (malformed, too long) does not stop the others, hours into a long file: its line says why
under "error", and the command ends in a DataError (exit code 3) that counts such rows, once OUT is written.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

from pegbox.data.records import Record, Row
from pegbox.data.sources import MalformedRow, read
from pegbox.errors import DataError, RecipeError
from pegbox.finished.answer_files import Line, as_json, in_groups, writer_for
from pegbox.finished.run import Run
from pegbox.progress import bar
from pegbox.runs import checkpoint, receipt
from pegbox.tasks.base import Advance

STANDARD = "-"  # the name of stdin (rows as JSONL) and of stdout (answers as JSONL, nothing kept)
CHUNK = 256  # rows answered before they are kept: four batches, sorted by length

log = logging.getLogger("pegbox")


def predict(run_dir: str | Path, data: str | Path, out: str | Path, *, rows_at_once: int = CHUNK) -> int:
    """Answer the rows of a file with the tuned model, into a new file; returns their number.

    `data` is any format that training reads, `out` is written by its ending (.jsonl, .json, .csv, .tsv, .parquet);
    "-" is stdin or stdout. Raises RecipeError where `out` exists already or was begun with other data or another model,
    DataError where the data cannot be read, and at the end where some rows could not be answered.
    """
    run = Run(run_dir)
    run.refuse_unfinished()
    with _on_disk(str(data)) as (file, name):
        if str(out) == STANDARD:
            total, refused = _count(file), 0

            def show(lines: Sequence[Line]) -> None:
                nonlocal refused
                refused += sum("error" in line for line in lines)
                print("\n".join(map(as_json, lines)), flush=True)

            _answer(run, _rows(file, name), total, show, rows_at_once)
        else:
            total, refused = _predict_to_file(run, file, name, Path(out), rows_at_once)
    if refused:
        cure = 'their lines say why under "error"; mend these rows and predict them alone'
        raise DataError(f"{refused} of {total} rows could not be answered", where=str(out), cure=cure)
    return total


def _predict_to_file(run: Run, file: Path, name: str, out: Path, rows_at_once: int) -> tuple[int, int]:
    """How many rows there are, and how many of them could not be answered."""
    write = writer_for(out)
    _refuse_used(out)
    total = _count(file)
    model = [*checkpoint.hashes(run.folder.model), ("recipe", checkpoint.sha256(run.path / "recipe.yaml"))]
    header = {
        "answers of": "pegbox predict",
        "data": {name: checkpoint.sha256(file)},
        "model": receipt.text_hash(json.dumps([model, run.receipt["model"]["files"]])),
        "rows_at_once": rows_at_once,
    }
    with Partial(out.with_name(f"{out.name}.partial"), header, rows_at_once) as partial:
        try:
            rows = islice(_rows(file, name), partial.done, None)
            _answer(run, rows, total - partial.done, partial.add, rows_at_once)
        except KeyboardInterrupt:
            told = "stopped; %d of %d answers are kept in %s, and the same command goes on from there"
            log.warning(told, partial.done, total, partial.path)
            raise
        draft, refused = out.with_name(f".{out.name}.tmp"), 0

        def counted() -> Iterator[Line]:
            nonlocal refused
            for line in partial.lines():
                refused += "error" in line
                yield line

        write(counted(), draft)
    with draft.open("rb") as written:
        os.fsync(written.fileno())
    _refuse_used(out)
    draft.replace(out)
    partial.path.unlink()
    return total, refused


def _refuse_used(out: Path) -> None:
    if out.exists():
        raise RecipeError("the file exists already", where=str(out), cure="give a new name with --out")
    if not out.parent.is_dir():
        raise RecipeError("the folder does not exist", where=str(out.parent), cure="make it first")


@contextmanager
def _on_disk(data: str) -> Iterator[tuple[Path, str]]:
    """The file to read and its name in ids. What comes from stdin is put into a file first, to be counted."""
    if data != STANDARD:
        yield Path(data), data
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stdin.jsonl"
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield path, "stdin"


def _count(file: Path) -> int:
    return sum(1 for _ in read([str(file)]))


def _rows(file: Path, name: str) -> Iterator[Row | MalformedRow]:
    """The rows with their places in the file as the user knows it."""
    for row in read([str(file)]):
        where = name + row.where.removeprefix(str(file))
        yield Row(where, row.values) if isinstance(row, Row) else MalformedRow(where, row.why)


def _answer(
    run: Run,
    rows: Iterator[Row | MalformedRow],
    count: int,
    keep: Callable[[Sequence[Line]], None],
    rows_at_once: int,
) -> None:
    with bar("predicting", count) as shown:
        for chunk in in_groups(rows, rows_at_once):
            keep(_lines(run, chunk, shown.advance))


def _lines(run: Run, rows: Sequence[Row | MalformedRow], advance: Advance) -> list[Line]:
    """The lines of some rows, in order."""
    found = [_understood(run, row) for row in rows]
    records = [record for record in found if isinstance(record, Record)]
    advance(len(found) - len(records))
    answers = iter(run.served(records, advance).answers if records else ())
    return [
        {"id": row.where, "error": record}
        if isinstance(record, str)
        else {"id": row.where, "input": run.task.shown(record), "answer": next(answers)}
        for row, record in zip(rows, found, strict=True)
    ]


def _understood(run: Run, row: Row | MalformedRow) -> Record | str:
    """The record of a row, or why it has none."""
    if isinstance(row, MalformedRow):
        return row.why
    try:
        return run.task_record(row)
    except DataError as error:
        return error.what


class Partial:
    """The answers so far: a first line that says of what, then one line a row, kept a chunk at a time."""

    def __init__(self, path: Path, header: Mapping[str, Any], rows_at_once: int) -> None:
        """Begin the file, or take it up without what is no whole chunk. Raises RecipeError for another's file."""
        self.path, self.done = path, 0
        self.file: IO[bytes] = path.open("r+b" if path.exists() else "w+b")
        with ExitStack() as undo:
            undo.callback(self.file.close)
            self._take_up(f"{as_json(header)}\n".encode(), rows_at_once)
            undo.pop_all()

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, *raised: object) -> None:
        self.file.close()

    def _take_up(self, header: bytes, rows_at_once: int) -> None:
        first = self.file.readline()
        if not header.startswith(first):
            cure = "give another --out, or delete this file to start over"
            raise RecipeError("was begun with other data or another model", where=str(self.path), cure=cure)
        if first != header:  # killed before even that was written
            self.file.seek(0)
            self.file.write(header)
        place = end = len(header)
        for count, line in enumerate(iter(self.file.readline, b""), start=1):
            place += len(line)
            if not _is_whole(line):
                break
            if count % rows_at_once == 0:
                self.done, end = count, place
        self.file.truncate(end)
        self.file.seek(end)

    def add(self, lines: Sequence[Line]) -> None:
        """Keep a chunk: on the disk when this returns."""
        self.file.write("".join(as_json(line) + "\n" for line in lines).encode())
        self.file.flush()
        os.fsync(self.file.fileno())
        self.done += len(lines)

    def lines(self) -> Iterator[Line]:
        """All that has been kept."""
        self.file.seek(0)
        self.file.readline()
        return map(json.loads, self.file)


def _is_whole(line: bytes) -> bool:
    """False for a line that was cut off, or that a crash has left as zeros."""
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False
