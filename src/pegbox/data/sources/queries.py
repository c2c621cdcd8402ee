"""The rows of a query to a SQLite database: one SELECT, and nothing but reading.

Four things keep it so, each by itself: the file is opened for reading (`mode=ro`), the connection refuses to write
(`query_only`), functions with effects are not to be called from within the file (`trusted_schema`), and an authorizer
allows a statement nothing but to select. The rows are of one moment, whatever others write meanwhile. Their places are
their numbers, which only an ORDER BY keeps.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from pegbox.data.cells import listed
from pegbox.data.records import Row
from pegbox.data.sources.columnar import plain
from pegbox.data.sources.outcomes import MalformedRow
from pegbox.errors import DataError, PegboxError, RecipeError
from pegbox.recipe.sources import QuerySource

PATIENCE = 5.0  # seconds that another program may hold the database
READS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
# steps of reading a full-text table or json_each; no statement of a user gets further by them
INSIDE = {(sqlite3.SQLITE_UPDATE, "sqlite_master"), (sqlite3.SQLITE_PRAGMA, "data_version")}
EFFECTS = {"load_extension", "readfile", "writefile", "edit", "fsdir", "fts3_tokenizer"}  # of functions, in any build
ONE_SELECT = "give one SELECT (WITH ... SELECT is one); it can only read"
INTACT = "check that it is a SQLite database, and whole (PRAGMA integrity_check)"
BUSY = "wait until the program that writes to it is done, or copy the database"
RIGHTS = "check the rights to read it, and to its folder: where others write to it, SQLite keeps files beside it"
FAULTS = {sqlite3.SQLITE_CORRUPT: INTACT, sqlite3.SQLITE_NOTADB: INTACT, sqlite3.SQLITE_IOERR: INTACT}
FAULTS |= {sqlite3.SQLITE_BUSY: BUSY, sqlite3.SQLITE_LOCKED: BUSY}
FAULTS |= {sqlite3.SQLITE_CANTOPEN: RIGHTS, sqlite3.SQLITE_READONLY: RIGHTS, sqlite3.SQLITE_PERM: RIGHTS}


def read_query(source: QuerySource) -> Iterator[Row | MalformedRow]:
    """The rows of the query, one after the other; the place of a row is its number. Texts that are not UTF-8 and BLOBs
    make a row malformed.

    Raises DataError for what is no database, is locked or damaged, or has not the tables and columns that are asked
    for; RecipeError for a query that is none, does more than read, or names two columns alike.
    """
    path = Path(source.path)
    if not path.is_file():
        raise DataError("no such database", where=source.path, cure="check the path")
    try:
        with closing(_opened(path)) as database:
            try:
                cursor = database.execute(source.query)
                names = _names(cursor, source)
                yield from _rows(cursor, names, source.path)
            except (sqlite3.Error, sqlite3.Warning) as error:
                raise _explained(error, database, source) from None
    except sqlite3.Error as error:
        raise _unreadable(error, source.path) from None


def _opened(path: Path) -> sqlite3.Connection:
    """The database, which nothing that is executed from now on can change. Raises sqlite3.Error where it is none."""
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=PATIENCE, isolation_level=None)
    try:
        database.execute("PRAGMA query_only = ON")
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute("SELECT count(*) FROM sqlite_master").fetchone()  # is it a database at all?
    except BaseException:
        database.close()
        raise
    database.text_factory = _decoded
    database.set_authorizer(_only_reading)
    return database


def _only_reading(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    """SQLite asks this of each step that a statement is made of."""
    harmless = action == sqlite3.SQLITE_FUNCTION and second not in EFFECTS
    return sqlite3.SQLITE_OK if action in READS or (action, first) in INSIDE or harmless else sqlite3.SQLITE_DENY


def _decoded(raw: bytes) -> str | bytes:
    """A text; the bytes where they are none, so that the row is refused and not the whole query."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw


def _names(cursor: sqlite3.Cursor, source: QuerySource) -> list[str]:
    if cursor.description is None:
        raise RecipeError("the query gives no rows", where=f"query of {source.path}", cure=ONE_SELECT)
    names = [column[0] for column in cursor.description]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        what = f"the query gives a column of the name {twice[0]!r} twice"
        raise RecipeError(what, where=f"query of {source.path}", cure="name the columns: SELECT a.id AS first, ...")
    return names


def _rows(cursor: sqlite3.Cursor, names: list[str], path: str) -> Iterator[Row | MalformedRow]:
    for number, cells in enumerate(cursor, start=1):
        where = f"{path}:{number}"
        try:
            yield Row(where, {name: plain(cell, name) for name, cell in zip(names, cells, strict=True)})
        except ValueError as error:
            yield MalformedRow(where, str(error))


def _explained(error: Exception, database: sqlite3.Connection, source: QuerySource) -> PegboxError:
    """What is wrong with the query, or with the database for it."""
    said, place, code = str(error), f"query of {source.path}", _code(error)
    if code == sqlite3.SQLITE_AUTH or said.startswith("not authorized"):
        return RecipeError(f"the query does more than read ({said})", where=place, cure=ONE_SELECT)
    if said.startswith(("no such table", "no such column")):
        asked = database.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name")
        return DataError(said, where=place, cure=f"its tables are: {listed(str(name) for (name,) in asked)}")
    if code in FAULTS:
        return _unreadable(error, source.path)
    return RecipeError(f"not a query that can be answered: {said}", where=place, cure=ONE_SELECT)


def _unreadable(error: Exception, where: str) -> DataError:
    return DataError(f"cannot be read: {error}", where=where, cure=FAULTS.get(_code(error), INTACT))


def _code(error: Exception) -> int:
    """SQLite's own number of what went wrong, without its details; 0 for what Python's module found itself."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
