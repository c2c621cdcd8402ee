"""An update's rows in packs as TRL makes them.

TRL packs a whole data set in packs of one length. Here it packs each update by itself (`bfd`: best fit, the longest first),
into as many packs as asked and at the smallest length by which that is enough: the update stays that of everybody, and the
packs are as short, and as alike, as TRL's packer can make them.
"""

from __future__ import annotations

from collections.abc import Sequence

from datasets import Dataset, disable_progress_bars
from speed.given import Row, row
from trl import pack_dataset

from pegbox.data.records import Example


def packed(update: Sequence[Example], count: int) -> list[Row]:
    """The rows in `count` packs, of which there are no more than rows."""
    assert count <= len(update)
    disable_progress_bars()
    apart = Dataset.from_list(list(map(row, update)))
    longest, total = (pick(map(len, update)) for pick in (max, sum))
    low, high = max(longest, -(-total // count)), total
    while low < high:
        middle = (low + high) // 2
        enough = len(pack_dataset(apart, middle, "bfd")) <= count
        low, high = (low, middle) if enough else (middle + 1, high)
    found: list[Row] = list(pack_dataset(apart, low, "bfd"))
    while len(found) < count:  # where one row is longer than a share of them all
        found = [*found[1:], *_in_two(found[0])] if len(found[0]["seq_lengths"]) > 1 else [*found[1:], found[0]]
    return found


def _in_two(pack: Row) -> list[Row]:
    lengths = pack["seq_lengths"]
    half = len(lengths) // 2
    at = sum(lengths[:half])
    sides = ((slice(0, at), lengths[:half]), (slice(at, None), lengths[half:]))
    return [{**{key: pack[key][part] for key in ("input_ids", "labels")}, "seq_lengths": own} for part, own in sides]
