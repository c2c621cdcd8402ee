"""What can be done with a run that has a model: ask it, score it again, check it, compare it, list it."""

from pegbox.finished.run import Run

__all__ = ["Run"]
