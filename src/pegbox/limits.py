"""What the system lets a process have, beside what the machine has: the limits of a container, and of the shell."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

# of version 2 and of version 1 of Linux's control groups: the files of the limit and of what is used
GROUP_FILES = {False: ("memory.max", "memory.current"), True: ("memory.limit_in_bytes", "memory.usage_in_bytes")}


def group_memory(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Bytes left under each limit of the control groups that this process is in, those above its own included.

    Pages of files that nobody reads are given back on demand, and count as free. Inside a container the name of the group
    may be the one outside; the container's limit then stands at the root.
    """
    for line in own.read_text(encoding="utf-8").splitlines() if own.is_file() else ():
        _, kinds, name = line.split(":", 2)  # version 2 names no kinds
        if kinds and "memory" not in kinds.split(","):
            continue
        top = root / "memory" if kinds else root
        group = top / name.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top):
                yield from _left(folder, *GROUP_FILES[bool(kinds)])


def _left(folder: Path, most: str, used: str) -> Iterator[int]:
    """What is left under the limit of one group, where it has one."""
    if not (folder / most).is_file() or not (folder / used).is_file():
        return
    limit = (folder / most).read_text(encoding="ascii").strip()
    if limit != "max":
        yield max(
            0, int(limit) - int((folder / used).read_text(encoding="ascii")) + _idle_files(folder / "memory.stat")
        )


def _idle_files(stat: Path) -> int:
    fields = dict(line.split() for line in stat.read_text(encoding="ascii").splitlines()) if stat.is_file() else {}
    return int(fields.get("total_inactive_file", fields.get("inactive_file", 0)))


def address_space() -> int:
    """Bytes left under the limit on this process's address space (`ulimit -v`); without one, more than there can be."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY or sys.platform != "linux":
        return sys.maxsize
    return max(0, limit - pages()[0])


def pages() -> tuple[int, int]:
    """Bytes of this process's address space, and of those that lie in memory (Linux)."""
    with open("/proc/self/statm", encoding="ascii") as file:
        space, resident, *_ = file.read().split()
    page = os.sysconf("SC_PAGE_SIZE")
    return int(space) * page, int(resident) * page
