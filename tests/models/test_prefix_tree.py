"""Rows laid out as a tree: each can be read back from its places, sees its own beginning, and nothing is stored for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from pegbox.kernels.pack import Pack, Run, Shared, block_mask
from pegbox.models import prefix_tree
from pegbox.models.prefix_tree import LEAST, branches, lay_out, shared_prefix
from tiny_models import rows as drawn

# rows that often begin alike: pieces of a few tokens put one behind the other
PIECES = st.sampled_from([(1,) * 9, (2, 3), (4,), (5, 6, 7, 8, 9, 10), (2, 3, 3, 3, 3, 3, 3, 3)])
ROWS = st.lists(st.lists(PIECES, min_size=1, max_size=5).map(lambda parts: sum(parts, ())), min_size=1, max_size=9)


def check_rows_are_read_back(rows: list[tuple[int, ...]], *, share: bool) -> None:
    """Each row stands at its places, at its own positions, and its tokens see just those before them."""
    laid = lay_out(rows, share=share)
    pack, positions = laid.pack, laid.pack.positions().tolist()
    seen = block_mask(pack)
    assert pack.tokens == len(laid.ids) <= sum(map(len, rows))
    assert [run.start for run in pack.runs] == [0, *(run.end for run in pack.runs[:-1])]
    for row, places in zip(rows, laid.places, strict=True):
        assert tuple(laid.ids[place] for place in places) == row
        assert [positions[place] for place in places] == list(range(len(row)))
        for count, place in enumerate(places, start=1):
            assert seen[place].nonzero()[:, 0].tolist() == places[:count]
    ends = [places[-1] for places in laid.places]
    assert len(set(ends)) == len(rows), "two rows end in one token"


@hypothesis.given(ROWS, st.booleans())
def test_every_row_is_read_back_from_the_tree(rows: list[tuple[int, ...]], share: bool) -> None:
    check_rows_are_read_back(rows, share=share)


# ---- branches --------------------------------------------------------------------------------------------------------


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
    monkeypatch.setattr(prefix_tree, "DEPTH", 99)
    prompts = random_prompts(seed)
    found = branches(prompts, 1)
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
    deep = drawn([3, 4], prefix=LEAST, seed=1)  # two rows save so many tokens
    shallow = drawn([3, 4], prefix=LEAST - 1, seed=2)
    of = dict(branches([*deep, *shallow], LEAST))
    assert [of[index].length if of[index] else 0 for index in range(4)] == [LEAST, LEAST, 0, 0]  # type: ignore[union-attr]


def test_a_thousand_rows_that_each_begin_the_next_are_no_matter() -> None:
    found = branches([(5,) * length for length in range(1, 1500)], LEAST)
    assert sorted(index for index, _ in found) == list(range(1499))
    assert max(len(list(branch.path())) for _, branch in found if branch) == prefix_tree.DEPTH


# ---- packs -----------------------------------------------------------------------------------------------------------


def test_a_tree_of_prompts_and_answers() -> None:
    system, ask, other = (1,) * 10, (2,) * 8, (3,) * 9
    rows = [
        system + ask + (4,),
        system + other + (5, 6),
        system + ask + (7, 7, 7),
        (*system, 8),
        system + other + (9, 9),
    ]
    laid = lay_out(rows, share=True)
    assert laid.ids == [*system, 8, *ask, 4, 7, 7, 7, *other, 5, 6, 9, 9]
    assert laid.pack == Pack(
        (Run(0, 1, 10), Run(10, 1, 1), Run(11, 1, 8), Run(19, 1, 1), Run(20, 1, 3), Run(23, 1, 9), Run(32, 2, 2)),
        (Shared(0, 10, 36), Shared(11, 19, 23), Shared(23, 32, 36)),
    )


def test_twins_share_all_but_their_last_token() -> None:
    assert lay_out([(1,) * 9] * 3, share=True).ids == [1] * 8 + [1] * 3


def test_without_sharing_every_row_is_whole() -> None:
    laid = lay_out([(1,) * 20, (1,) * 20], share=False)
    assert laid.pack == Pack((Run(0, 2, 20),))


def test_the_check_sees_a_branch_that_is_one_token_short(monkeypatch: pytest.MonkeyPatch) -> None:
    real = prefix_tree.Shared
    monkeypatch.setattr(prefix_tree, "Shared", lambda start, end, until: real(start, end - 1, until))
    with pytest.raises(AssertionError):
        check_rows_are_read_back([(1,) * 12 + (2,), (1,) * 12 + (3,)], share=True)


@hypothesis.given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6), min_size=1, max_size=5))
def test_the_shared_prefix_is_the_longest_that_leaves_each_row_a_token(ids: list[list[int]]) -> None:
    wanted = 0
    while len(ids) > 1 and all(len(row) > wanted + 1 and row[wanted] == ids[0][wanted] for row in ids):
        wanted += 1
    assert shared_prefix(ids) == wanted
    assert shared_prefix([tuple(row) for row in ids]) == wanted
