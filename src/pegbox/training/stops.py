"""What ends a run before its last update: a signal. And the clock that `train.max_time` is held against.

SIGINT and SIGTERM are noted; the update goes on to its end, a checkpoint is written, and `Stopped` is raised. A second
one kills at once. The scoring of the validation rows changes nothing, so a signal breaks it off.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from pegbox.errors import PegboxError
from pegbox.runs.checkpoint import TrainState
from pegbox.runtime import Ranks

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(PegboxError):
    """A signal asked the run to stop; it saved a checkpoint first. Exit code 130 (SIGINT) or 143 (SIGTERM)."""

    def __init__(self, signum: int, where: str) -> None:
        super().__init__("stopped with a checkpoint saved", where=where, cure="go on with `pegbox train --resume`")
        self.exit_code = 128 + signum


class _Interrupted(Exception):
    pass


class Stops:
    """A context in which signals are noted. `signum`: the one that every rank knows of, 0 while there is none."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks, self.signum = ranks, 0
        self._received, self._breaks, self._looked = 0, False, time.monotonic()
        self._before: dict[int, object] = {}

    def __enter__(self) -> Stops:
        if threading.current_thread() is threading.main_thread():  # elsewhere signals cannot be received
            self._before = {signum: signal.signal(signum, self._note) for signum in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._received = signum
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        if self._breaks:
            raise _Interrupted

    def look(self, state: TrainState) -> None:
        """Between two updates: let every rank know of a signal, and of the first rank's clock."""
        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        signals, seconds = self.ranks.sum(float(self._received > 0), passed if self.ranks.is_first else 0.0)
        state.seconds += seconds
        if signals:
            self.signum = self._received or signal.SIGTERM

    @contextmanager
    def breaking_off(self) -> Iterator[None]:
        """Break off what is inside where a signal comes. Not with several ranks, which wait for each other."""
        self._breaks = self.ranks.world == 1
        try:
            if self._received and self._breaks:
                raise _Interrupted
            yield
        except _Interrupted:
            self.signum = self._received
        finally:
            self._breaks = False
