"""The text of a file, line by line or piece by piece, in the encoding and with the line ends that it has.

Bytes are split on `\\n` only: `splitlines` would also cut at U+2028 and U+0085, which JSON strings may hold. UTF-8 is
taken for granted until a byte contradicts; only then is the whole file looked at, once, for what it is. Text in UTF-16
or UTF-32 (by its byte order mark), and lines that all end with `\\r`, are turned into UTF-8 and `\\n` on the way.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from functools import cached_property
from typing import Any, BinaryIO

from pegbox.data.sources import encoding
from pegbox.data.sources.files import File
from pegbox.errors import DataError

ROW_LIMIT = 2**24  # bytes of one row, or one line: 16 MiB, thousands of pages
TOO_LONG = f"longer than {ROW_LIMIT >> 20} MiB"
PIECE = 2**16  # bytes
CONTINUED = bytes(range(0x80, 0xC0))  # bytes of UTF-8 behind the first of a character
WIDE = {
    codecs.BOM_UTF32_LE: "UTF-32",  # begins like that of UTF-16, so it is looked for first
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


class Text:
    """One text file. Raises DataError where it is empty, or of an encoding that is not known."""

    def __init__(self, file: File) -> None:
        self.file, self.where = file, file.where
        with file.open() as stream:
            head = stream.read(PIECE)
        if head in (b"", codecs.BOM_UTF8, *WIDE):
            raise DataError("the file is empty", where=self.where, cure="give a file with at least one row")
        self._wide = next((name for mark, name in WIDE.items() if head.startswith(mark)), None)
        if self._wide is None and b"\0" in head[:4]:
            raise DataError(
                "the file is UTF-16 or UTF-32 and does not say which", where=self.where, cure="save it as UTF-8"
            )
        self._mark = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
        self._old_ends = _only_returns(head, self._wide)
        if self._old_ends:
            message = "its lines end with a carriage return alone, and are read so"
            file.remark("source", message, "nothing, if the rows are right; else save it with line feeds")

    def open(self) -> BinaryIO:
        """The bytes as UTF-8 (or the 8-bit encoding that they are in), without a byte order mark."""
        stream = self.file.open()
        if self._wide or self._old_ends:
            stream = io.BufferedReader(_Recoded(stream, self._wide, self._old_ends, self.where))
        if not self._wide:
            stream.read(self._mark)
        return stream

    def lines(self) -> Iterator[tuple[int, bytes | None]]:
        """Each line with its number and its end; None for one that is too long."""
        with self.open() as stream:
            number = 0
            while raw := stream.readline(ROW_LIMIT):
                number += 1
                if len(raw) < ROW_LIMIT:
                    yield number, raw
                    continue
                while raw and not raw.endswith(b"\n"):
                    raw = stream.readline(PIECE)
                yield number, None

    def texts(self) -> Iterator[tuple[int, str | None]]:
        """Like `lines`, decoded. Raises DataError for a line that is not in the encoding of the file."""
        for number, raw in self.lines():
            yield number, None if raw is None else self._text(raw)

    def pieces(self) -> Iterator[str]:
        """All of the text, some thousand characters at a time."""
        with self.open() as stream:
            yield from (self._text(raw) for _, raw in _cut(stream, whole_lines=False))

    def decode(self, raw: bytes) -> str:
        """The text of a line. Raises ValueError, in the same words for every line, where it is damaged."""
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            if self._survey.guess is None:
                raise ValueError(encoding.row_reason(self._survey)) from None
            return raw.decode(encoding.CODEC)

    def _text(self, raw: bytes) -> str:
        try:
            return self.decode(raw)
        except ValueError:
            raise encoding.refusal(self.where, self._survey, self.file.path) from None

    @cached_property
    def _survey(self) -> encoding.Survey:
        with self.open() as stream:
            found = encoding.survey(_cut(stream, whole_lines=True))
        if found.guess:
            message = (
                f"read as {found.guess}: it is not UTF-8, as the byte 0x{found.byte:02X} in line {found.line} shows"
            )
            self.file.remark("encoding", message, "look whether its letters are right; if not, save it as UTF-8")
        return found


def _only_returns(head: bytes, wide: str | None) -> bool:
    """Whether lines end as they once did on a Macintosh. The last character of the head may be half of `\\r\\n`."""
    text = head[: len(head) // 4 * 4].decode(wide, errors="replace") if wide else head.decode("latin-1")
    return "\r" in text[:-1] and "\n" not in text


def _cut(stream: BinaryIO, whole_lines: bool) -> Iterator[tuple[int, bytes]]:
    """The bytes in pieces with the number of their first line; no piece ends within a character of UTF-8."""
    read = stream.readline if whole_lines else stream.read
    number, kept = 1, b""
    while raw := read(PIECE):
        raw = kept + raw
        whole = raw.rstrip(CONTINUED)
        end = len(whole) - (whole[-1:] >= b"\xc0") or len(raw)  # its last character may go on in the next piece
        end = len(raw) if raw.endswith(b"\n") else end
        kept = raw[end:]
        yield number, raw[:end]
        number += raw.count(b"\n", 0, end)
    if kept:
        yield number, kept


class _Recoded(io.RawIOBase):
    """A stream as UTF-8 with lines that end with `\\n`. Raises DataError where it is not in its encoding."""

    def __init__(self, stream: BinaryIO, codec: str | None, old_ends: bool, where: str) -> None:
        self._stream, self._codec, self._old_ends, self._where = stream, codec, old_ends, where
        self._decoder = codecs.getincrementaldecoder(codec)() if codec else None
        self._ready, self._line = b"", 1

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and (raw := self._stream.read(PIECE)) is not None:
            self._ready = self._recoded(raw)
            if not raw:
                break
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def _recoded(self, raw: bytes) -> bytes:
        if self._decoder:
            try:
                raw = self._decoder.decode(raw, final=not raw).encode("utf-8")
            except UnicodeDecodeError as error:
                what = f"not {self._codec} text, as its first bytes say: {error.reason}"
                raise DataError(what, where=f"{self._where}:{self._line}", cure="save it as UTF-8") from None
        raw = raw.replace(b"\r", b"\n") if self._old_ends else raw
        self._line += raw.count(b"\n")
        return raw

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()
