"""The cache of slots shows each row the columns that were written for it, whatever rows came, went and moved meanwhile."""

from __future__ import annotations

import random

import pytest
import torch

from pegbox.kernels import slots
from pegbox.kernels.slots import Place, SlotCache

SLOTS, KINDS, WIDTH, LAYERS = 5, 2, 3, 2
Columns = list[torch.Tensor]  # of a row, in layer 0: keys [KINDS, WIDTH] of each of its tokens


class Driven:
    """A cache driven at random as rows drive it, beside a list of columns for each row."""

    def __init__(self, seed: int) -> None:
        self.rng, self.make = random.Random(seed), torch.Generator().manual_seed(seed)
        self.cache, self.rows, self.start, self.end = SlotCache(SLOTS), list[Columns](), 0, 0

    def write(self, place: Place, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Columns for the rows of a place, to every layer; what the first layer shows then."""
        self.cache.place = place
        new = torch.randn(place.rows.stop - place.rows.start, KINDS, count, WIDTH, generator=self.make)
        shown = [self.cache.update(new + layer, -new - layer, layer) for layer in range(LAYERS)]
        for layer, (keys, values) in enumerate(shown):
            assert torch.equal(keys, -values) and torch.equal(keys[:, :, -count:], new + layer)
        return new, shown[0][0]

    def join(self) -> None:
        """One row or two, padded on the left, of which the first may be known in part."""
        count = min(self.rng.choice((1, 2)), SLOTS - len(self.rows))
        if not count:
            return
        given, known = self.rng.randint(1, 4), self.rng.choice((0, 3))
        size, first = given + known, len(self.rows)
        if size > self.end:
            self.move(max(size, self.end - self.start))
        at, begun = slice(first, first + count), self.end - given
        self.cache.clear(at, self.end)
        before = torch.randn(1, KINDS, known, WIDTH, generator=self.make)
        if known:
            self.cache.fill(first, begun, [(before + layer, -before - layer) for layer in range(LAYERS)])
        new, shown = self.write(Place(at, self.end - size, begun), given)
        assert torch.equal(shown[0, :, :known], before[0]) and not shown[1:, :, :known].any()
        self.rows.append([*before[0].unbind(1), *new[0].unbind(1)])
        self.rows += [[*own.unbind(1)] for own in new[1:]]
        self.start = self.end - max(map(len, self.rows))

    def step(self) -> None:
        if self.rows:
            if self.end == self.cache.capacity:
                self.move(self.end - self.start)
            new, _ = self.write(Place(slice(0, len(self.rows)), self.start, self.end), 1)
            for row, column in zip(self.rows, new[:, :, 0], strict=True):
                row.append(column)
            self.end += 1

    def leave(self) -> None:
        gone = sorted(self.rng.sample(range(len(self.rows)), self.rng.randint(0, len(self.rows))))
        left = len(self.rows) - len(gone)
        holes = [place for place in gone if place < left]
        movers = [place for place in range(left, len(self.rows)) if place not in gone]
        self.cache.put(movers, holes, self.start, self.end)
        for hole, mover in zip(holes, movers, strict=True):
            self.rows[hole] = self.rows[mover]
        del self.rows[left:]
        self.start = self.end - max(map(len, self.rows), default=0)

    def move(self, to: int) -> None:
        self.cache.move(len(self.rows), self.start, self.end, to=to)
        self.start, self.end = to - (self.end - self.start), to

    def check(self) -> None:
        for place, row in enumerate(self.rows):
            at = slice(place, place + 1)
            for layer, (keys, values) in enumerate(self.cache.columns(at, self.end - len(row), self.end)):
                assert torch.equal(keys[0], torch.stack(row, dim=1) + layer) and torch.equal(keys, -values)


def drive(seed: int, times: int = 120) -> Driven:
    driven = Driven(seed)
    for _ in range(times):
        driven.rng.choice((driven.join, driven.step, driven.step, driven.step, driven.leave))()
        driven.check()
    return driven


@pytest.mark.parametrize("seed", range(6))
def test_each_row_keeps_its_columns(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "ROOM", 3)
    drive(seed)


@pytest.mark.parametrize("method", ["clear", "put"])
def test_the_check_sees_what_is_not_done(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "ROOM", 3)
    monkeypatch.setattr(SlotCache, method, lambda self, *given: None)
    with pytest.raises(AssertionError):
        for seed in range(6):
            drive(seed)


def test_columns_are_written_in_place_and_again_where_a_pass_broke_off() -> None:
    driven = Driven(0)
    driven.join()
    before = [buffer.data_ptr() for buffer in driven.cache.layers[0].buffers]
    place = Place(slice(0, len(driven.rows)), driven.start, driven.end)
    driven.write(place, 1)
    driven.step()  # as if the pass before had not been
    driven.check()
    assert [buffer.data_ptr() for buffer in driven.cache.layers[0].buffers] == before
    assert driven.cache.get_seq_length() == driven.end - 1 - driven.start
