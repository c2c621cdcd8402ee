"""Near-duplicates: pairs of texts whose sets of character 5-grams have a Jaccard index |A & B| / |A | B| of 0.8 or more.

MinHash (Broder 1997): for a random order of all 5-grams, two sets have the same first one with probability J, their
Jaccard index. A text's signature holds 8 bits (b-bit MinHash, Li and Koenig 2010) of what comes first in 96 orders,
96 bytes a row. Locality-sensitive hashing cuts it into 16 bands of 6, and rows that agree on a band are compared:

    P(J) = 1 - (1 - J^6)^16     J  0.3   0.5   0.6   0.7   0.75  0.8   0.85  0.9   0.95
                                P  0.01  0.22  0.53  0.87  0.96  0.992 0.9995 1.0  1.0

first by their signatures, which leaves nearly all pairs under 0.6 behind (and 0.1 % of those at 0.8: P is 0.991), then
by the 5-grams themselves: a pair that is returned is never a guess. Bands are sorted as numpy keys, one at a time;
texts are asked for again when needed.

Where a band brings very many rows together (a template, a long preamble), comparing all of them would be quadratic. A
row is compared with the first HEADS of them and the WINDOW before it: rows that are all alike are then all tied to a
few first ones. It is compared no more when it has FOUND twins, or was read beside TRIED rows in vain. How many rows
were cut short so is returned, to be said aloud: those that stopped, and those with fewer than COMPLETE bands compared
in full, the number from which P(0.8) is 0.95. What a row is compared with depends on the rows before it alone, so rows
that are appended change no pair of earlier ones.

Ours because the libraries hold signatures in Python objects, over a kilobyte a row (datasketch), or return clusters as
if being near were transitive (text-dedup), or bring Spark or a C++ build; numpy alone reaches the memory target.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEAR = 0.8  # the Jaccard index from which two texts are near-duplicates; the bands are laid out for it
GRAM = 5  # characters
BANDS, WIDTH = 16, 6
HASHES = BANDS * WIDTH
LEAST = round(HASHES * NEAR - 3 * (HASHES * NEAR * (1 - NEAR)) ** 0.5)  # agreeing hashes: three standard deviations off
HEADS, WINDOW = 8, 8  # rows of a crowded band that a row is compared with: the first, and those before it
FOUND, TRIED = 8, 16  # near-duplicates, and rows read that are none, after which a row is compared no more
COMPLETE = 10  # bands; 1 - (1 - 0.8^6)^10 = 0.95
BLOCK = 1 << 16  # characters hashed at once: what fits into the processor's cache
CHUNK = 1 << 11  # rows compared at once
KEPT = 1 << 18  # 5-grams kept for the next comparison
BASE, MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)

Hashes = NDArray[np.uint64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Near:
    """Near-duplicates among the texts. `pairs` int32 [P, 2], sorted by their second row, which is the later one.

    `cut_short`: how many rows were compared with too few of the others; they may have further near-duplicates.
    """

    pairs: NDArray[np.int32]
    cut_short: int


class Sketches:
    """A MinHash signature of each text that was seen, and the pairs that they lead to."""

    def __init__(self, seed: int = 0) -> None:
        drawn = np.frombuffer(hashlib.shake_256(f"minhash {seed}".encode()).digest(8 * HASHES), "<u4")
        self._factors, self._terms = drawn[:HASHES] | np.uint32(1), drawn[HASHES:]
        self._waiting: list[str] = []
        self._characters = 0
        self._signatures = bytearray()

    def __len__(self) -> int:
        return len(self._signatures) // HASHES + len(self._waiting)

    def see(self, text: str) -> None:
        """Keep the signature of a text, normalised as the caller sees fit; texts are numbered as they come."""
        self._waiting.append(text)
        self._characters += max(len(text), GRAM)
        if self._characters >= BLOCK:
            self._sketch()

    def pairs(self, text_of: Callable[[int], str]) -> Near:
        """The near-duplicates among the texts seen so far; `text_of` gives a text again by its number.

        Exact twins are pairs too: drop them before, they crowd the bands.
        """
        self._sketch()
        search = _Search(np.frombuffer(self._signatures, np.uint8).reshape(-1, HASHES), text_of)
        for band in range(BANDS):
            search.through(band)
        return search.result()

    def _sketch(self) -> None:
        """The signatures of the waiting texts. A random order of 5-grams x is that of a x + b mod 2^32, with odd a."""
        if not self._waiting:
            return
        texts = [text.ljust(GRAM, "\0") for text in self._waiting]
        codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), "<u4")
        hashes, counts = window_hashes(codes.astype(np.uint64), [len(text) for text in texts], GRAM)
        grams, starts = (hashes >> np.uint64(32)).astype(np.uint32), np.cumsum(counts) - counts
        ordered, block = np.empty_like(grams), np.empty((len(texts), HASHES), np.uint8)
        for column, (factor, term) in enumerate(zip(self._factors, self._terms, strict=True)):
            np.multiply(grams, factor, out=ordered)
            np.add(ordered, term, out=ordered)
            first = np.minimum.reduceat(ordered, starts)
            block[:, column] = (first * np.uint32(0x9E3779B1)) >> 24
        self._signatures += block.tobytes()
        self._waiting, self._characters = [], 0


def window_hashes(values: Hashes, lengths: Sequence[int] | Rows, width: int) -> tuple[Hashes, Rows]:
    """uint64 [G], a hash of each run of `width` values within one item, and int64 [N], how many an item has.

    `values` [T] are those of all items, one after the other, and `lengths` [N] says how many are whose.
    """
    sizes = np.asarray(lengths, np.int64)
    hashes = np.zeros(max(len(values) - width + 1, 0), np.uint64)
    for offset in range(width):
        hashes *= BASE
        hashes += values[offset : offset + len(hashes)]
    counts = np.maximum(sizes - width + 1, 0)
    skipped = np.cumsum(sizes) - sizes - (np.cumsum(counts) - counts)
    hashes = hashes[np.arange(counts.sum()) + np.repeat(skipped, counts)]
    return (hashes ^ (hashes >> np.uint64(29))) * MIX, counts


def contained(values: NDArray[Any], known: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of the values [N] stand in `known`, which is sorted."""
    if not len(known):
        return np.zeros(len(values), bool)
    at = np.searchsorted(known, values)
    return np.asarray(known[np.minimum(at, len(known) - 1)] == values)


