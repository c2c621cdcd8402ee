"""Progress: a bar with rate and time left on a terminal, one line that changes in a notebook, a line now and then elsewhere.

A program that wants none of it sets the logger `pegbox.progress` to CRITICAL.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger("pegbox")


class Bar(Protocol):
    """What a long piece of work tells as it goes on."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """`count` more units are done; `note` stands beside the bar (a loss, say)."""


class _Silent:
    def advance(self, count: int = 1, note: str = "") -> None:
        pass


class _Counted:
    """What all lines of text tell: how much is done, how fast it goes, how long it will take."""

    every = 10.0  # seconds between two lines

    def __init__(self, label: str, total: int | None, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done, self.began, self.said = 0, time.monotonic(), -math.inf

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        now = time.monotonic()
        if now - max(self.said, self.began) < self.every and self.done != self.total:
            return
        self.said = now
        rate = self.done / max(now - self.began, 1e-9)
        of, left = "", ""
        if self.total is not None:
            of, left = f"/{self.total}", f", {(self.total - self.done) / max(rate, 1e-9):.0f} s left"
        self.tell(f"{self.label}: {self.done}{of}, {rate:.1f} {self.unit}/s{left} {note}".rstrip())

    def tell(self, line: str) -> None:
        """For a log file: a line of its own."""
        print(line, file=sys.stderr, flush=True)


class _Notebook(_Counted):
    """One output of the cell, which changes."""

    every = 0.5

    def __init__(self, label: str, total: int | None, unit: str) -> None:
        from IPython.display import display

        super().__init__(label, total, unit)
        self.shown = display(
            {"text/plain": f"{label}: 0/{total}" if total else f"{label}: 0"}, raw=True, display_id=True
        )

    def tell(self, line: str) -> None:
        self.shown.update({"text/plain": line}, raw=True)


class _Rich:
    def __init__(self, progress: Progress, label: str, total: int | None) -> None:
        self.progress, self.began, self.done = progress, time.monotonic(), 0
        self.task = progress.add_task(label, total=total, note="", rate="")

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        rate = self.done / max(time.monotonic() - self.began, 1e-9)
        self.progress.update(self.task, advance=count, note=note, rate=f"{rate:.1f}/s")


@contextmanager
def bar(label: str, total: int | None, unit: str = "rows", *, shown: bool = True) -> Iterator[Bar]:
    """A progress bar for `total` units of work (None: nobody knows how many); `shown=False` (another rank, say) is silent."""
    if not shown or total == 0 or not logging.getLogger("pegbox.progress").isEnabledFor(logging.ERROR):
        yield _Silent()
    elif _in_notebook():
        yield _Notebook(label, total, unit)
    elif not sys.stderr.isatty():
        yield _Counted(label, total, unit)
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


@contextmanager
def step(label: str) -> Iterator[None]:
    """Tell (to those who asked for every step) that a piece of work is done, and how long it took."""
    began = time.monotonic()
    yield
    log.debug("%s: %.1f s", label, time.monotonic() - began)


def _in_notebook() -> bool:
    """Whether a kernel runs this (Jupyter, Colab, VS Code): then somebody loaded it before us."""
    kernel = sys.modules.get("ipykernel.kernelapp")
    return kernel is not None and bool(kernel.IPKernelApp.initialized())
