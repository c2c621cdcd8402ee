"""One file a task, one row in the table."""

from collections.abc import Mapping

from pegbox.tasks.base import Predictions, Task
from pegbox.tasks.chat import Chat
from pegbox.tasks.classification import Classification
from pegbox.tasks.completion import Completion

TASKS: Mapping[str, type[Task]] = {task.kind: task for task in (Chat, Completion, Classification)}

__all__ = ["TASKS", "Predictions", "Task"]
