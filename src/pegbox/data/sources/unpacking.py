"""Bytes out of compressed files, in a stream: damage becomes an error with the file's name, and bombs are refused.

A bomb is known by its ratio. What compresses best of honest rows (millions of short, alike ones) stays below RATIO;
zeros reach 1,000 in gzip and more in zstd. Up to FREE bytes anything may come out.
"""

from __future__ import annotations

import gzip
import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pegbox.errors import DataError

FREE, RATIO = 100_000_000, 200
# what the standard library and Arrow raise for archives that are damaged, cut off or of an unknown method
FAULTS = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    OverflowError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
)


class Allowance:
    """How many bytes may come out of a file of `size` bytes."""

    def __init__(self, where: str, size: int) -> None:
        self.where, self.left = where, max(FREE, RATIO * size)

    def take(self, count: int) -> None:
        """Raise DataError where more comes out than may."""
        self.left -= count
        if self.left < 0:
            what = f"holds more than {RATIO} times its own size, as a bomb does"
            raise DataError(what, where=self.where, cure="unpack it and look at what it holds, if it is meant")


class Unpacked(io.RawIOBase):
    """The bytes of `packed`, in turn. Raises DataError for damage, and beyond the `allowance`."""

    def __init__(self, packed: Any, where: str, allowance: Allowance | None) -> None:
        self._packed, self._where, self._allowance = packed, where, allowance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._packed.read(len(buffer))
        except FAULTS as error:
            raise damaged(self._where, error) from None
        if self._allowance:
            self._allowance.take(len(data))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._packed.close()
        super().close()


def damaged(where: str, error: Exception) -> DataError:
    """The error for an archive that cannot be unpacked."""
    why = str(error)[:200] or "it is cut off"
    return DataError(f"cannot be unpacked: {why}", where=where, cure="make it again, or unpack it")


def _gzip(path: Path) -> BinaryIO:
    return _bounded(gzip.GzipFile(path), path)


def _zstd(path: Path) -> BinaryIO:
    import pyarrow

    return _bounded(pyarrow.CompressedInputStream(pyarrow.PythonFile(path.open("rb"), "r"), "zstd"), path)


def _bounded(packed: Any, path: Path) -> BinaryIO:
    return io.BufferedReader(Unpacked(packed, str(path), Allowance(str(path), path.stat().st_size)))


UNPACKERS: Mapping[str, Callable[[Path], BinaryIO]] = {".gz": _gzip, ".zst": _zstd}
