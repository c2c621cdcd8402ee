"""A file that is not UTF-8 ends in one message: the first byte, a guess that is right where it is made, a cure that works."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pegbox.data.encoding import guess, refusal
from pegbox.data.sources import MalformedRow, read, read_all
from pegbox.errors import DataError

FRENCH = "text,label\nplain,a\nça va très bien à l'école,b\nvoilà,a\n"


def refused(path: Path, data: bytes) -> DataError:
    path.write_bytes(data)
    with pytest.raises(DataError) as refusal:
        read_all([str(path)])
    return refusal.value


@pytest.mark.parametrize("name", ["rows.csv", "it's a file; really.csv", "$(echo x).txt"])
@pytest.mark.skipif(shutil.which("iconv") is None, reason="needs the iconv program")
def test_the_cure_works_as_printed(tmp_path: Path, name: str) -> None:
    error = refused(tmp_path / name, FRENCH.encode("cp1252"))
    assert error.where == f"{tmp_path / name}:3"
    assert "byte 0xE7 at column 1; 2 lines have such bytes" in error.what
    command = str(error.cure).split("\n")[-1].strip()
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (new,) = tmp_path.glob("*.utf8.*")
    assert new.read_bytes() == FRENCH.encode("utf-8")
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


def test_a_file_that_is_damaged_in_places_is_not_converted_as_a_whole(tmp_path: Path) -> None:
    error = refused(tmp_path / "rows.csv", "text,label\nvoilà,a\n".encode() + "voilà,b\n".encode("latin-1"))
    assert error.where == f"{tmp_path / 'rows.csv'}:3"
    assert "the others are UTF-8" in error.what and "iconv" not in str(error)


def test_an_unknown_encoding_is_not_named(tmp_path: Path) -> None:
    error = refused(tmp_path / "rows.txt", "это не латиница".encode("cp1251"))
    assert "looks like" not in error.what and "iconv -f ENCODING -t UTF-8" in str(error.cure)


def test_lines_of_json_are_refused_one_by_one_with_the_same_reason(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"a": "ça"}\n{"a": 1}\n{"a": "très"}\n'.encode("latin-1"))
    first, row, last = read([str(path)])
    assert isinstance(first, MalformedRow) and isinstance(last, MalformedRow) and not isinstance(row, MalformedRow)
    assert first.why == last.why
    assert "if it is Windows-1252" in first.why


@given(data=st.binary(min_size=1, max_size=40))
def test_any_bytes_that_are_not_utf_8_have_their_first_line_told(data: bytes) -> None:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        told = refusal(Path("rows.csv"), data)
        assert told.where == f"rows.csv:{line}"
        assert told.cure and re.search(f"0x{data[error.start]:02X}", told.what)
