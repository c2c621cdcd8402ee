"""One file a task, one row in the table. `task_of` says which of them a recipe asks for."""

from collections.abc import Mapping

from pegbox.recipe import Completion as Settings
from pegbox.recipe import Recipe
from pegbox.tasks.base import Predictions, Task
from pegbox.tasks.chat import Chat
from pegbox.tasks.classification import Classification
from pegbox.tasks.completion import Completion
from pegbox.tasks.embedding import Embedding
from pegbox.tasks.infilling import Infilling
from pegbox.tasks.masked_lm import MaskedLM
from pegbox.tasks.multilabel import Multilabel
from pegbox.tasks.regression import Regression
from pegbox.tasks.seq2seq import Seq2Seq
from pegbox.tasks.token_classification import TokenClassification

TASKS: Mapping[str, type[Task]] = {
    task.kind: task
    for task in (
        *(Chat, Completion, Classification, Multilabel, Regression, TokenClassification),
        *(MaskedLM, Seq2Seq, Embedding),
    )
}


def task_of(recipe: Recipe) -> type[Task]:
    """What learns the rows of a recipe: the row of the table; of texts that are cut, what learns their middles."""
    settings = recipe.task
    return Infilling if isinstance(settings, Settings) and settings.fim_rate > 0 else TASKS[settings.kind]


__all__ = ["TASKS", "Predictions", "Task", "task_of"]
