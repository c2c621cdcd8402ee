"""A rival that translates nothing: the target of the training source that is most alike.

Sources are vectors of their character 2- to 4-grams within words, tf-idf weighted, of length 1; the nearest is that of the
greatest cosine, of equals the first in train. Where texts repeat themselves (user interfaces, manuals, contracts) this is
hard to beat: translators work with such memories for that reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pegbox.data.records import Record
from pegbox.tasks.base import Predictions, Task

ROWS_AT_ONCE = 64  # of the test, whose likeness to every row of train is held at once


def remembered(task: Task, train: Sequence[Record], test: Sequence[Record]) -> Mapping[str, Predictions]:
    """The rival among those of a task whose rows tell a source and its target."""
    pairs = [(task.shown(record), str(task.reference(record))) for record in train]
    return {"translation_memory": Predictions(recalled(pairs, [task.shown(record) for record in test]))}


def recalled(train: Sequence[tuple[str, str]], asked: Sequence[str]) -> tuple[str, ...]:
    """The target of the nearest of the `train` pairs (source, target), for each source that is asked."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # late: few runs need it, all would load it

    grams = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), dtype=np.float32)
    if not any(source.strip() for source, _ in train):  # there is no n-gram to be alike in
        return (train[0][1],) * len(asked)
    memory = grams.fit_transform([source for source, _ in train]).T.tocsr()
    found: list[str] = []
    for start in range(0, len(asked), ROWS_AT_ONCE):
        alike = grams.transform(asked[start : start + ROWS_AT_ONCE]) @ memory
        found += [train[nearest][1] for nearest in alike.toarray().argmax(axis=1).tolist()]
    return tuple(found)
