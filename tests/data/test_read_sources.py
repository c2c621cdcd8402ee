"""What strangers write into files is read right or refused with `file:line`: never a traceback, never a silent change."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pegbox.data.records import Row
from pegbox.data.sources import MalformedRow, lines, parse_json, read, read_all, reading
from pegbox.data.sources.files import File
from pegbox.errors import DataError

DEEP = 100_000


def written(folder: Path, name: str, content: bytes | str) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return str(path)


def rows_of(file: str) -> list[Row | MalformedRow]:
    return list(read([file]))


# ---- rows that are read right ----------------------------------------------------------------------------------------

READ = {
    "a byte order mark": (b'\xef\xbb\xbf{"text": "a"}\n', [(1, {"text": "a"})]),
    "carriage returns": (b'{"text": "a"}\r\n{"text": "b\\r\\n"}\r\n', [(1, {"text": "a"}), (2, {"text": "b\r\n"})]),
    "no line break at the end": (b'{"text": "a"}\n{"text": "b"}', [(1, {"text": "a"}), (2, {"text": "b"})]),
    "blank lines": (b'\n  \t\n{"text": "a"}\n\r\n\n{"text": "b"}', [(3, {"text": "a"}), (6, {"text": "b"})]),
    "Unicode's line ends within a text": (
        '{"text": "a\u2028b\u2029c\u0085d\x0be\x0cf"}\n{"text": "g"}'.replace("\x0b", "\\u000b").replace("\x0c", "\\f"),
        [(1, {"text": "a\u2028b\u2029c\u0085d\x0be\x0cf"}), (2, {"text": "g"})],
    ),
    "a whole surrogate pair in escapes": (b'{"text": "\\ud83d\\ude42"}', [(1, {"text": "🙂"})]),
    "a NUL character": (b'{"text": "a\\u0000b"}', [(1, {"text": "a\0b"})]),
    "numbers as they are": (
        b'{"a": 1, "b": 1.0, "c": true, "d": null}',
        [(1, {"a": 1, "b": 1.0, "c": True, "d": None})],
    ),
    "nesting as deep as a person writes": (b'{"a": ' + b"[" * 50 + b"]" * 50 + b"}", None),
}


@pytest.mark.parametrize("hazard", READ)
def test_a_row_is_read_right(tmp_path: Path, hazard: str) -> None:
    content, wanted = READ[hazard]
    file = written(tmp_path, "rows.jsonl", content)
    got = rows_of(file)
    assert all(isinstance(row, Row) for row in got)
    if wanted is not None:
        assert got == [Row(f"{file}:{line}", values) for line, values in wanted]
        assert [type(value) for row in got for value in row.values.values()] == [  # type: ignore[union-attr]
            type(value) for _, values in wanted for value in values.values()
        ]


# ---- rows that are refused by name -----------------------------------------------------------------------------------

REFUSED = {
    "NaN": (b'{"a": NaN}', "NaN is not a JSON number"),
    "Infinity": (b'{"a": [-Infinity]}', "-Infinity is not a JSON number"),
    "a number beyond a float": (b'{"a": 1e400}', "1e400 is too large"),
    "a whole number of 5,000 digits": (b'{"a": ' + b"9" * 5000 + b"}", "whole number of 5000 digits is too large"),
    "a key given twice": (b'{"text": "a", "text": "b"}', "the key 'text' is given twice"),
    "a key given twice, deeper": (b'{"a": [{"b": 1, "b": 1}]}', "the key 'b' is given twice"),
    "half of a surrogate pair": (b'{"text": "\\ud83d"}', "half of a surrogate pair"),
    "half of a surrogate pair in a key": (b'{"\\udc00": 1}', "half of a surrogate pair"),
    "deep nesting": (b'{"a": ' + b"[" * DEEP + b"]" * DEEP + b"}", "nested too deeply"),
    "deep nesting with an escape": (b'{"a": "\\u0041", "b": ' + b"[" * DEEP + b"]" * DEEP + b"}", "nested too deeply"),
    "bytes that are not UTF-8": (b'{"text": "\x81"}', "not UTF-8 text"),
    "half of a surrogate pair in bytes": (b'{"text": "\xed\xa0\x80"}', "not UTF-8 text"),
    "no JSON": (b"text: a", "not JSON: expecting value at column 1"),
    "a row cut off": (b'{"text": "a', "not JSON: unterminated string"),
    "single quotes": (b"{'text': 'a'}", "not JSON: expecting property name enclosed in double quotes at column 2"),
    "a trailing comma": (b'{"a": 1,}', "not JSON"),
    "two rows on a line": (b'{"a": 1} {"a": 2}', "not JSON: extra data at column 10"),
    "a raw control character": (b'{"text": "a\x0bb"}', "not JSON: invalid control character"),
    "a byte order mark in the middle": ("\ufeff{}".encode(), "not JSON"),
    "white space that is not JSON's": ("\u00a0".encode(), "not JSON"),
    "a list": (b"[1, 2]", "a row must be a JSON object, this is a list"),
    "a text": (b'"text"', "a row must be a JSON object, this is a str"),
    "null": (b"null", "a row must be a JSON object, this is a NoneType"),
}


def check_refused_by_name(folder: Path, row: bytes, why: str) -> None:
    """The row between two good ones is refused with its line and the reason, and takes neither of them along."""
    file = written(folder, "rows.jsonl", b'{"text": "before"}\n' + row + b'\n{"text": "behind"}\n')
    before, refused, behind = rows_of(file)
    assert before == Row(f"{file}:1", {"text": "before"})
    assert behind == Row(f"{file}:3", {"text": "behind"})
    assert isinstance(refused, MalformedRow)
    assert refused.where == f"{file}:2"
    assert why in refused.why
    assert len(refused.why) < 200


@pytest.mark.parametrize("hazard", REFUSED)
def test_a_row_is_refused_by_name(tmp_path: Path, hazard: str) -> None:
    check_refused_by_name(tmp_path, *REFUSED[hazard])


@pytest.mark.parametrize(
    "hazard", ["NaN", "a number beyond a float", "a key given twice", "half of a surrogate pair", "deep nesting"]
)
def test_what_pythons_parser_lets_pass_or_dies_of_is_caught_when_it_is_used_alone(
    tmp_path: Path, hazard: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "parse_json", json.loads)
    with pytest.raises((AssertionError, RecursionError)):
        check_refused_by_name(tmp_path, *REFUSED[hazard])


def check_lines_end_at_line_feeds_only(folder: Path) -> None:
    content, wanted = READ["Unicode's line ends within a text"]
    file = written(folder, "rows.jsonl", content)
    assert wanted is not None
    assert rows_of(file) == [Row(f"{file}:{line}", values) for line, values in wanted]


def test_cutting_at_other_line_ends_is_caught_when_a_text_holds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_splitlines(file: File) -> Iterator[Row | MalformedRow]:
        for number, line in enumerate(file.open().read().decode().splitlines(), start=1):
            yield lines.as_row(f"{file.where}:{number}", parse_json(line))

    check_lines_end_at_line_feeds_only(tmp_path)
    monkeypatch.setitem(reading.READERS, ".jsonl", by_splitlines)  # type: ignore[arg-type]
    with pytest.raises((AssertionError, ValueError)):
        check_lines_end_at_line_feeds_only(tmp_path)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200)
@given(value=json_values, ascii_only=st.booleans())
def test_what_json_can_say_comes_back_as_it_was(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    got = parse_json(text)
    assert got == value
    assert json.dumps(got) == json.dumps(value)  # equal, and of the same types: 1 is neither 1.0 nor true


@settings(max_examples=400)
@given(
    text=st.text(alphabet=st.characters(codec=None, categories=None), max_size=30)
    | st.text('{}[]":,\\u0aeE+-1. \n', max_size=20)
)
def test_any_text_is_parsed_or_refused_with_a_sentence(text: str) -> None:
    try:
        parse_json(text)
    except ValueError as error:
        assert str(error)


# ---- files -----------------------------------------------------------------------------------------------------------

FILES = {
    "a missing file": ("rows.jsonl", None, "no such data file"),
    "an empty file": ("rows.jsonl", b"", "the file is empty"),
    "a byte order mark alone": ("rows.csv", b"\xff\xfe", "the file is empty"),
    "an unknown kind": ("rows.xml", b"<a/>", "'.xml' are not read yet"),
    "UTF-16 that is none": ("rows.jsonl", '{"text": "a"}\n'.encode("utf-16")[:-1], "not UTF-16 text"),
    "half of a surrogate pair in UTF-16": ("rows.txt", b"\xff\xfe\x3d\xd8a\0b\0", "not UTF-16 text"),
    "UTF-16 without one": ("rows.jsonl", '{"text": "a"}\n'.encode("utf-16-le"), "UTF-16"),
    "UTF-32 without its mark": ("rows.csv", "text,label\n".encode("utf-32-be"), "UTF-16 or UTF-32"),
    "a JSON file cut off": ("rows.json", b'[{"text": "a"},\n{"text": ', "not JSON: expecting value at column 10"),
    "a JSON file that is no array": ("rows.json", b'{"text": "a"}', "not a JSON array of rows"),
    "a JSON file with a hazard": ("rows.json", b'[{"text": NaN}]', "NaN is not a JSON number"),
    "a JSON file of other bytes": ("rows.json", b'[{"text": "\x81"}]', "not UTF-8 text"),
    "a table of other bytes": ("rows.csv", b"text,label\n\x81,a\n", "not UTF-8 text"),
    "a text of other bytes": ("rows.txt", b"a\n\x81\n", "not UTF-8 text"),
    "a table that names a column twice": ("rows.csv", b"text,text\na,b\n", "name each column once"),
    "a table whose first line is broken": ("rows.csv", b'"text"x,label\na,b\n', "name each column once"),
    "a table with a column that has no name": ("rows.csv", b"text,,label\na,b,c\n", "name each column once"),
    "a table of blank lines": ("rows.csv", b"\n\n", "name each column once"),
}


@pytest.mark.parametrize("hazard", FILES)
def test_a_file_is_refused_with_its_name_and_a_cure(tmp_path: Path, hazard: str) -> None:
    name, content, what = FILES[hazard]
    file = str(tmp_path / name) if content is None else written(tmp_path, name, content)
    with pytest.raises(DataError) as refusal:
        rows_of(file)
    assert what in refusal.value.what
    assert refusal.value.where is not None and refusal.value.where.startswith(file)
    assert refusal.value.cure


def test_a_json_file_is_refused_with_the_line(tmp_path: Path) -> None:
    file = written(tmp_path, "rows.json", b'[{"text": "a"},\n{"text": ')
    with pytest.raises(DataError) as refusal:
        rows_of(file)
    assert refusal.value.where == f"{file}:2"


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, "rows.jsonl", b"{}")

    def refusing(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refusing)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        rows_of(file)


def test_the_rows_of_a_json_array_are_counted(tmp_path: Path) -> None:
    file = written(tmp_path, "rows.json", '\ufeff[{"text": "a"}, 5,\n{"text": "b"}]')
    first, refused, last = rows_of(file)
    assert first == Row(f"{file}:1", {"text": "a"})
    assert isinstance(refused, MalformedRow) and refused.where == f"{file}:2"
    assert last == Row(f"{file}:3", {"text": "b"})


def test_files_are_read_in_order(tmp_path: Path) -> None:
    files = [written(tmp_path, f"{name}.jsonl", f'{{"text": "{name}"}}') for name in ("b", "a")]
    assert [row.values["text"] for row in read_all(files)] == ["b", "a"]


def test_read_all_names_every_row_that_cannot_be_read(tmp_path: Path) -> None:
    file = written(tmp_path, "rows.jsonl", b'{"a": NaN}\n{"a": 1}\nx\n')
    with pytest.raises(DataError) as refusal:
        read_all([file])
    assert f"{file}:1: " in refusal.value.what and f"{file}:3: " in refusal.value.what


def test_read_all_counts_all_rows_that_cannot_be_read_and_names_the_first(tmp_path: Path) -> None:
    file = written(tmp_path, "rows.jsonl", "x\n" * 500 + "{}\n")
    with pytest.raises(DataError) as refusal:
        read_all([file])
    assert refusal.value.what.startswith("500 rows cannot be read\n") and refusal.value.what.endswith("and 480 more")
    assert refusal.value.what.count(file) == 20


# ---- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rows.txt", "rows.md", "rows.TXT"])
def test_a_text_is_read_by_paragraphs_with_the_line_at_which_each_begins(tmp_path: Path, name: str) -> None:
    content = "\ufeff\r\n# Title\r\n \t\r\none\u2028still one\r\n  two\r\n\r\n\r\nlast\x0b"
    file = written(tmp_path, name, content)
    assert rows_of(file) == [
        Row(f"{file}:2", {"text": "# Title"}),
        Row(f"{file}:4", {"text": "one\u2028still one\n  two"}),
        Row(f"{file}:8", {"text": "last\x0b"}),
    ]


@settings(max_examples=150)
@given(text=st.text(alphabet="ab \t\n\r", max_size=40))
def test_paragraphs_hold_every_character_that_is_not_white(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = written(tmp_path_factory.mktemp("text"), "rows.txt", text + "\n")
    rows = read_all([file])
    assert "".join("".join(row.values["text"].split()) for row in rows) == "".join(text.split())
    lines = [*text.split("\n"), "", ""]
    for row in rows:
        first = int(row.where.rpartition(":")[2])
        assert lines[first - 1].removesuffix("\r") == row.values["text"].split("\n")[0]
        assert first == 1 or not lines[first - 2].strip()


# ---- tables ----------------------------------------------------------------------------------------------------------


def test_a_table_keeps_the_line_at_which_each_row_begins(tmp_path: Path) -> None:
    lines = ["\ufefftext,label\r\n", "a,x\r\n", "\r\n", '"two\r\nlines, quoted ""so""",y\r\n', "\n", "\u2028,z\n"]
    file = written(tmp_path, "rows.csv", "".join(lines))
    assert rows_of(file) == [
        Row(f"{file}:2", {"text": "a", "label": "x"}),
        Row(f"{file}:4", {"text": 'two\r\nlines, quoted "so"', "label": "y"}),
        Row(f"{file}:7", {"text": "\u2028", "label": "z"}),
    ]


