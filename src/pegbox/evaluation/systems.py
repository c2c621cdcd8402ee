"""Every system of the comparison, on the same test rows, with the same decoding.

`trivial` and the task's rivals look at train only; `base` is the untouched model, `base_few_shot` the same with rows of
train before each question; `permuted` re-pairs the tuned model's own answers at random, which is what knowing only the
form of answers is worth; `tuned` is the model as it was saved.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from transformers import PreTrainedModel

from pegbox.data.records import Record
from pegbox.data.splits import Splits, twin_key
from pegbox.data.twins import together
from pegbox.progress import bar
from pegbox.recipe import Recipe
from pegbox.tasks import Predictions, Task


def choose(test: Sequence[Record], most: int, seed: int) -> list[Record]:
    """At most `most` test rows, drawn with the seed, in their order."""
    if len(test) <= most:
        return list(test)
    return [test[index] for index in sorted(random.Random(seed).sample(range(len(test)), most))]


def choose_shots(task: Task, train: Sequence[Record], test: Sequence[Record], k: int, seed: int) -> list[Record]:
    """`k` rows of train: seeded, one a group (else one an answer) before a second, none a twin of a test row."""
    twins = {twin_key(record.content) for record in test}
    once = {record.where: record for record in train}  # those of a source of weight 2 stand twice in train
    rows = [record for record in once.values() if twin_key(record.content) not in twins]
    random.Random(seed).shuffle(rows)
    turn: dict[str, int] = {}
    ranks = []
    for record in rows:
        stratum = record.group if record.group is not None else str(task.reference(record))
        turn[stratum] = turn.get(stratum, -1) + 1
        ranks.append(turn[stratum])
    order = sorted(range(len(rows)), key=lambda index: ranks[index])  # stable: the shuffle decides between equals
    return [rows[index] for index in order[:k]]


def fitting_shots(task: Task, shots: Sequence[Record], test: Sequence[Record], room: int) -> list[Record]:
    """As many of the shots as leave every test row's prompt within `room` tokens."""
    kept = list(shots)
    while kept and max(task.prompt_length(record, kept) for record in test) > room:
        kept.pop()
    return kept


def ask_base(
    task: Task,
    base: PreTrainedModel,
    known: Splits,
    test: Sequence[Record],
    *,
    shots: Sequence[Record],
    max_new_tokens: int,
) -> dict[str, Predictions]:
    """The answers of every system that does not need the tuned model."""
    answers = {"trivial": task.trivial(known.train, test)}
    answers |= task.rivals(base, known.train, known.validation, test)
    if task.zero_shot:
        answers["base"] = ask(task, base, test, "base model", max_new_tokens=max_new_tokens)
        if shots:
            label = f"base model, {len(shots)} examples"
            answers["base_few_shot"] = ask(task, base, test, label, shots=shots, max_new_tokens=max_new_tokens)
    return answers


def ask(
    task: Task,
    model: PreTrainedModel,
    rows: Sequence[Record],
    label: str,
    *,
    shots: Sequence[Record] = (),
    max_new_tokens: int,
) -> Predictions:
    """One model's answers, with a progress bar."""
    with bar(label, len(rows)) as shown:
        found = task.ask(model, rows, shots=shots, max_new_tokens=max_new_tokens, advance=shown.advance)
    return replace(found, shots=len(shots))


def permuted(tuned: Predictions, seed: int) -> Predictions:
    """The tuned model's answers, each given to another row: one random cycle through all rows."""
    order = np.random.default_rng(seed).permutation(len(tuned.answers))
    giver = np.empty_like(order)
    giver[np.roll(order, 1)] = order
    given = tuple(tuned.probabilities[index] for index in giver) if tuned.probabilities else ()
    return Predictions(tuple(tuned.answers[index] for index in giver), tuned.close, probabilities=given)


def units(rows: Sequence[Record], recipe: Recipe) -> np.ndarray:
    """int [n]: which rows belong together and are resampled as one: a group, else twins, near ones too where the recipe
    keeps those on one side of the split."""
    return together(rows, near="near_duplicate" not in recipe.data.allow)
