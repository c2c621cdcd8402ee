"""A query to a SQLite database gives its rows, one by one, and can do nothing but read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pegbox.data.records import Row
from pegbox.data.sources import MalformedRow, queries, read
from pegbox.errors import DataError, PegboxError, RecipeError
from pegbox.recipe.sources import QuerySource


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "sh op?#%20.db"  # what has a meaning in an address
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE reviews (id INTEGER, review TEXT, stars REAL)")
        database.executemany("INSERT INTO reviews VALUES (?, ?, ?)", [(3, "c", 1.5), (1, "a", None), (2, "b", 4.0)])
        database.execute("CREATE VIEW good AS SELECT review AS text FROM reviews WHERE stars > 2")
        database.execute("CREATE VIRTUAL TABLE words USING fts5(body)")
        database.execute("INSERT INTO words VALUES ('hello world'), ('good bye')")
        database.commit()
        yield str(path)


def rows_of(path: str, query: str) -> list[Row | MalformedRow]:
    return list(read([QuerySource(path=path, query=query)]))


def values_of(path: str, query: str) -> list[object]:
    return [row.values if isinstance(row, Row) else row.why for row in rows_of(path, query)]


# ---- rows ------------------------------------------------------------------------------------------------------------


def test_a_row_has_the_querys_columns_and_its_number(shop: str) -> None:
    assert rows_of(shop, "SELECT review AS text, stars FROM reviews ORDER BY id") == [
        Row(f"{shop}:1", {"text": "a", "stars": None}),
        Row(f"{shop}:2", {"text": "b", "stars": 4.0}),
        Row(f"{shop}:3", {"text": "c", "stars": 1.5}),
    ]


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("SELECT * FROM good", [{"text": "b"}]),
        ("WITH few AS (SELECT id FROM reviews) SELECT max(id) AS most FROM few", [{"most": 3}]),
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT i FROM n", [{"i": 1}, {"i": 2}, {"i": 3}]),
        ("SELECT body FROM words WHERE words MATCH 'hello'", [{"body": "hello world"}]),
        ("SELECT value FROM json_each('[5]')", [{"value": 5}]),
        ("-- a comment\nSELECT upper(review) AS a FROM reviews WHERE id = 1;", [{"a": "A"}]),
        ("SELECT review FROM reviews WHERE 0", []),
    ],
)  # fmt: skip
def test_every_kind_of_select_is_answered(shop: str, query: str, rows: list[object]) -> None:
    assert values_of(shop, query) == rows


@pytest.mark.parametrize("value", ["x'00ff'", "CAST(x'c328' AS TEXT)", "9e999"])
def test_what_is_no_text_and_no_number_makes_one_row_malformed(shop: str, value: str) -> None:
    before, refused, behind = rows_of(shop, f"SELECT 1 AS a UNION ALL SELECT {value} UNION ALL SELECT 2")
    assert (before, behind) == (Row(f"{shop}:1", {"a": 1}), Row(f"{shop}:3", {"a": 2}))
    assert isinstance(refused, MalformedRow)
    assert refused.where == f"{shop}:2"
    assert "'a'" in refused.why


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False),
            st.text(st.characters(codec="utf-8"), max_size=20),
        )
    )
)
def test_values_come_out_as_they_went_in(tmp_path: Path, rows: list[tuple[object, str]]) -> None:
    path = tmp_path / "any.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript("DROP TABLE IF EXISTS t; CREATE TABLE t (a, b)")
        database.executemany("INSERT INTO t VALUES (?, ?)", rows)
        database.commit()
    assert values_of(str(path), "SELECT a, b FROM t ORDER BY rowid") == [{"a": a, "b": b} for a, b in rows]


def test_rows_are_read_as_they_are_asked_for(shop: str) -> None:
    """Ten billion rows, of which one is looked at."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000000000) SELECT i FROM n"
    assert next(iter(read([QuerySource(path=shop, query=endless)]))) == Row(f"{shop}:1", {"i": 1})


# ---- only reading ----------------------------------------------------------------------------------------------------

