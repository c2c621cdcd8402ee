"""What groups of prompts begin with is found where it saves something, computed once, and not held longer than needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from pegbox.models import waiting as line
from pegbox.models.decoding import Known, Row
from pegbox.models.waiting import Waiting
from tiny_models import rows, tiny


def test_rows_come_branch_by_branch_and_each_branch_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (rows([3, 9, 5], prefix=40, seed=seed) for seed in (1, 2))
    common = rows([1], seed=9)[0] * 70
    prompts = [(*common, *ids) for pair in zip(first, second, strict=True) for ids in pair]
    model, given = tiny("llama", max_position_embeddings=256), list[int]()
    real = line.read

    def seen(model: Any, ids: Sequence[int], known: Known) -> Known:
        given.append(len(ids) - known.length)
        return real(model, ids, known)

    monkeypatch.setattr(line, "read", seen)
    waiting = Waiting(model, [Row(list(prompt), index) for index, prompt in enumerate(prompts)])
    order, held = [], []
    while waiting:
        group = waiting.next(2)
        assert group == waiting.next(2), "they wait until they have joined"
        assert all(row.known.length == 110 for row in group)
        held.append(len(waiting.known))
        waiting.joined(group)
        order += [row.index for row in group]
    assert given == [70, 40, 40], "what all share, then what each group does"
    assert held == [2, 3, 2], "a branch is let go with its last row"
    assert sorted(order[:3]) in ([0, 2, 4], [1, 3, 5]) and sorted(order) == list(range(6))
    assert [len(prompts[index]) for index in order] == sorted([len(p) for p in prompts[::2]], reverse=True) * 2


def test_rows_that_join_together_are_few_where_they_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "TOGETHER", 24)
    waiting = Waiting(tiny("llama"), [Row(list(ids), n) for n, ids in enumerate(rows([30, 12, 11, 8, 7, 6, 1]))])
    groups = []
    while waiting:
        groups.append([len(row.ids) for row in waiting.next(3)])
        waiting.joined(waiting.next(3))
    assert groups == [[30], [12, 11], [8, 7, 6], [1]]
