"""What is not UTF-8 is read by a guess that is right where it is made, and told; else it ends in one message with a cure."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegbox.data.records import Row
from pegbox.data.sources import MalformedRow, Remark, read, read_all
from pegbox.data.sources.encoding import guess, refusal, survey
from pegbox.errors import DataError

FRENCH = "text,label\nplain,a\nça va très bien à l'école,b\nvoilà,a\n"
RUSSIAN = "text,label\nplain,a\n" + "это не латиница" + ",b\n"


def refused(path: Path, data: bytes) -> DataError:
    path.write_bytes(data)
    with pytest.raises(DataError) as refusal:
        read_all([str(path)])
    return refusal.value


@pytest.mark.parametrize("name", ["rows.csv", "it's a file; really.csv", "$(echo x).txt"])
@pytest.mark.skipif(shutil.which("iconv") is None, reason="needs the iconv program")
def test_the_cure_works_as_printed_but_for_the_encoding_that_only_the_user_knows(tmp_path: Path, name: str) -> None:
    error = refused(tmp_path / name, RUSSIAN.encode("cp1251"))
    assert error.where == f"{tmp_path / name}:3"
    assert "byte 0xFD at column 1; 1 line has such bytes" in error.what
    command = str(error.cure).split("\n")[-1].strip().replace("ENCODING", "WINDOWS-1251")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (new,) = tmp_path.glob("*.utf8.*")
    assert new.read_bytes() == RUSSIAN.encode("utf-8")
    assert read_all([str(new)])


@pytest.mark.parametrize(
    ("text", "encoding", "wanted"),
    [
        ("voilà", "latin-1", "Windows-1252 or Latin-1"),
        ("the price: 5 € - “so much”", "cp1252", "Windows-1252"),
        ("это не латиница", "cp1251", None),
        ("日本語の文章です", "shift-jis", None),
    ],
)
def test_a_guess_is_made_for_western_text_only(text: str, encoding: str, wanted: str | None) -> None:
    assert guess(text.encode(encoding)) == wanted


KINDS = {
    "rows.csv": FRENCH,
    "rows.jsonl": '{"text": "plain", "label": "a"}\n\n{"text": "ça va très bien à l\'école", "label": "b"}\n',
    "rows.json": '[{"text": "plain", "label": "a"},\n\n{"text": "ça va très bien à l\'école", "label": "b"}]',
    "rows.txt": "plain\n\nça va très bien à l'école",
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_a_western_8_bit_encoding_is_read_and_told_once(tmp_path: Path, name: str, encoding: str) -> None:
    path, told = tmp_path / name, list[Remark]()
    path.write_bytes(KINDS[name].encode(encoding))
    rows = list(read([str(path)], told))
    path.write_bytes(KINDS[name].encode("utf-8"))
    assert rows == list(read([str(path)]))
    (remark,) = told
    assert (remark.where, remark.check) == (str(path), "encoding")
    assert "0xE7 in line 3" in remark.message and "Windows-1252" in remark.message and remark.cure


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-be", "utf-32-be"])
def test_a_byte_order_mark_names_the_encoding_without_a_guess(tmp_path: Path, name: str, encoding: str) -> None:
    path, told = tmp_path / name, list[Remark]()
    mark = "\ufeff" if encoding.endswith("be") else ""
    path.write_bytes((mark + KINDS[name]).encode(encoding))
    rows = list(read([str(path)], told))
    path.write_bytes(KINDS[name].encode("utf-8"))
    assert rows == list(read([str(path)])) and not told


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_lines_that_end_with_a_carriage_return_alone_are_lines_and_that_is_told(
    tmp_path: Path, name: str, encoding: str
) -> None:
    path, told = tmp_path / name, list[Remark]()
    path.write_bytes(KINDS[name].replace("\n", "\r").encode(encoding))
    rows = list(read([str(path)], told))
    path.write_bytes(KINDS[name].encode("utf-8"))
    assert rows == list(read([str(path)]))
    assert [remark.check for remark in told] == ["source"]


def test_a_file_that_is_damaged_in_places_is_not_converted_as_a_whole(tmp_path: Path) -> None:
    error = refused(tmp_path / "rows.csv", "text,label\nvoilà,a\n".encode() + "voilà,b\n".encode("latin-1"))
    assert error.where == f"{tmp_path / 'rows.csv'}:3"
    assert "the others are UTF-8" in error.what and "iconv" not in str(error)


@pytest.mark.parametrize("behind", [1, 50_000])
def test_lines_of_json_in_two_encodings_are_refused_one_by_one_with_the_same_reason(
    tmp_path: Path, behind: int
) -> None:
    """However far behind the first line in another encoding the first one stands that is UTF-8."""
    path, told = tmp_path / "rows.jsonl", list[Remark]()
    western = ['{"a": "ça"}\n'.encode("latin-1"), b'{"a": 1}\n' * behind, '{"a": "très"}\n'.encode("latin-1")]
    path.write_bytes(b"".join(western) + '{"a": "là"}\n'.encode())
    rows = list(read([str(path)], told))
    first, second = (row for row in rows if isinstance(row, MalformedRow))
    assert (first.where, second.where) == (f"{path}:1", f"{path}:{behind + 2}")
    assert first.why == second.why == "not UTF-8 text, as other lines of the file are"
    assert rows[-1] == Row(f"{path}:{behind + 3}", {"a": "là"}) and not told


def test_half_of_a_surrogate_pair_in_bytes_is_no_western_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": "some words"}\n{"a": "\xed\xa0\x80"}\n')
    _, row = read([str(path)])
    assert isinstance(row, MalformedRow) and "not UTF-8" in row.why


@pytest.mark.parametrize("width", [2, 3, 4])
def test_no_character_is_cut_where_a_long_text_is_read_in_pieces(tmp_path: Path, width: int) -> None:
    """Shifted by each number of bytes, so that every end of a piece falls once within a character."""
    letter = {2: "é", 3: "語", 4: "🙂"}[width]
    for shift in range(width):
        values = [{"a": "x" * shift + letter * 100_000}, {"a": "b"}]
        (tmp_path / "rows.json").write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
        assert [row.values for row in read_all([str(tmp_path / "rows.json")])] == values


@given(data=st.binary(min_size=1, max_size=40))
def test_any_bytes_that_are_not_utf_8_have_their_first_line_told(data: bytes) -> None:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        told = refusal("rows.csv", survey(enumerate(data.split(b"\n"), start=1)), Path("rows.csv"))
        assert told.where == f"rows.csv:{line}"
        assert told.cure and re.search(f"0x{data[error.start]:02X}", told.what)