WRITES = [
    "INSERT INTO reviews VALUES (4, 'd', 1)",
    "INSERT INTO reviews VALUES (4, 'd', 1) RETURNING id",
    "UPDATE reviews SET stars = 1",
    "DELETE FROM reviews RETURNING id",
    "DROP TABLE reviews",
    "CREATE TABLE other (a)",
    "CREATE TEMP TABLE other (a)",
    "ATTACH 'other.db' AS other",
    "PRAGMA user_version = 5",
    "PRAGMA user_version",
    "SELECT * FROM pragma_table_info('reviews')",
    "SELECT load_extension('other')",
    "VACUUM",
    "VACUUM INTO 'other.db'",
    "BEGIN IMMEDIATE",
    "UPDATE sqlite_master SET name = 'other'",
    "INSERT INTO words(words) VALUES ('optimize')",
    "REINDEX",
]


@pytest.mark.parametrize("query", WRITES)
def test_what_does_more_than_read_is_refused_and_changes_nothing(
    shop: str, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(shop).parent)
    before = Path(shop).read_bytes()
    with pytest.raises(RecipeError):
        rows_of(shop, query)
    assert Path(shop).read_bytes() == before
    assert [path.name for path in Path(shop).parent.iterdir()] == [Path(shop).name]


@pytest.mark.parametrize(
    "query", [query for query in WRITES if query.split()[0] in ("INSERT", "UPDATE", "DELETE", "DROP", "CREATE")]
)
def test_nothing_is_written_even_without_the_authorizer(shop: str, query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "_only_reading", lambda *_: sqlite3.SQLITE_OK)
    before = Path(shop).read_bytes()
    if "TEMP" not in query:
        with pytest.raises(PegboxError):
            rows_of(shop, query)
    assert Path(shop).read_bytes() == before


# ---- queries and databases that are refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT 1; SELECT 2", "one statement"),
        ("SELECT id, review AS id FROM reviews", "'id' twice"),
        ("SELEC id FROM reviews", "syntax error"),
        ("SELECT 'a", "unrecognized token"),
        ("SELECT id FROM", "incomplete input"),
        ("SELECT ?", "bindings"),
        ("SELECT none_such(id) FROM reviews", "no such function"),
        ("-- nothing", "no rows"),
    ],
)
def test_a_query_that_is_none_is_refused_with_a_cure(shop: str, query: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said) as refused:
        rows_of(shop, query)
    assert refused.value.cure


@pytest.mark.parametrize("query", ["SELECT id FROM review", "SELECT text FROM reviews"])
def test_a_table_or_column_that_is_missing_is_refused_with_the_tables_there_are(shop: str, query: str) -> None:
    with pytest.raises(DataError, match=r"no such .*\n.*its tables are: good, reviews, words"):
        rows_of(shop, query)


def damaged(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE t (a)")
        database.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 200)
        database.commit()
    content = bytearray(path.read_bytes())
    content[4096:-4096] = b"\xaa" * (len(content) - 8192)
    path.write_bytes(content)


def test_what_is_no_database_or_damaged_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database\n" * 1000, encoding="utf-8")
    damaged(tmp_path / "damaged.db")
    for name, said in {
        "text.db": "not a database",
        "damaged.db": "malformed",
        "gone.db": "no such database",
        ".": "no such database",
    }.items():
        with pytest.raises(DataError, match=said) as refused:
            rows_of(str(tmp_path / name), "SELECT a FROM t")
        assert refused.value.cure
        assert refused.value.where == str(tmp_path / name)


def test_a_database_that_another_holds_is_waited_for_and_then_refused(
    shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "PATIENCE", 0.05)
    with closing(sqlite3.connect(shop)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DataError, match=r"locked\n.*wait until"):
            rows_of(shop, "SELECT id FROM reviews")
        other.rollback()
    assert len(rows_of(shop, "SELECT id FROM reviews")) == 3


def test_rows_that_another_program_writes_meanwhile_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("CREATE TABLE t (a)")
        other.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(5000)])
        other.commit()
        rows = iter(read([QuerySource(path=str(path), query="SELECT a FROM t")]))
        next(rows)
        other.execute("INSERT INTO t SELECT a FROM t")
        other.commit()
        assert sum(1 for _ in rows) == 4999
