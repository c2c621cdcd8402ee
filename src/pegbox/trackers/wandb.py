"""Weights & Biases (`wandb`): to its server, or (`WANDB_MODE=offline`) into `RUN/wandb` for `wandb sync`.

Its own variables hold: `WANDB_MODE`, `WANDB_PROJECT`, `WANDB_ENTITY`, `WANDB_DIR`, `WANDB_API_KEY`. What it would gather
by itself (the console's text, host and user names, paths, the git remote, code, packages) is switched off.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping

from pegbox.trackers.base import Start

WAIT = 30  # seconds for a server that is away when the run begins; the data stays on disk when it is away at the end


class WandB:
    """A run on W&B; resumed under its id."""

    rewinds = False

    def __init__(self, start: Start) -> None:
        import wandb

        self.id = start.id or secrets.token_hex(4)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "pegbox"),
            name=start.folder.name,
            id=self.id,
            resume="allow" if start.id else None,
            dir=os.environ.get("WANDB_DIR", str(start.folder)),
            config=dict(start.config),
            reinit="create_new",  # a run that the caller has open stays as it is
            settings=wandb.Settings(
                console="off",
                quiet=True,
                symlink=False,
                host="",
                disable_code=True,
                disable_git=True,
                x_disable_machine_info=True,
                x_save_requirements=False,
                init_timeout=WAIT,
                finish_timeout=WAIT,
            ),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Points at one update; W&B joins those of the same update."""
        self.run.log(dict(values), step=step)

    def verdict(self, step: int, text: str) -> None:
        """In the run's summary."""
        self.run.summary["verdict"] = text

    def finish(self, *, ok: bool) -> None:
        """Wait until everything is written or sent."""
        self.run.finish(exit_code=0 if ok else 1)
