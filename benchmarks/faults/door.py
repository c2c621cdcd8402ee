"""A door before every call by which a run changes its folder: it counts them, and lets one of them fail.

The calls are those of `os`, made by `pegbox.runs` and by the standard library, on the run's folder and on descriptors of
files in it; a line appended to a log, which goes through `io.open`, is one call too. What other libraries write by
themselves (`model/`) does not come by here: see `full_disk.py`.

`Unsynced` models a power failure by the letter of POSIX: bytes that no fsync followed are torn in half, and a name whose
folder was not synced since it was made is gone. That a deleted name can come back is not modelled, and the run folder
itself stays.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

CALLS = ("open", "write", "fsync", "close", "rename", "truncate", "mkdir", "unlink", "rmdir")
APPEND = "append"
ALL, WRITES = (*CALLS, APPEND), ("write", APPEND)
ERRORS = {"error": errno.EIO, "full": errno.ENOSPC}

# what can happen, and at which calls
KINDS: Mapping[str, tuple[str, ...]] = {
    "error": ALL,
    "full": (*WRITES, "open", "fsync", "rename", "mkdir"),
    "part, then full": WRITES,
    "killed before": ALL,
    "killed after": ALL,
    "part, then killed": WRITES,
    "power lost": ALL,
}


class Unsynced:
    """What a power failure would take from a folder. `sizes`: of each file with bytes that are not synced, what is."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.names: set[str] = set()
        self.synced: set[str] = set()

    def opened(self, path: str, was: int | None) -> None:
        """A file is open to be written: new (`was` is None), or with this many bytes that stay."""
        if was is None:
            self.names.add(path)
        self.sizes.setdefault(path, was or 0)
        self.synced.discard(path)

    def fsync(self, path: str) -> None:
        self.synced.add(path)
        self.sizes.pop(path, None)
        if os.path.isdir(path):
            self.names = {name for name in self.names if os.path.dirname(name) != path}

    def rename(self, path: str, target: str, was: int | None) -> None:
        """`was` is None where the target is a new name; a file that is replaced is there before or after."""
        for folder, _, files in os.walk(target):
            held = {os.path.join(folder, name) for name in files}
            before = {name: path + name.removeprefix(target) for name in held}
            self.sizes |= {name: 0 for name in held if before[name] not in self.synced}
            self.names |= set() if path in self.synced else held
        if self.sizes.pop(path, None) is not None:
            self.sizes[target] = 0
        self._forget(path)
        if was is None:
            self.names.add(target)

    def _forget(self, path: str) -> None:
        """It has this name no longer, and so has all that was in it."""
        gone = {
            name for name in (*self.sizes, *self.names, *self.synced) if name == path or name.startswith(f"{path}/")
        }
        self.sizes = {name: size for name, size in self.sizes.items() if name not in gone}
        self.names -= gone
        self.synced -= gone

    unlink = rmdir = _forget

    def lose(self) -> None:
        """Leave what the disk holds for certain, and half of the bytes that it does not."""
        for path in filter(os.path.lexists, self.names):
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
        for path, size in self.sizes.items():
            if os.path.isfile(path):
                os.truncate(path, size + (os.path.getsize(path) - size) // 2)


class Door:
    """Within the context, the call with the number `at` among those that count meets `kind` (see `KINDS`).

    `counts`: whether calls count now. `passed`: those that did, as (call, file). Without `at` nothing fails.
    """

    def __init__(self, run: Path, at: int = -1, kind: str = "", *, counts: bool = True) -> None:
        self.run, self.at, self.kind, self.counts = str(run), at, kind, counts
        self.passed: list[tuple[str, str]] = []
        self.unsynced = Unsynced()
        self.files: dict[int, str] = {}
        self.right = {name: getattr(os, name) for name in CALLS}
        self.right_open = io.open

    def __enter__(self) -> Door:
        for name in CALLS:
            setattr(os, name, self._through(name))
        io.open = self._open  # type: ignore[assignment]
        return self

    def __exit__(self, *error: object) -> None:
        for name, right in self.right.items():
            setattr(os, name, right)
        io.open = self.right_open

    def _path(self, given: Any, dir_fd: int | None = None) -> str | None:
        """The path that a call is on; None where it is not the run's."""
        path = self.files.get(given) if isinstance(given, int) else os.fsdecode(given)
        if path is not None and dir_fd is not None:
            path = os.path.join(self.files.get(dir_fd, ""), path)
        inside = path is not None and (path == self.run or path.startswith(f"{self.run}/"))
        return path if inside else None

    def _through(self, name: str) -> Callable[..., Any]:
        right = self.right[name]

        def call(*given: Any, **named: Any) -> Any:
            path = self._path(given[0], named.get("dir_fd"))
            if path is None:
                return right(*given, **named)
            touched = str(given[1]) if name == "rename" else path
            was = os.path.getsize(touched) if os.path.lexists(touched) else None
            done = self._pass(
                name,
                path,
                lambda: right(*given, **named),
                lambda: right(given[0], memoryview(given[1])[: len(given[1]) // 2]),
                lambda: self._note(name, path, given, was),
            )
            if name == "open":
                self.files[done] = path
            return done

        return call

    def _open(self, file: Any, mode: str = "r", *given: Any, **named: Any) -> Any:
        path = None if isinstance(file, int) or mode != "a" else self._path(file)
        if path is None:
            return self.right_open(file, mode, *given, **named)
        was = os.path.getsize(path) if os.path.lexists(path) else None
        return _Appended(self, path, self.right_open(file, mode, *given, **named), was)

    def _note(self, name: str, path: str, given: tuple[Any, ...], was: int | None) -> None:
        if name == "open" and given[1] & os.O_CREAT:
            self.unsynced.opened(path, None if was is None else 0)
        elif name == "fsync":
            self.unsynced.fsync(path)
        elif name == "mkdir" and path != self.run:
            self.unsynced.names.add(path)
        elif name == "rename":
            self.unsynced.rename(path, str(given[1]), was)
        elif name in ("unlink", "rmdir"):
            getattr(self.unsynced, name)(path)
        elif name == "close":
            self.files.pop(given[0], None)

    def _pass(
        self,
        name: str,
        path: str,
        whole: Callable[[], Any],
        half: Callable[[], Any],
        note: Callable[[], None],
    ) -> Any:
        """One call: what is due before it, the call, what is due after it."""
        is_due = self.counts and len(self.passed) == self.at and name in KINDS.get(self.kind, ())
        kind = self.kind if is_due else ""
        if self.counts:
            self.passed.append((name, path.removeprefix(self.run).lstrip("/")))
        if kind == "killed before":
            kill()
        if kind.startswith("part"):
            return self._half(name, path, half)
        if kind in ERRORS:
            if name == "close":  # the descriptor is gone, whatever close says
                whole()
            raise OSError(ERRORS[kind], os.strerror(ERRORS[kind]), path)
        try:
            done = whole()
            note()
        finally:  # the call itself may be refused: a folder that is to be made is there
            self._after(kind)
        return done

    def _after(self, kind: str) -> None:
        if kind == "power lost":
            self.__exit__()
            self.unsynced.lose()
        if kind:
            kill()

    def _half(self, name: str, path: str, half: Callable[[], Any]) -> Any:
        """Half of the bytes; then the end, or, as a disk that fills up does it, the error when the rest is to follow."""
        done = half()
        if self.kind == "part, then killed":
            kill()
        if name == APPEND:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        self.at, self.kind = len(self.passed), "full"
        return done


class _Appended:
    """A log that a line is added to."""

    def __init__(self, door: Door, path: str, file: Any, was: int | None) -> None:
        self.door, self.path, self.file, self.was = door, path, file, was

    def __enter__(self) -> _Appended:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, text: str) -> None:
        self.door._pass(
            APPEND,
            self.path,
            lambda: self._put(text),
            lambda: self._put(text[: len(text) // 2]),
            lambda: self.door.unsynced.opened(self.path, self.was),
        )

    def _put(self, text: str) -> None:
        self.file.write(text)
        self.file.flush()


def kill() -> NoReturn:
    """End this process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("not reached")
