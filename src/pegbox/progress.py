"""Progress on stderr: a bar with rate and time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Bar(Protocol):
    """What a long piece of work tells as it goes on."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """`count` more units are done; `note` stands beside the bar (a loss, say)."""


class _Silent:
    def advance(self, count: int = 1, note: str = "") -> None:
        pass


class _Lines:
    """For a log file: a line at most every ten seconds, and one at the end."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done, self.began, self.said = 0, time.monotonic(), time.monotonic()

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        now = time.monotonic()
        if now - self.said < 10 and self.done < self.total:
            return
        self.said = now
        rate = self.done / max(now - self.began, 1e-9)
        left = (self.total - self.done) / max(rate, 1e-9)
        print(
            f"{self.label}: {self.done}/{self.total}, {rate:.1f} {self.unit}/s, {left:.0f} s left {note}".rstrip(),
            file=sys.stderr,
            flush=True,
        )


class _Rich:
    def __init__(self, progress: Progress, label: str, total: int) -> None:
        self.progress, self.began, self.done = progress, time.monotonic(), 0
        self.task = progress.add_task(label, total=total, note="", rate="")

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        rate = self.done / max(time.monotonic() - self.began, 1e-9)
        self.progress.update(self.task, advance=count, note=note, rate=f"{rate:.1f}/s")


@contextmanager
def bar(label: str, total: int, unit: str = "rows", *, shown: bool = True) -> Iterator[Bar]:
    """A progress bar for `total` units of work, on stderr; `shown=False` (another rank, say) is silent."""
    if not shown or total == 0:
        yield _Silent()
    elif not sys.stderr.isatty():
        yield _Lines(label, total, unit)
    else:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit + " {task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=Console(stderr=True)) as progress:
            yield _Rich(progress, label, total)
