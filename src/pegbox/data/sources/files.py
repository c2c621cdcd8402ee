"""A path -> the files that are read for it: the file itself, those below a folder, those within a zip archive.

A folder and an archive are read as all files in them that can be read, in the order of their names; hidden ones are
left out, others that cannot be read are remarked on. They hold texts or rows: where both are there, one is probably
not meant (a README.md beside tables), and the user is asked to name what is.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from zipfile import ZipFile, ZipInfo

from pegbox.data.sources.outcomes import Remark
from pegbox.data.sources.unpacking import FAULTS, UNPACKERS, Allowance, Unpacked, damaged
from pegbox.errors import DataError

TEXTS = (".txt", ".md")
LINES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
TABLES = (".parquet", ".arrow", ".feather")  # read at any place of them, so not out of a stream
ENDINGS = (*LINES, *TABLES, *TEXTS)
DATABASES = (".db", ".sqlite", ".sqlite3")
WITHIN = 2**28  # bytes of a table in an archive, which has to be held in memory


@dataclass(frozen=True)
class File:
    """One file to be read: its name for people, its kind (one of ENDINGS), and its bytes, unpacked, as often as wanted.

    `path` is where it lies as it is; None where it has to be unpacked. What is guessed about it goes to `told`.
    """

    where: str
    kind: str
    open: Callable[[], BinaryIO]
    told: list[Remark]
    path: Path | None = None

    def remark(self, check: str, message: str, cure: str) -> None:
        """Tell how the file is read."""
        self.told.append(Remark(self.where, check, message, cure))


def files_of(name: str, told: list[Remark]) -> Iterator[File]:
    """The files to be read for a path. Raises DataError where there is none, or one that is of no kind that is read."""
    path = Path(name)
    try:
        if path.is_dir():
            yield from _in_folder(path, told)
        elif path.is_file():
            yield from _unpacked(path, told)
        else:
            what = "no file of data, but a device or the like" if path.exists() else "no such data file"
            raise DataError(what, where=name, cure="check the path")
    except OSError as error:
        raise _unreadable(error, name) from None


def kind_of(name: str) -> str:
    """The ending that says how a file is read, without that of a compression."""
    plain = PurePosixPath(name)
    return (plain.with_suffix("") if plain.suffix.lower() in UNPACKERS else plain).suffix.lower()


def _unreadable(error: OSError, name: str) -> DataError:
    where = str(error.filename or name)
    return DataError(f"cannot be read: {error.strerror}", where=where, cure="check its name and the rights to read it")


def _unpacked(path: Path, told: list[Remark]) -> Iterator[File]:
    """The file, or where it is a zip archive: those within it."""
    where, ending, kind = str(path), path.suffix.lower(), kind_of(path.name)
    if not path.stat().st_size:
        raise DataError("the file is empty", where=where, cure="give a file with at least one row")

    def plain() -> BinaryIO:
        try:
            return path.open("rb")
        except OSError as error:
            raise _unreadable(error, where) from None

    plain().close()  # now, while nothing has been read
    if ending == ".zip":
        yield from _in_archive(path, told)
    elif kind not in ENDINGS or (ending in UNPACKERS and kind in TABLES):
        raise _not_read(where, f"{kind}{ending}" if ending in UNPACKERS else path.suffix)
    elif ending in UNPACKERS:
        yield File(where, kind, lambda: UNPACKERS[ending](path), told)
    else:
        yield File(where, kind, plain, told, path)


def _not_read(where: str, ending: str) -> DataError:
    packed = f"these with {' or '.join(UNPACKERS)} behind ({', '.join(TABLES)} without), or .zip of all"
    cure = f"convert it to one of {', '.join(ENDINGS)}; {packed}"
    if ending in DATABASES:
        cure = f"write a recipe that says what is read of it: train: {{path: {where}, query: SELECT ... ORDER BY ...}}"
    return DataError(f"files that end in '{ending}' are not read yet", where=where, cure=cure)


# ---- folders ---------------------------------------------------------------------------------------------------------


def _in_folder(folder: Path, told: list[Remark]) -> Iterator[File]:
    found = []
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent, name).relative_to(folder).as_posix() for name in names]
    for name in _meant(str(folder), sorted(found), told):
        path = folder / name
        if path.stat().st_size:
            yield from _unpacked(path, told)
        else:
            told.append(_empty(str(path)))


def _raise(error: OSError) -> None:
    raise error


def _empty(where: str) -> Remark:
    return Remark(where, "source", "the file is empty", "take it out, or write what belongs there")


def _meant(where: str, names: list[str], told: list[Remark]) -> list[str]:
    """The names in a folder or an archive that are to be read. Raises DataError where it is unclear which are."""
    shown = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    texts = [name for name in shown if kind_of(name) in TEXTS]
    rows = [name for name in shown if kind_of(name) in (*LINES, *TABLES) or name.lower().endswith(".zip")]
    if texts and rows:
        what = f"holds texts ({texts[0]}) and rows ({rows[0]})"
        raise DataError(what, where=where, cure="name the files that are meant, or a folder of these alone")
    if not texts and not rows:
        cure = f"put files into it that end in one of {', '.join(ENDINGS)}"
        raise DataError("holds no file that can be read", where=where, cure=cure)
    if odd := [name for name in (*texts, *rows) if not _is_printable(name)]:
        raise DataError(f"has a file whose name is no text: {odd[0]!a}", where=where, cure="rename it")
    read = texts or rows
    if left := len(shown) - len(read):
        message = f"{left} of {len(shown)} files are left out: their kinds are not read"
        told.append(Remark(where, "source", message, "convert them where they hold rows, else there is nothing to do"))
    return read


def _is_printable(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" or letter in "\r\n" for letter in name)


# ---- archives --------------------------------------------------------------------------------------------------------


def _in_archive(path: Path, told: list[Remark]) -> Iterator[File]:
    """The files of a zip archive, none of which is ever written anywhere. It is open as long as they are asked for, and
    closed with the last of them, or where reading one of them fails: each must be read before the next is asked for."""
    where = str(path)
    with path.open("rb") as raw, _archive(raw, where) as archive:
        infos = [info for info in archive.infolist() if not info.filename.endswith("/")]
        _check_members(where, infos, path.stat().st_size)
        sizes = {info.filename: info for info in infos}
        for name in _meant(where, [info.filename for info in infos], told):
            info = sizes[name]
            if name.lower().endswith((".zip", *UNPACKERS)):
                raise DataError("an archive within an archive", where=f"{where}/{name}", cure="unpack it")
            if info.file_size:
                yield _member(archive, info, where, told)
            else:
                told.append(_empty(f"{where}/{name}"))


def _archive(raw: BinaryIO, where: str) -> ZipFile:
    try:
        return ZipFile(raw)
    except FAULTS as error:
        raise damaged(where, error) from None


def _check_members(where: str, infos: list[ZipInfo], size: int) -> None:
    """Raise DataError for members that may not be read at all: bombs, encrypted ones, names that lead elsewhere."""
    Allowance(where, size).take(sum(info.file_size for info in infos))
    names = [info.filename for info in infos]
    if len(set(names)) < len(names):
        raise DataError("holds two files of the same name", where=where, cure="make the archive again")
    for info in infos:
        parts = info.filename.split("/")
        if ".." in parts or parts[0] == "" or "\\" in info.filename:
            cure = "make the archive again, from within the folder"
            raise DataError(f"holds a name that leads out of it: {info.filename!r}", where=where, cure=cure)
        if info.flag_bits & 1:
            raise DataError("is encrypted", where=f"{where}/{info.filename}", cure="unpack it with its password")


def _member(archive: ZipFile, info: ZipInfo, where: str, told: list[Remark]) -> File:
    name = f"{where}/{info.filename}"

    def unpacked() -> BinaryIO:
        try:
            return io.BufferedReader(Unpacked(archive.open(info), name, None))
        except FAULTS as error:
            raise damaged(name, error) from None

    kind = kind_of(info.filename)
    if kind in TABLES and info.file_size > WITHIN:
        raise DataError(f"is larger than {WITHIN >> 20} MiB within an archive", where=name, cure="unpack it")
    return File(name, kind, unpacked, told)
