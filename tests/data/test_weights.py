"""INVARIANTS row 28: from a row with weights to what the loss is summed over, turn by turn, in every family of models.

What each turn is learnt with stands in the table; what is learnt is read from the batch, by the targets and weights that
the loss gets, and never from what rendered it. Beside the checks stand the ways in which it went wrong in real systems.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from families import FAMILIES, family_tokenizer

from made_tasks import made_task
from pegbox.data import conversations
from pegbox.data.conversations import weight_of
from pegbox.data.formats import to_record
from pegbox.data.prepare import prepare
from pegbox.data.records import Example, Message, Row
from pegbox.data.render import Renderer, Tokens
from pegbox.errors import DataError
from pegbox.models.batch import pack, pad
from pegbox.recipe import load
from pegbox.tasks import Task
from tiny_folder import write_rows

ASKED = ("one", "two", "three")
SAID = ("hello world", "the fox", "answer")
NONE: dict[str, Any] = {}
# what stands in the assistant's turns of a row, and the weight with which each is learnt
TABLE: Mapping[str, tuple[Sequence[dict[str, Any]], tuple[float, float, float]]] = {
    "nothing is said": ((NONE, NONE, NONE), (1, 1, 1)),
    "all": (({"weight": 1}, {"weight": 1}, {"weight": 1}), (1, 1, 1)),
    "not the first": (({"weight": 0}, NONE, NONE), (0, 1, 1)),
    "not the second": ((NONE, {"weight": 0}, NONE), (1, 0, 1)),
    "not the last": ((NONE, NONE, {"weight": 0}), (1, 1, 0)),
    "the first alone": ((NONE, {"weight": 0}, {"weight": 0}), (1, 0, 0)),
    "the last alone": (({"weight": 0}, {"weight": 0}, NONE), (0, 0, 1)),
    "a null is nothing said": (({"weight": None}, {"weight": 0.0}, {"weight": None}), (1, 0, 1)),
    "halves and doubles": (({"weight": 0.5}, {"weight": 0}, {"weight": 2}), (0.5, 0, 2)),
    "train as a word": (({"train": False}, {"train": True}, {"train": False}), (0, 1, 0)),
    "none": (({"weight": 0}, {"train": False}, {"weight": 0.0}), (0, 0, 0)),
}
LAST_ONLY = ("qwen_3",)  # the template shows an earlier answer otherwise than the last: only that can be learnt


def row_of(case: str) -> dict[str, Any]:
    turns = []
    for asked, said, more in zip(ASKED, SAID, TABLE[case][0], strict=True):
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": said, **more}]
    return {"messages": turns}


@cache
def task_of(family: str) -> Task:
    return made_task("chat", Renderer(family_tokenizer(family)))


def learnt(task: Task, example: Example, *, packed: bool) -> list[tuple[str, float]]:
    """The texts that the loss is over and their weights: neighbours of one weight are one text."""
    other = Example("other", example.input_ids[:7], (0.0,) * 7)  # a row beside it, of which nothing is learnt
    batch = (
        pack([other, example], share_prefix=False)
        if packed
        else pad([other, example], int(task.renderer.tokenizer.pad_token_id))
    )
    found = zip(batch.places.tolist(), batch.targets.tolist(), batch.weights.tolist(), strict=True)
    runs: list[list[tuple[int, int, float]]] = []
    for place, target, weight in found:
        if runs and runs[-1][-1][0] + 1 == place and runs[-1][-1][2] == weight:
            runs[-1].append((place, target, weight))
        else:
            runs.append([(place, target, weight)])
    assert all(run[-1][1] in task.renderer.stop_ids for run in runs)
    return [(task.said([target for _, target, _ in run]), run[0][2]) for run in runs]


def check_what_is_learnt(family: str, case: str) -> None:
    """The turns with a weight, each whole, by its weight, up to its stop token, and nothing else."""
    task, weights = task_of(family), TABLE[case][1]
    record = to_record(Row("rows.jsonl:1", row_of(case)), "chat", {})
    if family in LAST_ONLY and any(weights[:-1]):
        with pytest.raises(ValueError, match="only the last answer can be trained"):
            task.encode(record)
        return
    example = task.encode(record)
    wanted = [(said, float(weight)) for said, weight in zip(SAID, weights, strict=True) if weight]
    for packed in (False, True):
        assert learnt(task, example, packed=packed) == wanted, "another turn or weight is learnt"
    assert (example.weight > 0) == bool(wanted)


@pytest.mark.parametrize("case", TABLE)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_turn_is_learnt_by_its_weight(family: str, case: str) -> None:
    check_what_is_learnt(family, case)


# ---- the bugs --------------------------------------------------------------------------------------------------------


def zero_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = weight_of

    def careless(given: Mapping[str, Any], what: str, learnt: bool) -> float:
        return honest({key: value for key, value in given.items() if value or key == "role"}, what, learnt)

    monkeypatch.setattr(conversations, "weight_of", careless)


def weights_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "weight_of", lambda given, what, learnt: float(learnt))


def any_weight_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "weight_of", lambda *given: float(weight_of(*given) > 0))


def the_last_turn_only(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Renderer.conversation

    def conversation(self: Renderer, content: Any) -> Tokens:
        tokens = honest(self, content)
        start = len(self.prompt(content.messages[:-1]))
        return Tokens(tokens.input_ids, [0.0] * start + tokens.loss_weights[start:])

    monkeypatch.setattr(Renderer, "conversation", conversation)


def each_by_the_weight_before(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Renderer._answer

    def answer(self: Renderer, tokens: Tokens, opened: str, messages: Sequence[Message], tools: Sequence[str]) -> str:
        before = [message.weight for message in messages if message.role == "assistant"][-2:][0]
        *others, last = messages
        return honest(self, tokens, opened, [*others, Message("assistant", last.content, before)], tools)

    monkeypatch.setattr(Renderer, "_answer", answer)


def stop_tokens_are_always_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Tokens.add

    def add(self: Tokens, ids: Sequence[int], weight: float = 0.0) -> None:
        honest(self, ids, weight)
        if ids and not weight and self.loss_weights and len(ids) < 9:
            self.loss_weights[-1] = 1.0

    monkeypatch.setattr(Tokens, "add", add)


# a bug, and a row of the table that finds it
BUGS = [
    (zero_is_missing, "not the second"),
    (weights_are_ignored, "the last alone"),
    (any_weight_is_one, "halves and doubles"),
    (the_last_turn_only, "all"),
    (each_by_the_weight_before, "not the second"),
    (stop_tokens_are_always_learnt, "not the first"),
]


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in LAST_ONLY])
@pytest.mark.parametrize(("bug", "case"), BUGS, ids=[bug.__name__ for bug, _ in BUGS])
def test_a_bug_is_caught_in_every_family(bug: Any, case: str, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    with pytest.raises(AssertionError):
        check_what_is_learnt(family, case)


# ---- nothing is learnt -----------------------------------------------------------------------------------------------


def check_a_row_of_which_nothing_is_learnt_is_refused(family: str, folder: Path) -> None:
    good = [{"prompt": f"one {n}", "completion": f"two {n}"} for n in range(40)]
    rows = str(write_rows(folder / "rows.jsonl", [*good, row_of("none")]))
    data = {"train": rows, "allow": ["near_duplicate"], "validation": 0.2, "test": 0.2}
    recipe = load({"model": "a/b", "task": "chat", "data": data})
    with pytest.raises(DataError, match="no_trained_token: 1 row has no trained token") as refusal:
        prepare(recipe, task_of(family), 500)
    assert "rows.jsonl:41" in refusal.value.what
    allowed = recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"allow": ("near_duplicate", "no_trained_token")})}
    )
    found = prepare(allowed, task_of(family), 500)
    assert sum(map(len, (found.splits.train, found.splits.validation, found.splits.test))) == 40


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_of_which_nothing_is_learnt_is_refused(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEGBOX_CACHE", str(tmp_path / "cache"))
    check_a_row_of_which_nothing_is_learnt_is_refused(family, tmp_path)


def test_a_row_that_is_kept_though_nothing_of_it_is_learnt_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEGBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Example, "weight", property(lambda self: 1.0))
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check_a_row_of_which_nothing_is_learnt_is_refused("chatml", tmp_path)


def test_the_table_has_every_pattern_of_turns() -> None:
    assert len({tuple(weight > 0 for weight in weights) for _, weights in TABLE.values()}) == 2 ** len(SAID)
