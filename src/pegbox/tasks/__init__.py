"""One file a task, one row in the table."""

from collections.abc import Mapping

from pegbox.tasks.base import Predictions, Task
from pegbox.tasks.chat import Chat
from pegbox.tasks.classification import Classification
from pegbox.tasks.completion import Completion
from pegbox.tasks.embedding import Embedding
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

__all__ = ["TASKS", "Predictions", "Task"]
