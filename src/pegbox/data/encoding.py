"""Text that is not UTF-8: where it first is not, what it probably is, and a command that mends it.

The guess. Bytes of a Western 8-bit encoding are hardly ever valid UTF-8, so a file whose other lines hold good UTF-8 is
not in another encoding but damaged in places. Else, where the high bytes are a minority among letters and Windows-1252
knows them all, it is that, or Latin-1, which differs from it only in the bytes 0x80 to 0x9F (control characters there).
A guess is offered as one: what is converted by a wrong guess reads wrong, and the message says to look.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from pegbox.errors import DataError

NOT_UTF8 = "not UTF-8 text"


def guess(data: bytes) -> str | None:
    """The likely name of the encoding of bytes that are not UTF-8, or None."""
    high = [byte for byte in data if byte >= 0x80]
    letters = sum(65 <= byte <= 90 or 97 <= byte <= 122 for byte in data)
    if len(high) > letters:  # whole words of high bytes: another alphabet
        return None
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        return None
    return "Windows-1252" if any(byte < 0xA0 for byte in high) else "Windows-1252 or Latin-1"


def row_reason(raw: bytes) -> str:
    """Why one row cannot be read; the same words for every row of a file, so that they are told once."""
    if guess(raw) is None:
        return NOT_UTF8
    return f"{NOT_UTF8}; if it is Windows-1252, convert the file: iconv -f WINDOWS-1252 -t UTF-8"


def refusal(path: Path, data: bytes) -> DataError:
    """The error for a file whose bytes are not UTF-8 throughout: its first such line, the guess, and the command."""
    lines = data.split(b"\n")
    broken = {number: place for number, raw in enumerate(lines, start=1) if (place := _fault(raw)) is not None}
    first, place = next(iter(broken.items()))
    count = f"{len(broken)} lines have" if len(broken) > 1 else "1 line has"
    what = f"{NOT_UTF8}: the byte 0x{lines[first - 1][place]:02X} at column {place + 1}; {count} such bytes"
    if any(not raw.isascii() for number, raw in enumerate(lines, start=1) if number not in broken):
        return DataError(f"{what}, the others are UTF-8", where=f"{path}:{first}", cure="write these lines again")
    encoding = guess(data)
    told = f"{what}; it looks like {encoding}" if encoding else what
    return DataError(told, where=f"{path}:{first}", cure=_cure(path, encoding))


def _fault(raw: bytes) -> int | None:
    """Where in a line the first byte stands that is not UTF-8."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return None


def _cure(path: Path, encoding: str | None) -> str:
    new = path.with_suffix(f".utf8{path.suffix}")
    files = f"-t UTF-8 {shlex.quote(str(path))} > {shlex.quote(str(new))}"
    if encoding:
        return f"convert it, and look whether its letters are right then:\n    iconv -f WINDOWS-1252 {files}"
    return f"save it as UTF-8 where it was made, or name its encoding to\n    iconv -f ENCODING {files}"
