"""TensorBoard: event files in the run's own folder (`tensorboard --logdir RUN/tensorboard`); nothing leaves the machine.

A run that goes on writes another file, which begins by taking back what the files before it say of later updates
(`purge_step`). Every line is flushed, so that a killed process loses none.
"""

from __future__ import annotations

from collections.abc import Mapping

from pegbox.trackers.base import Start


class TensorBoard:
    """Event files written by `torch.utils.tensorboard`."""

    id = None
    rewinds = True

    def __init__(self, start: Start) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        folder = start.folder / "tensorboard"
        new = not folder.is_dir()
        self.writer = SummaryWriter(str(folder), purge_step=None if new else start.step + 1)
        if new:
            # the session's settings alone: of an experiment's description TensorBoard makes one from all its sessions
            _, session, _ = hparams(dict(start.config), {})
            assert self.writer.file_writer is not None
            self.writer.file_writer.add_summary(session)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Points at one update."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def verdict(self, step: int, text: str) -> None:
        """Shown under TEXT."""
        self.writer.add_text("verdict", text, step)

    def finish(self, *, ok: bool) -> None:
        """Close the file."""
        self.writer.close()
