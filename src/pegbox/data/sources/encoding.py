"""Text that is not UTF-8: where it first is not, what it probably is, and what mends it where that is unknown.

The guess. Bytes of a Western 8-bit encoding are hardly ever valid UTF-8, so a file whose other lines hold good UTF-8 is
not in another encoding but damaged in places. Else, where Windows-1252 knows all high bytes, they are a minority among
letters, and most of them do not stand in whole words (of another alphabet), it is that, or Latin-1, which differs from
it only in the bytes 0x80 to 0x9F (control characters there).
What is read by a guess is said to be: by a wrong one it reads wrong.
"""

from __future__ import annotations

import re
import shlex
import string
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pegbox.errors import DataError

NOT_UTF8 = "not UTF-8 text"
CODEC = "cp1252"  # Windows-1252; what it has in common with Latin-1 is the same in both
HALF_PAIR = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")  # half of a surrogate pair, as careless programs write UTF-8
HIGH_WORD = re.compile(rb"[\x80-\xff]{3,}")
LETTERS = string.ascii_letters.encode()
UNDEFINED = (0x81, 0x8D, 0x8F, 0x90, 0x9D)  # bytes that it does not know


@dataclass(frozen=True)
class Survey:
    """What the bytes of a file say that is not UTF-8: its first such byte, how many such lines it has, the guess."""

    line: int
    column: int
    byte: int
    broken: int
    mixed: bool  # other lines, or all but half of a pair, are UTF-8
    guess: str | None


def survey(lines: Iterable[tuple[int, bytes]]) -> Survey:
    """Look at all the lines, given with their numbers, of a file that is not UTF-8 throughout."""
    broken, good, first = 0, False, (0, 0, 0)
    seen = _Seen()
    for number, raw in lines:
        place = None if raw.isascii() else _fault(raw)
        if place is None:
            good |= not raw.isascii()
            continue
        broken, first = broken + 1, first if broken else (number, place + 1, raw[place])
        good |= HALF_PAIR.match(raw, place) is not None
        seen.add(raw)
    return Survey(*first, broken, good, None if good else seen.guess())


def guess(data: bytes) -> str | None:
    """The likely name of the encoding of bytes that are not UTF-8, or None."""
    seen = _Seen()
    seen.add(data)
    return seen.guess()


class _Seen:
    """How often each byte stands in the lines that are not UTF-8, and how many of them in whole words of high bytes."""

    def __init__(self) -> None:
        self.counts, self.in_words = Counter[int](), 0

    def add(self, raw: bytes) -> None:
        self.counts.update(raw)
        self.in_words += sum(map(len, HIGH_WORD.findall(raw)))

    def guess(self) -> str | None:
        high = [byte for byte in self.counts if byte >= 0x80]
        total, letters = (sum(map(self.counts.__getitem__, some)) for some in (high, LETTERS))
        if total > min(letters, 2 * (total - self.in_words)) or not set(high).isdisjoint(UNDEFINED):
            return None
        return "Windows-1252" if min(high, default=0xFF) < 0xA0 else "Windows-1252 or Latin-1"


def row_reason(found: Survey) -> str:
    """Why one row cannot be read; the same words for every row of a file, so that they are told once."""
    return f"{NOT_UTF8}, as other lines of the file are" if found.mixed else f"{NOT_UTF8}, and no encoding known here"


def refusal(where: str, found: Survey, path: Path | None) -> DataError:
    """The error for a file whose encoding is unknown: its first such line, and a command if it lies at a `path`."""
    count = f"{found.broken} lines have" if found.broken > 1 else "1 line has"
    what = f"{NOT_UTF8}: the byte 0x{found.byte:02X} at column {found.column}; {count} such bytes"
    if found.mixed:
        what, cure = f"{what}, the others are UTF-8", "write these lines again"
    else:
        cure = "save it as UTF-8 where it was made" + (_command(path) if path else "")
    return DataError(what, where=f"{where}:{found.line}", cure=cure)


def _command(path: Path) -> str:
    new = path.with_suffix(f".utf8{path.suffix}")
    files = f"{shlex.quote(str(path))} > {shlex.quote(str(new))}"
    return f", or name its encoding to\n    iconv -f ENCODING -t UTF-8 {files}"


def _fault(raw: bytes) -> int | None:
    """Where in a line the first byte stands that is not UTF-8."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return None
