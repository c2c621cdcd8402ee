"""What can go wrong, as a tree: one class per exit code.

    PegboxError            1   (a bug of ours, unless a subclass says otherwise)
    |-- RecipeError        2   the recipe or the command line is wrong
    |-- DataError          3   the data is refused
    |-- ChangedError       3   a run is not what was measured
    |-- TrainingError      4   training failed: not finite, out of memory for good, disk full
    `-- NotBetterError     5   the verdict is not "better" and the user asked for that to be an error

A message says what, where and how to mend it; the command line prints it without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PegboxError(Exception):
    """An error that a user is told about: `what` went wrong, `where` (`file:line` or a recipe key), the `cure`."""

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, cure: str | None = None) -> None:
        self.what, self.where, self.cure = what, where, cure
        super().__init__(str(self))

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n  cure: {self.cure}" if self.cure else head


def meant(written: str, known: Iterable[str]) -> str:
    """A cure for a name that is not known, by one that is: "did you mean 'chat'?"; nothing where none is near."""
    close = difflib.get_close_matches(written, list(known), n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else ""


def first_line(error: BaseException) -> str:
    """What an error of another library says, in a line; its kind where it says nothing. Unlike it, a text holds on to nothing."""
    return str(error).strip().split("\n")[0] or type(error).__name__


class RecipeError(PegboxError):
    """The recipe or the command line is wrong."""

    exit_code = 2


class DataError(PegboxError):
    """The rows cannot be trained on as they are."""

    exit_code = 3


class ChangedError(PegboxError):
    """A run is not what was measured: a file of it, or an answer of its model, is another than it was."""

    exit_code = 3


class TrainingError(PegboxError):
    """Training had to stop."""

    exit_code = 4


class NotBetterError(PegboxError):
    """The verdict is not "better" although the user required it (`--require-better`)."""

    exit_code = 5
