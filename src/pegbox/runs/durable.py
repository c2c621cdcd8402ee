"""Files that are there whole or not at all, after a power failure too, and what is said where the disk takes none.

A file is written beside its place and synced, then renamed, and the folder that holds the name is synced. Every byte
goes through `os.write`, `os.fsync` and `os.rename`, so that a fault can be put at each of them (benchmarks/faults).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError

from pegbox.errors import TrainingError

Bytes = bytes | npt.NDArray[np.uint8]
FULL = (errno.ENOSPC, errno.EDQUOT)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class Written:
    """What was written: its bytes, and their SHA-256 in hexadecimal."""

    size: int
    sha256: str


def write(path: Path, parts: Iterable[Bytes]) -> Written:
    """Write a file of these parts and sync it; what stood there is overwritten. Raises OSError."""
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        for part in parts:
            left = memoryview(part)  # type: ignore[arg-type]  # an array is one, too
            digest.update(left)
            size += len(left)
            while left:  # a disk that fills up takes a part of it
                left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return Written(size, digest.hexdigest())


def place(draft: Path, target: Path) -> None:
    """Give a synced file, or a folder of synced files, its name; a file that has it is gone, a folder must not be there."""
    if draft.is_dir():
        sync(draft)
    os.rename(draft, target)
    sync(target.parent)


def replace(target: Path, parts: Iterable[Bytes]) -> None:
    """A file whole: beside its place first, then moved there. Raises TrainingError where the disk does not take it."""
    draft = target.with_name(f".{target.name}.tmp")
    with explained(target):
        write(draft, parts)
        place(draft, target)


def sync(path: Path) -> None:
    """Let the disk hold what the system has of a file or of a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def explained(path: Path, needed: int | None = None) -> Iterator[None]:
    """What the disk refuses inside, as a TrainingError that names `path`, the bytes `needed` and those that are free."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, path, needed) from error
    except (
        Exception
    ) as error:  # of the writers in Rust, which tell the system's error in words; tokenizers' has no class
        number = re.search(r"os error (\d+)", str(error))
        if number is None or type(error) not in (SafetensorError, Exception):
            raise
        raise disk_error(OSError(int(number[1]), os.strerror(int(number[1]))), path, needed) from error


def refuse_full(folder: Path, needed: int) -> None:
    """Raise TrainingError where the disk of a folder has less than `needed` bytes left."""
    if free(folder) < needed:
        raise disk_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), folder, needed)


def free(path: Path) -> int:
    """The bytes left on the disk of a path, which need not exist yet."""
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(there).free


def is_of_disk(error: OSError) -> bool:
    """Whether the disk refused something that a user can mend; other errors of the system are ours."""
    return error.errno in (*FULL, *CLOSED, errno.EIO)


def disk_error(error: OSError, path: Path, needed: int | None = None) -> TrainingError:
    """What the disk refused, in words: it is full, closed, or broken."""
    where, again = str(path), "then go on with `pegbox train --resume`"
    if error.errno in FULL:
        asked = "" if needed is None else f"{needed:,} bytes are needed, "
        return TrainingError(
            f"the disk is full: {asked}{free(path):,} are free", where=where, cure=f"free some space, {again}"
        )
    if error.errno in CLOSED:
        return TrainingError(
            f"nothing can be written here ({error.strerror})", where=where, cure=f"make the folder writable, {again}"
        )
    return TrainingError(
        f"the disk failed ({error.strerror or error})", where=where, cure=f"see that the disk is well, {again}"
    )