def test_a_row_of_a_table_that_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    file = written(tmp_path, "rows.tsv", 'text\tlabel\na\nb\tx\ty\nc\tz\n"d"e\tz\n"unfinished\tz\n')
    got = rows_of(file)
    assert [row.where for row in got] == [f"{file}:{line}" for line in range(2, 7)]
    assert [type(row) for row in got] == [MalformedRow, MalformedRow, Row, MalformedRow, MalformedRow]
    assert "has 1 cells, and the first line names 2 columns" in str(got[0])


def test_a_cell_beyond_the_limit_is_refused_by_name(tmp_path: Path) -> None:
    file = written(tmp_path, "rows.csv", f"text,label\n{'a' * (csv.field_size_limit() + 1)},x\nb,y\n")
    refused, row = rows_of(file)
    assert isinstance(refused, MalformedRow) and refused.where == f"{file}:2"
    assert row == Row(f"{file}:3", {"text": "b", "label": "y"})


@settings(max_examples=150)
@given(cells=st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), min_size=1, max_size=5))
def test_a_table_that_pythons_writer_wrote_comes_back_cell_by_cell(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("table") / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *cells])
    assert [tuple(row.values.values()) for row in read_all([str(path)])] == cells


@pytest.mark.parametrize("opening", [b'{"a": ', b'{"a": "\\u0041", "b": '])
def test_nesting_near_the_parsers_limit_ends_in_a_row_or_a_refusal(tmp_path: Path, opening: bytes) -> None:
    depths = range(880, 1010, 3)
    content = b"\n".join(opening + b"[" * depth + b"]" * depth + b"}" for depth in depths)
    got = rows_of(written(tmp_path, "rows.jsonl", content))
    assert len(got) == len(depths)
    assert {row.why for row in got if isinstance(row, MalformedRow)} == {"not usable JSON: nested too deeply"}
