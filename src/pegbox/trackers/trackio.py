"""Trackio: into its own SQLite file on this machine (`trackio show`).

Its own variables hold: `TRACKIO_DIR`, `TRACKIO_PROJECT`, and `TRACKIO_SPACE_ID` or `TRACKIO_SERVER_URL` for those who want a
server. It finds a run again by its name, so the name gets an ending of its own. It prints to stdout, where a command's
result belongs: that goes to stderr.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout

from pegbox.trackers.base import Start


class Trackio:
    """A run in Trackio's store; resumed under its name."""

    rewinds = False

    def __init__(self, start: Start) -> None:
        with redirect_stdout(sys.stderr):
            import trackio

            self.id = start.id or f"{start.folder.name}-{secrets.token_hex(3)}"
            self.run = trackio.init(
                project=os.environ.get("TRACKIO_PROJECT", "pegbox"),
                name=self.id,
                config=dict(start.config),
                resume="allow",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Points at one update; a thread of Trackio's writes them twice a second."""
        self.run.log(dict(values), step=step)

    def verdict(self, step: int, text: str) -> None:
        """A text among the metrics."""
        self.run.log({"verdict": text}, step=step)

    def finish(self, *, ok: bool) -> None:
        """Wait until everything is written or sent; `run.finish` alone would be repeated, aloud, when Python ends."""
        with redirect_stdout(sys.stderr):
            import trackio

            trackio.finish()
