"""Tables are read in the dialect that they are written in, and what was guessed is told; a quote swallows nothing in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from pegbox.data.records import Row
from pegbox.data.sources import MalformedRow, Remark, read

PLAIN = [{"text": "a, b", "label": "x"}, {"text": "c; d", "label": "y"}]


def rows_and_told(folder: Path, name: str, content: str) -> tuple[list[Row | MalformedRow], list[Remark]]:
    path, told = folder / name, list[Remark]()
    path.write_text(content, encoding="utf-8", newline="")
    return list(read([str(path)], told)), told


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv"])
def test_any_delimiter_is_found_and_another_than_the_names_is_told(tmp_path: Path, name: str, delimiter: str) -> None:
    lines = [["text", "label"], *([f'"{row["text"]}"', row["label"]] for row in PLAIN)]
    rows, told = rows_and_told(tmp_path, name, "\n".join(delimiter.join(cells) for cells in lines))
    assert [row.values for row in rows if isinstance(row, Row)] == PLAIN
    own = {"rows.csv": ",", "rows.tsv": "\t"}[name]
    assert [remark.check for remark in told] == (["source"] if delimiter != own else [])


STYLES = {
    "a backslash before a quote": ('text,label\n"say \\"hi\\", you",x\n"b",y\n', 'say "hi", you'),
    "apostrophes": ("'text','label'\n'it''s a, b',x\n'b',y\n", "it's a, b"),
    "no quotes in a table with tabs": ('text\tlabel\n"Hi" he said\tx\nb\ty\n', '"Hi" he said'),
}


@pytest.mark.parametrize("style", STYLES)
def test_another_style_of_quotes_is_found_and_told(tmp_path: Path, style: str) -> None:
    content, text = STYLES[style]
    rows, told = rows_and_told(tmp_path, "rows.tsv" if "\t" in content else "rows.csv", content)
    assert [row.values for row in rows if isinstance(row, Row)] == [
        {"text": text, "label": "x"},
        {"text": "b", "label": "y"},
    ]
    (remark,) = told
    assert remark.check == "source" and "quoted by" in remark.message


@pytest.mark.parametrize(
    ("content", "first"),
    [
        ("text\nit is, as it is; so\nb\n", {"text": "b"}),  # one column: no delimiter divides its name
        ("it's,label\n'quoted' once,x\n", {"it's": "'quoted' once", "label": "x"}),
        ("text,label\na;b,x\nc;d,y\n", {"text": "a;b", "label": "x"}),
        ("text,label\nC:\\new\\,x\nb,y\n", {"text": "C:\\new\\", "label": "x"}),
        (",text\n0,a\n1,b\n", {"": "0", "text": "a"}),  # the index that pandas writes has no name
    ],
)
def test_what_is_written_plainly_is_read_plainly(tmp_path: Path, content: str, first: dict[str, str]) -> None:
    rows, told = rows_and_told(tmp_path, "rows.csv", content)
    assert next(row.values for row in rows if isinstance(row, Row)) == first and not told


def test_an_unclosed_quote_is_named_with_the_lines_that_it_takes_along(tmp_path: Path) -> None:
    good = [f"a{n},x\n" for n in range(20_000)]
    lines = ["text,label\n", *good[:3], '"two\nlines","oops\n', *good]
    rows, _ = rows_and_told(tmp_path, "rows.csv", "".join(lines))
    (refused,) = (row for row in rows if isinstance(row, MalformedRow))
    assert refused.where.endswith("rows.csv:5")
    assert "the quote is opened in line 6, and the lines 5 to" in refused.why
    last = int(refused.why.split(" to ")[1].split()[0])
    assert [row.where.rpartition(":")[2] for row in rows[4:6]] == [str(last + 1), str(last + 2)]
    assert len(rows) == 3 + 1 + (len(good) + 6 - last)  # all others are read: it took a cell's worth of lines


def test_an_unclosed_quote_that_another_one_ends_is_named(tmp_path: Path) -> None:
    rows, _ = rows_and_told(tmp_path, "rows.csv", 'text,label\na,"oops\nb,x\n"c","y"\nd,z\n')
    refused, row = rows
    assert isinstance(refused, MalformedRow) and refused.where.endswith(":2")
    assert "the quote is opened in line 2, and the lines 2 to 4 are not read" in refused.why
    assert isinstance(row, Row) and row.where.endswith(":5")


def test_an_unclosed_quote_in_the_last_row_is_named(tmp_path: Path) -> None:
    rows, _ = rows_and_told(tmp_path, "rows.csv", 'text,label\na,x\nb,"y\nc,z\n')
    assert isinstance(rows[1], MalformedRow) and rows[1].where.endswith(":3")
    assert "not closed; the quote is opened in line 3, and the lines 3 to 4 are not read" in rows[1].why


def test_a_cell_over_lines_that_look_like_rows_is_told(tmp_path: Path) -> None:
    swallowed = 'text,label\na,"oops\nb,x\nc,y\nd,z"\ne,x\n'
    rows, told = rows_and_told(tmp_path, "rows.csv", swallowed)
    assert len(rows) == 2 and "lines 2 to 5 are one row" in told[0].message
    rows, told = rows_and_told(tmp_path, "rows.csv", 'text,label\n"a poem\nof three\nlines",x\n')
    assert len(rows) == 1 and not told


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("a\rb,x", "a carriage return stands within a line"),
        ('"a"b,x', "expected after"),
        ("a,x,y", "has 3 cells"),
        ('"' + "a" * 200_000 + '",x', "longer than 131,072 characters"),
    ],
)
def test_a_row_that_is_none_is_refused_alone(tmp_path: Path, row: str, why: str) -> None:
    rows, _ = rows_and_told(tmp_path, "rows.csv", f"text,label\nbefore,x\n{row}\nbehind,y\n")
    assert [type(found) for found in rows] == [Row, MalformedRow, Row]
    assert why in str(rows[1]) and rows[1].where.endswith(":3")
