"""What groups of prompts begin with is found where it saves something, computed once, and not held longer than needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from pegbox.models import prefixes
from pegbox.models.decoding import Known, Row
from pegbox.models.prefixes import LEAST, Waiting, branches
from tiny_models import rows, tiny


def random_prompts(seed: int, count: int = 30, alphabet: int = 2, longest: int = 9) -> list[tuple[int, ...]]:
    make = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=make).tolist()
    return [tuple(torch.randint(3, 3 + alphabet, (length,), generator=make).tolist()) for length in lengths]


def groups_by_hand(prompts: Sequence[tuple[int, ...]]) -> set[tuple[tuple[int, ...], int]]:
    """All beginnings that two rows or more share, each a token of its own left, that are not longer in all of those rows;
    and how many rows share them."""
    found = {}
    for beginning in {prompt[:length] for prompt in prompts for length in range(1, len(prompt))}:
        with_it = [p for p in prompts if len(p) > len(beginning) and p[: len(beginning)] == beginning]
        longer = {p[: len(beginning) + 1] for p in with_it if len(p) > len(beginning) + 1}
        same = len(longer) == 1 and all(len(p) > len(beginning) + 1 for p in with_it)
        if len(with_it) > 1 and not same:
            found[beginning] = len(with_it)
    return set(found.items())


@pytest.mark.parametrize("seed", range(20))
def test_all_that_groups_share_is_found(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixes, "LEAST", 1)
    monkeypatch.setattr(prefixes, "DEPTH", 99)
    prompts = random_prompts(seed)
    found = branches(prompts)
    assert sorted(index for index, _ in found) == list(range(len(prompts)))
    held: dict[Any, int] = {}
    for index, branch in found:
        for part in branch.path() if branch else ():
            assert prompts[index][: part.length] == tuple(part.ids[: part.length])
            assert part.length < len(prompts[index]), "no token of its own is left"
            held[part] = held.get(part, 0) + 1
    assert {(tuple(part.ids[: part.length]), count) for part, count in held.items()} <= groups_by_hand(prompts)
    computed = sum(part.length - (part.parent.length if part.parent else 0) for part in held)
    computed += sum(len(prompts[index]) - (branch.length if branch else 0) for index, branch in found)
    # with every beginning computed once, and one token of each row's own at least
    inner = {prompt[:length] for prompt in prompts for length in range(1, len(prompt))}
    several = {b for b in inner if sum(len(p) > len(b) and p[: len(b)] == b for p in prompts) > 1}
    own = sum(sum(prompt[:length] not in several for length in range(1, len(prompt))) + 1 for prompt in prompts)
    assert computed == len(several) + own


def test_a_branch_is_computed_by_itself_where_that_saves_enough() -> None:
    deep = rows([3, 4], prefix=LEAST, seed=1)  # two rows save so many tokens
    shallow = rows([3, 4], prefix=LEAST - 1, seed=2)
    of = dict(branches([*deep, *shallow]))
    assert [of[index].length if of[index] else 0 for index in range(4)] == [LEAST, LEAST, 0, 0]  # type: ignore[union-attr]


def test_a_thousand_rows_that_each_begin_the_next_are_no_matter() -> None:
    found = branches([(5,) * length for length in range(1, 1500)])
    assert sorted(index for index, _ in found) == list(range(1499))
    assert max(len(list(branch.path())) for _, branch in found if branch) == prefixes.DEPTH


def test_rows_come_branch_by_branch_and_each_branch_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (rows([3, 9, 5], prefix=40, seed=seed) for seed in (1, 2))
    common = rows([1], seed=9)[0] * 70
    prompts = [(*common, *ids) for pair in zip(first, second, strict=True) for ids in pair]
    model, given = tiny("llama", max_position_embeddings=256), list[int]()
    real = prefixes.read

    def seen(model: Any, ids: Sequence[int], known: Known) -> Known:
        given.append(len(ids) - known.length)
        return real(model, ids, known)

    monkeypatch.setattr(prefixes, "read", seen)
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
    monkeypatch.setattr(prefixes, "TOGETHER", 24)
    waiting = Waiting(tiny("llama"), [Row(list(ids), n) for n, ids in enumerate(rows([30, 12, 11, 8, 7, 6, 1]))])
    groups = []
    while waiting:
        groups.append([len(row.ids) for row in waiting.next(3)])
        waiting.joined(waiting.next(3))
    assert groups == [[30], [12, 11], [8, 7, 6], [1]]