class _Search:
    """The state of a search: the pairs found, and what it cost each row."""

    def __init__(self, signatures: NDArray[np.uint8], text_of: Callable[[int], str]) -> None:
        self._signatures, self._grams = signatures, _Grams(text_of)
        self._found, self._tried, self._crowded = np.zeros((3, len(signatures)), np.uint8)  # by row
        self._known = np.zeros(0, np.int64)  # pairs as later << 32 | earlier, sorted
        self._fresh = array("q")  # those of this band; one buffer, as many small arrays would leave holes

    def result(self) -> Near:
        complete = (self._found < FOUND) & (self._tried < TRIED) & (BANDS - self._crowded >= COMPLETE)
        pairs = self._known.astype("<i8", copy=False).view("<i4").reshape(-1, 2)  # the lower half comes first: no copy
        return Near(pairs, int((~complete).sum()))

    def through(self, band: int) -> None:
        """Compare the rows that agree on a band."""
        keys = self._keys(band)
        rows = np.argsort(keys, kind="stable")
        keys = keys[rows]
        same = np.concatenate([[False], keys[1:] == keys[:-1], [False]])[: len(keys) + 1]
        shared = same[1:] | same[:-1]
        rows, same = rows[shared], same[:-1][shared]
        position = np.arange(len(rows), dtype=np.int32)
        head = np.maximum.accumulate(np.where(same, 0, position))
        later = position[same]
        later = later[self._open(rows[later])]
        for start in range(0, len(later), CHUNK):
            self._waves(later[start : start + CHUNK], rows, head)
        self._crowded[rows[position - head > HEADS + WINDOW]] += 1
        self._known = np.concatenate([self._known, np.asarray(self._fresh)])
        self._known.sort()
        self._fresh = array("q")

    def _keys(self, band: int) -> Hashes:
        """uint64 [N]: the bytes of a band as a number."""
        padded = np.zeros((len(self._signatures), 8), np.uint8)
        padded[:, :WIDTH] = self._signatures[:, band * WIDTH : (band + 1) * WIDTH]
        return padded.view(np.uint64)[:, 0]

    def _waves(self, later: NDArray[np.int32], rows: Rows, head: NDArray[np.int32]) -> None:
        """One earlier row at a time for all the later ones: the first ones under their key, then those just before.

        `rows` are sorted by key, `later` are places in it, and `head` [P] is where the key of each place begins.
        """
        for offset in range(HEADS + WINDOW):
            later = later[later - head[later] > offset]
            if not len(later):
                return
            earlier = head[later] + offset if offset < HEADS else later - (offset - HEADS + 1)
            later = later[self._read(rows[earlier], rows[later])]

    def _read(self, earlier: Rows, later: Rows) -> NDArray[np.bool_]:
        """Compare pairs [n], each later row once; which of the later rows are to be compared further."""
        alike = np.count_nonzero(self._signatures[earlier] == self._signatures[later], axis=1) >= LEAST
        pairs = later[alike] << 32 | earlier[alike]
        pairs = pairs[~contained(pairs, self._known)]
        near = np.array([self._grams.near(pair >> 32, pair & 0xFFFFFFFF) for pair in pairs.tolist()], bool)
        self._fresh.frombytes(pairs[near].tobytes())
        self._found[pairs[near] >> 32] += 1
        self._tried[pairs[~near] >> 32] += 1
        return self._open(later)

    def _open(self, rows: Rows) -> NDArray[np.bool_]:
        """Which rows are to be compared further."""
        return np.asarray((self._found[rows] < FOUND) & (self._tried[rows] < TRIED))


class _Grams:
    """The 5-grams of texts, those read of late kept; some 130 bytes a character. A shorter text is one of its own."""

    def __init__(self, text_of: Callable[[int], str]) -> None:
        self._text_of = text_of
        self._sets: dict[int, set[str]] = {}
        self._kept = 0

    def near(self, one: int, other: int) -> bool:
        """Whether two texts are near-duplicates."""
        a, b = self._of(one), self._of(other)
        shared = len(a & b)
        return shared / (len(a) + len(b) - shared) >= NEAR

    def _of(self, row: int) -> set[str]:
        if row not in self._sets:
            if self._kept > KEPT:
                self._sets, self._kept = {}, 0
            text = self._text_of(row)
            self._sets[row] = {text[at : at + GRAM] for at in range(max(len(text) - GRAM + 1, 1))}
            self._kept += len(text)
        return self._sets[row]
